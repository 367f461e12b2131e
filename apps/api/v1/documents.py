"""Documents of a library, each with its chunks."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any
from urllib.parse import urlencode

from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from apps.api.bodies import parse
from apps.api.openapi import IF_MATCH, LIST, created, example
from apps.api.pagination import PARAMETERS, page_data, page_request
from apps.api.v1 import examples, schemas
from apps.api.v1.base import ApiView, if_match, no_content, path_to, respond, with_etag
from apps.libraries import selectors
from apps.libraries.inputs import DocumentInput, DocumentsWrite, DocumentUpdate
from apps.libraries.services import documents as services


class Documents(ApiView):
    """Documents group chunks, in order. Deleting one deletes its chunks."""

    example_bodies = {"POST": examples.DOCUMENT}
    parameters = PARAMETERS

    @extend_schema(
        operation_id="list_documents", summary="List documents", parameters=LIST, responses=schemas.DocumentPage
    )
    def get(self, request: Request, library_id: str) -> Response:
        page = page_request(request.query_params)
        return respond(page_data(selectors.documents(library_id=library_id, limit=page.limit, after=page.after)))

    @extend_schema(
        operation_id="create_document",
        summary="Create a document with its chunks",
        description="A text in the place of chunks is split and embedded.",
        request=DocumentInput,
        responses={201: created(schemas.DocumentCreated)},
        examples=[example(examples.DOCUMENT), example(examples.TEXT_DOCUMENT, "From a text")],
    )
    def post(self, request: Request, library_id: str) -> Response:
        document = services.create_document(library_id=library_id, document=parse(request, DocumentInput))
        return respond(document, 201, path_to("libraries", library_id, "documents", document["id"]))

    def links(self, data: Any) -> Iterator[tuple[str, str]]:
        library_id = self.kwargs["library_id"]
        yield "the library", path_to("libraries", library_id)
        for document in data.get("items", [data]):
            path = path_to("libraries", library_id, "documents", document["id"])
            yield document["title"] or document["id"], path


class Document(ApiView):
    """One document; its chunks are listed with `?document_id=`."""

    example_bodies = {"PUT": examples.DOCUMENT, "PATCH": examples.DOCUMENT_UPDATE}

    @extend_schema(operation_id="get_document", summary="Read a document", responses=schemas.Document)
    def get(self, request: Request, library_id: str, document_id: str) -> Response:
        document = selectors.document_row(library_id=library_id, document_id=document_id)
        return with_etag(selectors.document_data(document), tag=selectors.document_etag(document))

    @extend_schema(
        operation_id="put_document",
        summary="Make the document exactly this",
        description="Unchanged chunks are kept, others replaced, those not named deleted.",
        request=DocumentInput,
        responses={200: schemas.DocumentReplaced, 201: created(schemas.DocumentReplaced)},
        parameters=[IF_MATCH],
        examples=[example(examples.DOCUMENT)],
    )
    def put(self, request: Request, library_id: str, document_id: str) -> Response:
        replaced = services.replace_document(
            library_id=library_id,
            document_id=document_id,
            document=parse(request, DocumentInput),
            if_match=if_match(request),
        )
        data = {"id": document_id, **asdict(replaced)}
        path = path_to("libraries", library_id, "documents", document_id)
        return respond(data, 201, path) if data.pop("is_new") else respond(data)

    @extend_schema(
        operation_id="update_document",
        summary="Change a document's own fields",
        request=DocumentUpdate,
        responses=schemas.Document,
        parameters=[IF_MATCH],
        examples=[example(examples.DOCUMENT_UPDATE)],
    )
    def patch(self, request: Request, library_id: str, document_id: str) -> Response:
        update = parse(request, DocumentUpdate)
        document = services.update_document(
            library_id=library_id, document_id=document_id, update=update, if_match=if_match(request)
        )
        return with_etag(selectors.document_data(document), tag=selectors.document_etag(document))

    @extend_schema(
        operation_id="delete_document",
        summary="Delete a document and its chunks",
        parameters=[IF_MATCH],
        request=None,
        responses={204: None},
    )
    def delete(self, request: Request, library_id: str, document_id: str) -> Response:
        services.delete_document(library_id=library_id, document_id=document_id, if_match=if_match(request))
        return no_content()

    def links(self, data: Any) -> Iterator[tuple[str, str]]:
        library_id, document_id = self.kwargs["library_id"], self.kwargs["document_id"]
        yield "the library", path_to("libraries", library_id)
        query = urlencode({"document_id": document_id})
        yield "its chunks", f"{path_to('libraries', library_id, 'chunks')}?{query}"


class DocumentBatch(Document):
    """Many documents in one transaction. `batch` stays a valid id for the other methods."""

    example_bodies = {"POST": examples.DOCUMENTS, **Document.example_bodies}
    documented = frozenset({"POST"})

    @extend_schema(
        operation_id="create_documents",
        summary="Create documents in one transaction",
        request=DocumentsWrite,
        responses={201: created(schemas.DocumentsCreated)},
        examples=[example(examples.DOCUMENTS)],
    )
    def post(self, request: Request, library_id: str, document_id: str) -> Response:
        write = parse(request, DocumentsWrite)
        documents = services.create_documents(library_id=library_id, write=write)
        return respond({"ids": [document["id"] for document in documents], "documents": documents}, 201)

    def links(self, data: Any) -> Iterator[tuple[str, str]]:
        library_id = self.kwargs["library_id"]
        yield "the library", path_to("libraries", library_id)
        for document in data.get("documents", []):
            path = path_to("libraries", library_id, "documents", document["id"])
            yield document["title"] or document["id"], path
