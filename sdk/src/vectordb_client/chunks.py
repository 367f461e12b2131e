"""Chunks of a library: to write, change, delete, read, list and count them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal

from vectordb_client import _routes as routes
from vectordb_client import types
from vectordb_client._binding import Pages, Resource, listing, operation
from vectordb_client._bodies import parts, shown, to_filter, to_list
from vectordb_client._core import UNSET, Steps, build_request, without_none, without_unset
from vectordb_client._rows import Columns, chunk_rows, to_rfc3339, write_body
from vectordb_client.errors import InvalidArgument
from vectordb_client.filters import FilterLike
from vectordb_client.types import (
    Chunk,
    Chunks,
    Page,
    WriteResult,
)
from vectordb_client.vectors import VectorLike, encode

# Limits of one request.
_IDS, _PAGE = 10_000, 500


class ChunkMethods(Resource):
    """Methods of a library: its chunks, written and read."""

    id: str

    @operation
    def upsert(
        self,
        rows: Any = None,
        *,
        texts: Sequence[str | None] | None = None,
        metadatas: Sequence[Mapping[str, Any] | None] | None = None,
        ids: Sequence[str] | None = None,
        vectors: Any = None,
        document_ids: Sequence[str | None] | None = None,
        embed_texts: Sequence[str | None] | None = None,
        expires_at: datetime | str | None = None,
        embedding: Mapping[str, str] | None = None,
        on_invalid: Literal["refuse", "skip"] = "refuse",
        create_documents: bool = False,
        profile: bool = False,
    ) -> Steps[WriteResult]:
        """Write chunks, replacing those whose ids exist, in one transaction: all of them or none.

        Chunks come as rows (dicts with `id`, `text`, `embedding` or `vector`, `metadata`, `document_id`, `embed_text`,
        `expires_at`; a DataFrame; a matrix of vectors) or as columns. A chunk without an id gets one. A text without a
        vector is embedded by the library's model. One request has at most 2,000 chunks: `upload` takes any number.

        `embedding` names the model that made the vectors, to be refused if the library has another. With
        `on_invalid="skip"`, chunks that cannot be stored are left out, and named in the result.

        >>> lib.upsert(texts=["An apple a day"], metadatas=[{"year": 1866}], ids=["apple"])
        WriteResult(created=0, updated=1)
        >>> lib.upsert([{"id": "pear", "text": "Pear tree", "metadata": {"year": 1780}}])
        WriteResult(created=0, updated=1)
        """
        columns = Columns(ids, texts, vectors, metadatas, document_ids, embed_texts, expires_at)
        return (yield from self._write("upsert", rows, columns, embedding, on_invalid, create_documents, profile))

    @operation
    def insert(
        self,
        rows: Any = None,
        *,
        texts: Sequence[str | None] | None = None,
        metadatas: Sequence[Mapping[str, Any] | None] | None = None,
        ids: Sequence[str] | None = None,
        vectors: Any = None,
        document_ids: Sequence[str | None] | None = None,
        embed_texts: Sequence[str | None] | None = None,
        expires_at: datetime | str | None = None,
        embedding: Mapping[str, str] | None = None,
        on_invalid: Literal["refuse", "skip"] = "refuse",
        create_documents: bool = False,
        profile: bool = False,
    ) -> Steps[WriteResult]:
        """As `upsert`, but an id that exists is a Conflict, and nothing is written.

        >>> lib.insert(texts=["Again"], ids=["apple"])
        Traceback (most recent call last):
        vectordb_client.errors.Conflict: ...
        """
        columns = Columns(ids, texts, vectors, metadatas, document_ids, embed_texts, expires_at)
        return (yield from self._write("insert", rows, columns, embedding, on_invalid, create_documents, profile))

    @operation
    def update(
        self,
        rows: Any = None,
        *,
        texts: Sequence[str | None] | None = None,
        metadatas: Sequence[Mapping[str, Any] | None] | None = None,
        ids: Sequence[str] | None = None,
        vectors: Any = None,
        document_ids: Sequence[str | None] | None = None,
        embed_texts: Sequence[str | None] | None = None,
        expires_at: datetime | str | None = None,
        embedding: Mapping[str, str] | None = None,
        on_invalid: Literal["refuse", "skip"] = "refuse",
        profile: bool = False,
    ) -> Steps[WriteResult]:
        """Change chunks that exist: only the fields that are given. An id that does not exist is NotFound.

        >>> lib.update([{"id": "apple", "metadata": {"year": 1913}}])
        WriteResult(created=0, updated=1)
        """
        columns = Columns(ids, texts, vectors, metadatas, document_ids, embed_texts, expires_at)
        return (yield from self._write("update", rows, columns, embedding, on_invalid, False, profile))

    def _write(
        self,
        mode: str,
        rows: Any,
        columns: Columns,
        embedding: Mapping[str, str] | None,
        on_invalid: str,
        create_documents: bool,
        profile: bool,
    ) -> Steps[WriteResult]:
        body = write_body(
            chunk_rows(rows, columns, makes_ids=mode != "update"),
            mode=mode,
            embedding=embedding,
            on_invalid=None if on_invalid == "refuse" else on_invalid,
            create_documents=create_documents or None,
            profile=profile or None,
        )
        answer = yield from self._session.call(build_request(routes.write_chunks, self.id, body=body))
        return types.parse_written(answer.json())

    @operation
    def update_chunk(
        self,
        id: str,
        *,
        text: str | Any = UNSET,
        embedding: VectorLike = UNSET,
        metadata: Mapping[str, Any] | Any = UNSET,
        embed_text: str | Any | None = UNSET,
        document_id: str | Any | None = UNSET,
        expires_at: datetime | str | Any | None = UNSET,
        if_match: str | None = None,
    ) -> Steps[Chunk]:
        """Change one chunk; what is not given stays. `if_match` is the `etag` of the chunk that was read before.

        >>> lib.update_chunk("apple", metadata={"year": 1866}).metadata
        {'year': 1866}
        """
        body = without_unset(
            text=text,
            embedding=embedding if embedding is UNSET or embedding is None else encode(embedding),
            metadata=metadata,
            embed_text=embed_text,
            document_id=document_id,
            expires_at=to_rfc3339(expires_at),
        )
        request = build_request(routes.update_chunk, self.id, id, body=body, if_match=if_match)
        answer = yield from self._session.call(request)
        return types.parse_chunk(answer.json(), answer.headers.get("etag"))

    @operation
    def update_metadata(
        self,
        metadata: Mapping[str, Any] | None = None,
        *,
        ids: Sequence[str] | None = None,
        filter: FilterLike | None = None,
        mode: Literal["set", "merge", "replace"] = "set",
        expires_at: datetime | str | Any | None = UNSET,
    ) -> Steps[int]:
        """Change the metadata of the chunks that `ids` or a filter names; return their number.

        `set` replaces the keys named, `merge` is a JSON merge patch (None deletes a key), `replace` replaces all.

        >>> lib.update_metadata({"checked": True}, filter=F("year") < 1900)
        2
        """
        _one_of(ids, filter)
        body = without_none(ids=to_list(ids), filter=to_filter(filter), metadata=metadata)
        if metadata is not None:
            body["metadata_mode"] = mode
        if expires_at is not UNSET:
            body["expires_at"] = to_rfc3339(expires_at)
        answer = yield from self._session.call(build_request(routes.update_chunks, self.id, body=body))
        return int(answer.json()["updated"])

    @operation
    def delete(self, ids: Sequence[str] | str | None = None, *, filter: FilterLike | None = None) -> Steps[int]:
        """Delete chunks by their ids or by a filter; return how many there were.

        >>> lib.delete(filter=F("year") == 1900)
        0
        """
        _one_of(ids, filter)
        if ids is None:
            bodies: Iterable[dict[str, Any]] = [{"filter": to_filter(filter)}]
        else:
            bodies = ({"ids": part} for part in parts([ids] if isinstance(ids, str) else list(ids), _IDS))
        deleted = 0
        for body in bodies:
            answer = yield from self._session.call(build_request(routes.delete_chunks, self.id, body=body))
            deleted += answer.json()["deleted"]
        return deleted

    @operation
    def delete_chunk(self, id: str, *, if_match: str | None = None) -> Steps[None]:
        """Delete one chunk; NotFound where there is none."""
        yield from self._session.call(build_request(routes.delete_chunk, self.id, id, if_match=if_match))

    @operation
    def get(self, ids: Sequence[str] | str, *, include: Sequence[str] | None = None) -> Steps[Chunks]:
        """Chunks by their ids, in this order; `missing` of the result are those that do not exist.

        `include` says what is shown: text, metadata, embedding, embed_text, document, metadata.a.b.

        >>> lib.get(["apple", "nothing"]).missing
        ('nothing',)
        """
        items: list[Chunk] = []
        missing: list[str] = []
        for part in parts([ids] if isinstance(ids, str) else list(ids), _IDS):
            body = {"ids": part, **shown(include)}
            answer = (yield from self._session.call(build_request(routes.get_chunks, self.id, body=body))).json()
            items.extend(map(types.parse_chunk, answer["items"]))
            missing.extend(answer["missing"])
        return Chunks(tuple(items), tuple(missing))

    @operation
    def get_chunk(self, id: str, *, include: Sequence[str] | None = None) -> Steps[Chunk]:
        """One chunk, with its `etag`; NotFound where there is none.

        >>> lib.get_chunk("apple").text
        'An apple a day'
        """
        request = build_request(routes.get_chunk, self.id, id, query=shown(include, empty=""))
        answer = yield from self._session.call(request)
        return types.parse_chunk(answer.json(), answer.headers.get("etag"))

    @listing
    def chunks(
        self,
        *,
        filter: FilterLike | None = None,
        document_id: str | None = None,
        order_by: Sequence[str | Mapping[str, str]] | None = None,
        include: Sequence[str] | None = None,
        page_size: int = _PAGE,
    ) -> Pages[Chunk]:
        """All chunks, or those that match, read page by page while they are iterated over.

        They come by creation, by position where `document_id` is given, or by fields: `order_by=["year", "-@id"]`, a
        minus in front for descending.

        >>> [chunk.id for chunk in lib.chunks(filter=F("year") < 1900, order_by=["year"])]
        ['pear', 'apple']
        """
        body = without_none(
            filter=to_filter(filter), document_id=document_id, order_by=_order(order_by), limit=page_size
        )

        def page(cursor: str | None) -> Steps[Page[Chunk]]:
            request = build_request(
                routes.list_chunks_in_order,
                self.id,
                body={**body, **shown(include), **without_none(cursor=cursor)},
            )
            answer = (yield from self._session.call(request)).json()
            return Page(list(map(types.parse_chunk, answer["items"])), answer["next_cursor"])

        return page

    @operation
    def count(self, filter: FilterLike | None = None) -> Steps[int]:
        """The number of chunks, or of those that match.

        >>> lib.count(F("year") >= 1800)
        1
        """
        body = without_none(filter=to_filter(filter))
        answer = yield from self._session.call(build_request(routes.count_chunks, self.id, body=body))
        return int(answer.json()["count"])


def _order(order_by: Sequence[str | Mapping[str, str]] | None) -> list[Mapping[str, str]] | None:
    if order_by is None:
        return None
    fields = [order_by] if isinstance(order_by, str) else order_by
    return [
        one
        if isinstance(one, Mapping)
        else {"field": one.removeprefix("-"), "direction": "desc" if one.startswith("-") else "asc"}
        for one in fields
    ]


def _one_of(ids: Any, filter: Any) -> None:
    if (ids is None) == (filter is None):
        raise InvalidArgument("takes either ids or a filter; filter={} means all, where the server allows it")
