"""Chunks of a library."""

import time
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator
from rest_framework.request import Request
from rest_framework.response import Response

from apps.access.idempotency import answer_with
from apps.api.bodies import parse, parse_chunks
from apps.api.cursors import ListIdentity
from apps.api.parameters import DEFAULT_LIMIT, MAX_LIMIT, ChunkPageParameters, ChunkParameters, page_data
from apps.api.renderers import dumps
from apps.api.v1 import examples, schemas
from apps.api.v1.base import ApiView, path_to, profile_data, respond, with_etag
from apps.api.v1.operation import operation
from apps.engine.metadata.facets import ValuePage
from apps.engine.metadata.operands import MAX_IN_VALUES
from apps.engine.metadata.ordering import OrderBy, OrderedRow
from apps.libraries import selectors
from apps.libraries.chunk_fields import ShowingInput
from apps.libraries.fields import BoundedInt, Expiry, Identifier, Input, Metadata, NotNull, Text, validation_error
from apps.libraries.inputs import ChunksWrite, ChunkUpdate, Profiled
from apps.libraries.profile import record
from apps.libraries.selectors import PageKey
from apps.libraries.services import chunks as services
from apps.libraries.services.chunks import WriteResult
from apps.libraries.services.metadata import MetadataChange, MetadataMode, update_chunks_by_id
from apps.libraries.services.partial import write_chunks
from apps.search import matching as search
from apps.search import reading
from apps.search.query.spec import Filter, parse_field, parse_order_field

# As many as a filter's `$in` takes. An id that comes twice is one.
Ids = Annotated[list[Identifier], Field(max_length=MAX_IN_VALUES)]
# Fields that one answer summarizes.
MAX_FIELDS = 500
MAX_ORDER_FIELDS = 8


class ChunksGet(ShowingInput):
    """Chunks to read by their ids."""

    ids: Ids = Field(description="The chunks' ids; none are found where it is empty.")


class ChunksDelete(Input):
    """Chunks to delete, by their ids or by a filter."""

    ids: Ids = Field([], description="The chunks' ids; unknown ones are passed over.")
    filter: Filter

    @model_validator(mode="after")
    def _one_way(self) -> "ChunksDelete":
        if self.is_set("ids") == self.is_set("filter"):
            raise validation_error("needs exactly one of ids and filter")
        if self.is_set("filter") and self.filter.is_everything:
            raise validation_error("must not be empty; delete the library instead, or name all ids", path=("filter",))
        return self


class OrderField(Input):
    """A field to order chunks by."""

    field: Annotated[str, AfterValidator(parse_order_field)] = Field(
        description="The path of a field as in filters, or `@id`, `@document_id`, `@created_at`, `@expires_at`."
    )
    direction: Literal["asc", "desc"] = Field("asc", description="Ascending or descending.")


class ChunksList(ShowingInput):
    """A page of chunks, and their order."""

    filter: Filter
    document_id: Annotated[Identifier | None, NotNull()] = Field(None, description="Only the chunks of this document.")
    order_by: list[OrderField] = Field(
        [],
        max_length=MAX_ORDER_FIELDS,
        fail_fast=True,
        description="Fields to order by, the first one first; left out, creation, or the position in the document.",
    )
    limit: Annotated[int, BoundedInt(1, MAX_LIMIT, "of items")] = Field(
        DEFAULT_LIMIT, description="The most items to return."
    )
    cursor: str = Field("", description="The `next_cursor` of the page before; the other fields must be the same.")

    @property
    def identity(self) -> ListIdentity:
        """Which list this is a page of."""
        order = tuple(OrderBy(by.field, by.direction == "desc") for by in self.order_by)
        return ListIdentity(self.filter, self.document_id, order)


class ChunksFields(Input):
    """The fields to summarize, and among which chunks."""

    filter: Filter
    fields: list[Annotated[str, AfterValidator(parse_field)]] = Field(
        [],
        max_length=MAX_FIELDS,
        fail_fast=True,
        description="Paths of fields; left out, those of metadata, the document's too, that most chunks have.",
    )


class ChunksUpdate(Input):
    """A change of the metadata of chunks, which are named by their ids or by a filter."""

    ids: Ids = Field([], description="The chunks' ids; unknown ones are passed over.")
    filter: Filter
    metadata: Metadata = Field({}, description="The metadata to write; it may be left out where there is an expiry.")
    metadata_mode: MetadataMode = Field(
        "set",
        description="`set` replaces the top-level keys named, `merge` is a JSON merge patch (RFC 7396), where null "
        "deletes, `replace` replaces all there is.",
    )
    expires_at: Expiry = None
    profile: Profiled = False

    @model_validator(mode="after")
    def _check_consistency(self) -> "ChunksUpdate":
        if self.is_set("ids") == self.is_set("filter"):
            raise validation_error("needs exactly one of ids and filter")
        if not self.is_set("metadata") and (self.is_set("metadata_mode") or not self.is_set("expires_at")):
            raise validation_error("is required, or an expires_at alone", path=("metadata",))
        return self

    @property
    def change(self) -> MetadataChange:
        """What to make of each chunk."""
        metadata = self.metadata if self.is_set("metadata") else None
        return MetadataChange(metadata, self.metadata_mode, self.is_set("expires_at"), self.expires_at)


