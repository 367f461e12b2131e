"""Chunks of a library."""

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from apps.api.bodies import parse
from apps.api.openapi import DOCUMENT_ID, IF_MATCH, INCLUDE, LIST, example
from apps.api.pagination import PARAMETERS, page_data, page_request
from apps.api.v1 import samples, schemas
from apps.api.v1.base import ApiView, answer, if_match, no_content, path_to, tagged, wants_embedding
from apps.libraries import selectors
from apps.libraries.errors import Fault, NotSupported
from apps.libraries.inputs import CHUNKS_PER_WRITE, ChunksWrite, ChunkUpdate
from apps.libraries.services import chunks as services
from apps.libraries.values import Identifier, Input, Unbuilt
from apps.search.specs import Filter

Ids = Annotated[list[Identifier], CHUNKS_PER_WRITE]


class ChunksGet(Input):
    """Chunks to read by their ids."""

    ids: Ids
    include: list[Literal["embedding"]] = []


class ChunksDelete(Input):
    """Chunks to delete by their ids."""

    ids: Ids
    filter: Unbuilt = None


class ChunksCount(Input):
    """What to count: all chunks."""

    filter: Filter = {}


class Chunks(ApiView):
    """A chunk is a piece of text with an embedding and metadata: what a query returns."""

    examples = {"POST": samples.CHUNKS}
    parameters = (*PARAMETERS, "document_id", "include", "filter")

    @extend_schema(
        operation_id="list_chunks",
        summary="List chunks",
        parameters=[*LIST, DOCUMENT_ID, INCLUDE],
        responses=schemas.ChunkPage,
    )
    def get(self, request: Request, library_id: str) -> Response:
        query = request.query_params
        page = page_request(query)
        if "".join(query.get("filter", "{}").split()) != "{}":
            raise NotSupported("This version has no filters yet.", [Fault("/filter", "is not supported")])
        found = selectors.chunks(
            library_id=library_id,
            limit=page.limit,
            after=page.after,
            document_id=query.get("document_id"),
            embedding=wants_embedding(request),
        )
        return answer(page_data(found))

    @extend_schema(
        operation_id="write_chunks",
        summary="Upsert, insert or update chunks in one transaction",
        request=ChunksWrite,
        responses=schemas.ChunksWritten,
        examples=[example(samples.CHUNKS)],
    )
    def post(self, request: Request, library_id: str) -> Response:
        written = services.write_chunks(library_id=library_id, write=parse(request, ChunksWrite))
        return answer({"ids": written.ids, "created": written.created, "updated": written.updated})

    def links(self, data: Any) -> Iterator[tuple[str, str]]:
        library_id = self.kwargs["library_id"]
        yield "the library", path_to("libraries", library_id)
        yield "query", path_to("libraries", library_id, "query")
        for chunk in data.get("items", []):
            yield chunk["id"], path_to("libraries", library_id, "chunks", chunk["id"])


class Chunk(ApiView):
    """One chunk."""

    examples = {"PATCH": samples.CHUNK_UPDATE}
    parameters = ("include",)

    @extend_schema(operation_id="get_chunk", summary="Read a chunk", parameters=[INCLUDE], responses=schemas.Chunk)
    def get(self, request: Request, library_id: str, chunk_id: str) -> Response:
        chunk = selectors.chunk(library_id=library_id, chunk_id=chunk_id, embedding=wants_embedding(request))
        return tagged(chunk)

    @extend_schema(
        operation_id="update_chunk",
        summary="Change a chunk",
        request=ChunkUpdate,
        responses=schemas.Chunk,
        parameters=[IF_MATCH],
        examples=[example(samples.CHUNK_UPDATE)],
    )
    def patch(self, request: Request, library_id: str, chunk_id: str) -> Response:
        update = parse(request, ChunkUpdate)
        chunk = services.update_chunk(
            library_id=library_id, chunk_id=chunk_id, update=update, if_match=if_match(request)
        )
        return tagged(chunk)

    @extend_schema(
        operation_id="delete_chunk",
        summary="Delete a chunk",
        parameters=[IF_MATCH],
        request=None,
        responses={204: None},
    )
    def delete(self, request: Request, library_id: str, chunk_id: str) -> Response:
        services.delete_chunk(library_id=library_id, chunk_id=chunk_id, if_match=if_match(request))
        return no_content()

    def links(self, data: Any) -> Iterator[tuple[str, str]]:
        library_id = self.kwargs["library_id"]
        yield "the library", path_to("libraries", library_id)
        yield "its chunks", path_to("libraries", library_id, "chunks")


class ChunkGet(Chunk):
    """Chunks by their ids. `get` stays a valid id for the other methods."""

    examples = {"POST": samples.CHUNKS_GET, **Chunk.examples}
    documented = frozenset({"POST"})

    @extend_schema(
        operation_id="get_chunks",
        summary="Read chunks by their ids",
        request=ChunksGet,
        responses=schemas.ChunksFound,
        examples=[example(samples.CHUNKS_GET)],
    )
    def post(self, request: Request, library_id: str, chunk_id: str) -> Response:
        get = parse(request, ChunksGet)
        services.check_distinct(get.ids, [f"/ids/{i}" for i in range(len(get.ids))])
        items, missing = selectors.chunks_by_id(
            library_id=library_id, ids=get.ids, embedding="embedding" in get.include
        )
        return answer({"items": items, "missing": missing})


class ChunkDelete(Chunk):
    """Deletes chunks by their ids. `delete` stays a valid id for the other methods."""

    examples = {"POST": samples.CHUNKS_DELETE, **Chunk.examples}
    documented = frozenset({"POST"})

    @extend_schema(
        operation_id="delete_chunks",
        summary="Delete chunks by their ids",
        request=ChunksDelete,
        responses=schemas.Deleted,
        examples=[example(samples.CHUNKS_DELETE)],
    )
    def post(self, request: Request, library_id: str, chunk_id: str) -> Response:
        delete = parse(request, ChunksDelete)
        return answer({"deleted": services.delete_chunks(library_id=library_id, ids=delete.ids)})


class ChunkCount(Chunk):
    """Counts chunks. `count` stays a valid id for the other methods."""

    examples = {"POST": {}, **Chunk.examples}
    documented = frozenset({"POST"})

    @extend_schema(
        operation_id="count_chunks",
        summary="Count chunks",
        request=ChunksCount,
        responses=schemas.Counted,
        examples=[example({})],
    )
    def post(self, request: Request, library_id: str, chunk_id: str) -> Response:
        parse(request, ChunksCount)
        return answer({"count": selectors.count_chunks(library_id=library_id)})
