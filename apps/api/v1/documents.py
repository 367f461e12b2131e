"""Documents of a library, each with its chunks."""

from dataclasses import asdict
from urllib.parse import urlencode

from drf_spectacular.utils import extend_schema, extend_schema_view
from rest_framework.request import Request
from rest_framework.response import Response

from apps.api.bodies import parse
from apps.api.openapi import HIDDEN
from apps.api.parameters import PageParameters, page_data
from apps.api.v1 import examples, schemas
from apps.api.v1.base import ApiView, path_to, respond, with_etag
from apps.libraries import selectors
from apps.libraries.inputs import DocumentInput, DocumentsWrite, DocumentUpdate
from apps.libraries.services import documents as services


class Documents(ApiView):
    """Documents group chunks, in order. Deleting one deletes its chunks."""

    example_bodies = {"POST": examples.DOCUMENT}
    parameters = PageParameters
    query: PageParameters
    below = ("batch",)

    @extend_schema(operation_id="list_documents", summary="List documents", responses=schemas.DocumentPage)
    def get(self, request: Request, library_id: str) -> Response:
        page = selectors.documents(library_id=library_id, limit=self.query.limit, after=self.query.cursor)
        return respond(page_data(page))

    @extend_schema(
        operation_id="create_document",
        summary="Create a document with its chunks",
        description="A text in the place of chunks is split and embedded.",
        request=DocumentInput,
        responses={201: schemas.DocumentCreated},
    )
    def post(self, request: Request, library_id: str) -> Response:
        document = services.create_document(library_id=library_id, document=parse(request, DocumentInput))
        return respond(document, 201, path_to("libraries", library_id, "documents", document["id"]))


class Document(ApiView):
    """One document; its chunks are listed with `?document_id=`."""

    example_bodies = {"PUT": examples.DOCUMENT, "PATCH": examples.DOCUMENT_UPDATE}
    has_etag = True

    @extend_schema(operation_id="get_document", summary="Read a document", responses=schemas.Document)
    def get(self, request: Request, library_id: str, document_id: str) -> Response:
        document = selectors.document_row(library_id=library_id, document_id=document_id)
        return with_etag(selectors.document_data(document), tag=selectors.document_etag(document))

    @extend_schema(
        operation_id="put_document",
        summary="Make the document exactly this",
        description="Unchanged chunks are kept, others replaced, those not named deleted.",
        request=DocumentInput,
        responses={200: schemas.DocumentReplaced, 201: schemas.DocumentReplaced},
    )
    def put(self, request: Request, library_id: str, document_id: str) -> Response:
        replaced = services.replace_document(
            library_id=library_id,
            document_id=document_id,
            document=parse(request, DocumentInput),
            if_match=self.if_match,
        )
        data = {"id": document_id, **asdict(replaced)}
        path = path_to("libraries", library_id, "documents", document_id)
        return respond(data, 201, path) if data.pop("is_new") else respond(data)

    @extend_schema(
        operation_id="update_document",
        summary="Change a document's own fields",
        request=DocumentUpdate,
        responses=schemas.Document,
    )
    def patch(self, request: Request, library_id: str, document_id: str) -> Response:
        update = parse(request, DocumentUpdate)
        document = services.update_document(
            library_id=library_id, document_id=document_id, update=update, if_match=self.if_match
        )
        return with_etag(selectors.document_data(document), tag=selectors.document_etag(document))

    @extend_schema(operation_id="delete_document", summary="Delete a document and its chunks")
    def delete(self, request: Request, library_id: str, document_id: str) -> Response:
        services.delete_document(library_id=library_id, document_id=document_id, if_match=self.if_match)
        return Response(status=204)

    def links(self) -> dict[str, str]:
        chunks = path_to("libraries", self.kwargs["library_id"], "chunks")
        return {"its chunks": f"{chunks}?{urlencode({'document_id': self.kwargs['document_id']})}"}


@extend_schema_view(get=HIDDEN, put=HIDDEN, patch=HIDDEN, delete=HIDDEN)
class DocumentBatch(Document):
    """Many documents in one transaction. `batch` stays a valid id for the other methods."""

    example_bodies = {"POST": examples.DOCUMENTS, **Document.example_bodies}

    @extend_schema(
        operation_id="create_documents",
        summary="Create documents in one transaction",
        request=DocumentsWrite,
        responses={201: schemas.DocumentsCreated},
    )
    def post(self, request: Request, library_id: str, document_id: str) -> Response:
        documents = services.create_documents(library_id=library_id, write=parse(request, DocumentsWrite))
        return respond({"ids": [document["id"] for document in documents], "documents": documents}, 201)