class ChunksCount(Input):
    """Which chunks to count."""

    filter: Filter


class ChunksFacets(Input):
    """The field whose values are counted, among which chunks, and which values to show."""

    field: Annotated[str, AfterValidator(parse_field)] = Field(
        description="The path of a field of metadata, such as topic or author.name; `@document.` and the path of a "
        "field of the document's; or `@id`, `@document_id`."
    )
    filter: Filter
    search: Text = Field("", description="Only strings that have this text in them, in upper or lower case.")
    order_by: Literal["count", "value"] = Field(
        "count", description="`count` shows the most frequent values first, `value` the least ones."
    )
    limit: Annotated[int, BoundedInt(1, 1000, "of values")] = Field(50, description="The most values to return.")
    offset: Annotated[int, BoundedInt(0, 1_000_000, "of values")] = Field(
        0, description="How many values to pass over, for the next page."
    )

    @property
    def page(self) -> ValuePage:
        """The values to show."""
        return ValuePage(self.limit, self.offset, by_value=self.order_by == "value", search=self.search)


def list_page(library_id: str, asked: ChunksList) -> dict[str, Any]:
    """A page of chunks in the order asked for. Raises NotFound, Invalid."""
    identity = asked.identity
    values, key = identity.parse_cursor(asked.cursor) if asked.is_set("cursor") else ([], ())
    place: PageKey | OrderedRow | None
    if identity.order:
        items, place = reading.list_ordered_chunks(
            library_id=library_id,
            filter=asked.filter,
            order=identity.order,
            limit=asked.limit,
            after=OrderedRow(tuple(values), key[0]) if key else None,
            shown=asked.shown_item,
            document_id=asked.document_id,
        )
    else:
        page = reading.list_chunks(
            library_id=library_id,
            filter=asked.filter,
            limit=asked.limit,
            after=key,
            shown=asked.shown_item,
            document_id=asked.document_id,
        )
        items, place = page.items, page.next_key
    return {"items": items, "next_cursor": None if place is None else identity.encode_cursor(place)}


def delete_chunks(library_id: str, delete: ChunksDelete) -> int:
    """Delete the chunks that are named, and return their number. Raises NotFound."""
    if delete.is_set("ids"):
        return services.delete_chunks(library_id=library_id, ids=delete.ids)
    return search.delete_chunks(library_id=library_id, filter=delete.filter)


class Chunks(ApiView):
    """A chunk is a piece of text with an embedding and metadata: what a query returns."""

    example_bodies = {"POST": examples.CHUNKS}
    parameters = ChunkPageParameters
    query: ChunkPageParameters
    below = ("get", "list", "count", "fields", "facets", "update", "delete")

    @operation("list_chunks", "List chunks", schemas.ChunkPage)
    def get(self, request: Request, library_id: str) -> Response:
        page = reading.list_chunks(
            library_id=library_id,
            filter=self.query.filter,
            limit=self.query.limit,
            after=self.query.cursor,
            shown=self.query.shown,
            document_id=self.query.document_id,
        )
        return respond(page_data(page))

    @operation("write_chunks", "Upsert, insert or update chunks in one transaction", schemas.ChunksWritten, ChunksWrite)
    def post(self, request: Request, library_id: str) -> Response:
        began = time.perf_counter()
        write, invalid = parse_chunks(request)
        if not write.profile:
            answer_with(lambda result: dumps(_written(result)))
        with record(write.profile, began) as profile:
            result = write_chunks(library_id=library_id, write=write, invalid=invalid)
        return respond(_written(result) | profile_data(profile))


def _written(result: WriteResult) -> dict[str, Any]:
    data: dict[str, Any] = {"ids": result.ids, "created": result.created, "updated": result.updated}
    if result.skipped is not None:
        data["skipped"] = [
            {"index": i, "errors": [fault._asdict() for fault in faults]} for i, faults in result.skipped.items()
        ]
    return data


class Chunk(ApiView):
    """One chunk."""

    example_bodies = {"PATCH": examples.CHUNK_UPDATE}
    parameters = ChunkParameters
    query: ChunkParameters
    has_etag = True
    collection = "chunks"

    @operation("get_chunk", "Read a chunk", schemas.Chunk)
    def get(self, request: Request, library_id: str, chunk_id: str) -> Response:
        chunk, tag = selectors.chunk_with_etag(library_id=library_id, chunk_id=chunk_id, shown=self.query.shown)
        return with_etag(chunk, tag=tag)

    @operation("update_chunk", "Change a chunk", schemas.Chunk, ChunkUpdate)
    def patch(self, request: Request, library_id: str, chunk_id: str) -> Response:
        update = parse(request, ChunkUpdate)
        chunk = services.update_chunk(library_id=library_id, chunk_id=chunk_id, update=update, if_match=self.if_match)
        return with_etag(chunk)

    @operation("delete_chunk", "Delete a chunk", None)
    def delete(self, request: Request, library_id: str, chunk_id: str) -> Response:
        services.delete_chunk(library_id=library_id, chunk_id=chunk_id, if_match=self.if_match)
        return Response(status=204)

    def links(self) -> dict[str, str]:
        data, links = self.response.data, super().links()
        if data.get("document_id"):
            links["its document"] = path_to("libraries", self.kwargs["library_id"], "documents", data["document_id"])
        if "id" in data and "embedding" not in data:
            links["its embedding"] = "?include=text&include=metadata&include=embedding"
        return links


