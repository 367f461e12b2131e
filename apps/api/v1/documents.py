"""Documents of a library, each with its chunks."""

import time
from urllib.parse import urlencode

from rest_framework.request import Request
from rest_framework.response import Response

from apps.api.bodies import parse
from apps.api.parameters import DocumentPageParameters, page_data
from apps.api.v1 import examples, schemas
from apps.api.v1.base import ApiView, path_to, profile_data, respond, with_etag
from apps.api.v1.operation import operation
from apps.libraries.inputs import DocumentsWrite, DocumentUpdate, DocumentWrite
from apps.libraries.profile import record
from apps.libraries.services import documents as services
from apps.search.documents import get_document, list_documents


class Documents(ApiView):
    """Documents group chunks, in order. Deleting one deletes its chunks."""

    example_bodies = {"POST": examples.DOCUMENT}
    parameters = DocumentPageParameters
    query: DocumentPageParameters
    below = ("batch",)

    @operation("list_documents", "List documents", schemas.DocumentPage)
    def get(self, request: Request, library_id: str) -> Response:
        page = list_documents(
            library_id=library_id, filter=self.query.filter, limit=self.query.limit, after=self.query.cursor
        )
        return respond(page_data(page))

    @operation(
        "create_document",
        "Create a document with its chunks",
        schemas.DocumentCreated,
        DocumentWrite,
        statuses=(201,),
        description="A text in the place of chunks is split and embedded.",
    )
    def post(self, request: Request, library_id: str) -> Response:
        began = time.perf_counter()
        write = parse(request, DocumentWrite)
        with record(write.profile, began) as profile:
            document = services.create_document(library_id=library_id, document=write)
        return respond(
            document | profile_data(profile), 201, path_to("libraries", library_id, "documents", document["id"])
        )


class Document(ApiView):
    """One document; its chunks are listed with ?document_id=."""

    example_bodies = {"PUT": examples.DOCUMENT, "PATCH": examples.DOCUMENT_UPDATE}
    has_etag = True

    @operation("get_document", "Read a document", schemas.Document)
    def get(self, request: Request, library_id: str, document_id: str) -> Response:
        document, tag = get_document(library_id=library_id, document_id=document_id)
        return with_etag(document, tag=tag)

    @operation(
        "put_document",
        "Make the document exactly this",
        schemas.DocumentReplaced,
        DocumentWrite,
        statuses=(200, 201),
        description="Unchanged chunks are kept, others replaced, those not named deleted.",
    )
    def put(self, request: Request, library_id: str, document_id: str) -> Response:
        began = time.perf_counter()
        write = parse(request, DocumentWrite)
        with record(write.profile, began) as profile:
            data, is_new = services.replace_document(
                library_id=library_id,
                document_id=document_id,
                document=write,
                if_match=self.if_match,
                creates_only=self.creates_only,
            )
        data |= profile_data(profile)
        path = path_to("libraries", library_id, "documents", document_id)
        return respond(data, 201, path) if is_new else respond(data)

    @operation("update_document", "Change a document's own fields", schemas.Document, DocumentUpdate)
    def patch(self, request: Request, library_id: str, document_id: str) -> Response:
        update = parse(request, DocumentUpdate)
        document, tag = services.update_document(
            library_id=library_id, document_id=document_id, update=update, if_match=self.if_match
        )
        return with_etag(document, tag=tag)

    @operation("delete_document", "Delete a document and its chunks", None)
    def delete(self, request: Request, library_id: str, document_id: str) -> Response:
        services.delete_document(library_id=library_id, document_id=document_id, if_match=self.if_match)
        return Response(status=204)

    def links(self) -> dict[str, str]:
        chunks = path_to("libraries", self.kwargs["library_id"], "chunks")
        return {"its chunks": f"{chunks}?{urlencode({'document_id': self.kwargs['document_id']})}"}


class DocumentBatch(Document):
    """Many documents in one transaction. The id 'batch' stays valid for the other methods."""

    example_bodies = {"POST": examples.DOCUMENTS, **Document.example_bodies}

    @operation(
        "create_documents",
        "Write documents in one transaction",
        schemas.DocumentsWritten,
        DocumentsWrite,
        statuses=(200, 201),
        description="Creates them (201), or with `mode: upsert` makes each exactly this, as PUT does (200).",
    )
    def post(self, request: Request, library_id: str, document_id: str) -> Response:
        began = time.perf_counter()
        write = parse(request, DocumentsWrite)
        is_upsert = write.mode == "upsert"
        write_all = services.upsert_documents if is_upsert else services.create_documents
        with record(write.profile, began) as profile:
            documents = write_all(library_id=library_id, write=write)
        data = {"ids": [document["id"] for document in documents], "documents": documents} | profile_data(profile)
        return respond(data, 200 if is_upsert else 201)