class ChunkGet(Chunk):
    """Chunks by their ids. The id 'get' stays valid for the other methods."""

    scopes = {"POST": "read"}
    example_bodies = {"POST": examples.CHUNKS_GET, **Chunk.example_bodies}

    @operation("get_chunks", "Read chunks by their ids", schemas.ChunksFound, ChunksGet)
    def post(self, request: Request, library_id: str, chunk_id: str) -> Response:
        get = parse(request, ChunksGet)
        items, missing = reading.get_chunks(library_id=library_id, ids=get.ids, shown=get.shown_item)
        return respond({"items": items, "missing": missing})


class ChunkDelete(Chunk):
    """Deletes chunks by their ids, or by a filter. The id 'delete' stays valid for the other methods."""

    example_bodies = {"POST": examples.CHUNKS_DELETE, **Chunk.example_bodies}

    @operation("delete_chunks", "Delete chunks by their ids, or by a filter", schemas.Deleted, ChunksDelete)
    def post(self, request: Request, library_id: str, chunk_id: str) -> Response:
        return respond({"deleted": delete_chunks(library_id, parse(request, ChunksDelete))})


class ChunkUpdateMany(Chunk):
    """Changes metadata of chunks by ids, or by a filter. The id 'update' stays valid for the other methods."""

    example_bodies = {"POST": examples.CHUNKS_UPDATE, **Chunk.example_bodies}
    name = "Chunk Update"

    @operation("update_chunks", "Change metadata by ids, or by a filter", schemas.Updated, ChunksUpdate)
    def post(self, request: Request, library_id: str, chunk_id: str) -> Response:
        began = time.perf_counter()
        update = parse(request, ChunksUpdate)
        with record(update.profile, began) as profile:
            if update.is_set("ids"):
                updated = update_chunks_by_id(library_id=library_id, ids=update.ids, change=update.change)
            else:
                updated = search.update_chunks(library_id=library_id, filter=update.filter, change=update.change)
        return respond({"updated": updated} | profile_data(profile))


class ChunkCount(Chunk):
    """Counts chunks. The id 'count' stays valid for the other methods."""

    scopes = {"POST": "search"}
    example_bodies = {"POST": examples.CHUNKS_COUNT, **Chunk.example_bodies}

    @operation("count_chunks", "Count chunks", schemas.Counted, ChunksCount)
    def post(self, request: Request, library_id: str, chunk_id: str) -> Response:
        count = parse(request, ChunksCount)
        return respond({"count": search.count_chunks(library_id=library_id, filter=count.filter)})


class ChunkList(Chunk):
    """Lists chunks in an order. The id 'list' stays valid for the other methods."""

    scopes = {"POST": "read"}
    example_bodies = {"POST": examples.CHUNKS_LIST, **Chunk.example_bodies}

    @operation("list_chunks_in_order", "List chunks in an order", schemas.ChunkPage, ChunksList)
    def post(self, request: Request, library_id: str, chunk_id: str) -> Response:
        return respond(list_page(library_id, parse(request, ChunksList)))


class ChunkFields(Chunk):
    """Says what values fields have. The id 'fields' stays valid for the other methods."""

    scopes = {"POST": "read"}
    example_bodies = {"POST": examples.CHUNKS_FIELDS, **Chunk.example_bodies}

    @operation("summarize_fields", "Summarize the values of fields", schemas.FieldSummaries, ChunksFields)
    def post(self, request: Request, library_id: str, chunk_id: str) -> Response:
        asked = parse(request, ChunksFields)
        names = list(dict.fromkeys(asked.fields)) if asked.is_set("fields") else None
        found = search.summarize_fields(library_id=library_id, names=names, filter=asked.filter, limit=MAX_FIELDS)
        return respond(found)


class ChunkFacets(Chunk):
    """Counts the values of a field. The id 'facets' stays valid for the other methods."""

    scopes = {"POST": "read"}
    example_bodies = {"POST": examples.CHUNKS_FACETS, **Chunk.example_bodies}

    @operation("count_values", "Count the values of a field", schemas.Facets, ChunksFacets)
    def post(self, request: Request, library_id: str, chunk_id: str) -> Response:
        asked = parse(request, ChunksFacets)
        found = search.count_values(library_id=library_id, field=asked.field, filter=asked.filter, page=asked.page)
        return respond(found)
