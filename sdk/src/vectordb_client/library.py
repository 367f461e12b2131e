"""A library: its chunks, queries, index."""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

from vectordb_client import _routes as routes
from vectordb_client import types
from vectordb_client._binding import Async, Pages, Resource, Sync, listing, operation
from vectordb_client._core import UNSET, Steps, build_request, without_none, without_unset
from vectordb_client._rows import Columns, chunk_rows, to_rfc3339, write_body
from vectordb_client._runners import AsyncRunner, Runner
from vectordb_client._upload import make_plan, run, run_async
from vectordb_client.documents import AsyncDocuments, Documents
from vectordb_client.errors import InvalidArgument
from vectordb_client.filters import FilterLike, to_dict
from vectordb_client.jobs import AsyncJob, Job, index_job, reembedding_job, server_job
from vectordb_client.types import (
    Chunk,
    Chunks,
    Facet,
    Facets,
    FieldSummaries,
    Hits,
    IndexState,
    LibraryInfo,
    Page,
    Stats,
    UploadReport,
    WriteResult,
)
from vectordb_client.vectors import VectorLike, encode, rows_of, shape_of

J = TypeVar("J")
Mode = Literal["vector", "lexical", "hybrid"]
IndexType = Literal["auto", "brute_force", "kd_tree", "lsh", "quantized", "ivf", "hnsw"]

# Limits of one request.
_IDS, _QUERIES, _PAGE = 10_000, 256, 500
_EXPORTED = ("jsonl", "zip", "parquet")
_IMPORTED = (*_EXPORTED, "csv")


class _Library(Resource, Generic[J]):
    """A library. It is cheap to make: `client.library("notes")` asks nothing of the server.

    `info` is what the server said when this was made by `create`, `get` or `list`, else None.
    """

    _job: type[Any]

    def __init__(self, runner: Any, id: str, info: LibraryInfo | None = None) -> None:
        super().__init__(runner)
        self.id = id
        self.info = info

    def __repr__(self) -> str:
        known = f", dimension={self.info.dimension}, metric={self.info.metric!r}" if self.info else ""
        return f"{type(self).__name__}({self.id!r}{known})"

    @operation
    def describe(self) -> Steps[LibraryInfo]:
        """What the server says about the library now.

        >>> lib.describe().metric
        'cosine'
        """
        answer = yield from self._session.call(build_request(routes.get_library, self.id))
        return types.parse(LibraryInfo, answer.json(), etag=answer.headers.get("etag"))

    @operation
    def stats(self) -> Steps[Stats]:
        """Numbers of documents and chunks, revision, state of the index.

        >>> lib.stats().chunks
        3
        """
        answer = (yield from self._session.call(build_request(routes.library_stats, self.id))).json()
        index = types.parse(IndexState, answer["index"])
        return types.parse(Stats, {**answer, "index": index})

    # Writing chunks

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
        body = without_none(ids=_list(ids), filter=_filter(filter), metadata=metadata)
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
            bodies: Iterable[dict[str, Any]] = [{"filter": _filter(filter)}]
        else:
            bodies = ({"ids": part} for part in _parts([ids] if isinstance(ids, str) else list(ids), _IDS))
        deleted = 0
        for body in bodies:
            answer = yield from self._session.call(build_request(routes.delete_chunks, self.id, body=body))
            deleted += answer.json()["deleted"]
        return deleted

    @operation
    def delete_chunk(self, id: str, *, if_match: str | None = None) -> Steps[None]:
        """Delete one chunk; NotFound where there is none."""
        yield from self._session.call(build_request(routes.delete_chunk, self.id, id, if_match=if_match))

    # Reading chunks

    @operation
    def get(self, ids: Sequence[str] | str, *, include: Sequence[str] | None = None) -> Steps[Chunks]:
        """Chunks by their ids, in this order; `missing` of the result are those that do not exist.

        `include` says what is shown: text, metadata, embedding, embed_text, document, metadata.a.b.

        >>> lib.get(["apple", "nothing"]).missing
        ('nothing',)
        """
        items: list[Chunk] = []
        missing: list[str] = []
        for part in _parts([ids] if isinstance(ids, str) else list(ids), _IDS):
            body = {"ids": part, **_shown(include)}
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
        request = build_request(routes.get_chunk, self.id, id, query=_shown(include, empty=""))
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
        body = without_none(filter=_filter(filter), document_id=document_id, order_by=_order(order_by), limit=page_size)

        def page(cursor: str | None) -> Steps[Page[Chunk]]:
            request = build_request(
                routes.list_chunks_in_order,
                self.id,
                body={**body, **_shown(include), **without_none(cursor=cursor)},
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
        body = without_none(filter=_filter(filter))
        answer = yield from self._session.call(build_request(routes.count_chunks, self.id, body=body))
        return int(answer.json()["count"])

    @operation
    def facets(
        self,
        field: str,
        *,
        filter: FilterLike | None = None,
        search: str | None = None,
        order_by: Literal["count", "value"] = "count",
        limit: int = 50,
        offset: int = 0,
    ) -> Steps[Facets]:
        """The values of a field, with the number of chunks that have each; `search` keeps strings with this text.

        >>> lib.facets("year", order_by="value").to_dict()
        {1780: 1, 1866: 1}
        """
        body = without_none(
            field=field, filter=_filter(filter), search=search, order_by=order_by, limit=limit, offset=offset
        )
        answer = (yield from self._session.call(build_request(routes.count_values, self.id, body=body))).json()
        facets = tuple(Facet(one["value"], one["count"]) for one in answer["facets"])
        return Facets(facets, answer["values"], answer["chunks"])

    @operation
    def fields(self, fields: Sequence[str] | None = None, *, filter: FilterLike | None = None) -> Steps[FieldSummaries]:
        """What fields the chunks have, of which types, how many values, from where to where.

        >>> lib.fields(["year"])[0].types["integer"].max
        1866
        """
        body = without_none(filter=_filter(filter), fields=_list(fields))
        answer = yield from self._session.call(build_request(routes.summarize_fields, self.id, body=body))
        return types.parse_fields(answer.json())

    # Queries

    @operation
    def query(
        self,
        query: str | VectorLike | None = None,
        *,
        k: int = 10,
        filter: FilterLike | None = None,
        mode: Mode = "vector",
        like: str | None = None,
        text: str | None = None,
        vector: VectorLike | None = None,
        include: Sequence[str] | None = None,
        offset: int | None = None,
        score_threshold: float | None = None,
        filter_mode: Literal["auto", "pre", "post"] | None = None,
        hybrid: Mapping[str, Any] | None = None,
        group_by: str | None = None,
        group_size: int | None = None,
        mmr: Mapping[str, Any] | None = None,
        boost: Sequence[Mapping[str, Any]] | None = None,
        depth: int | None = None,
        exact: bool | None = None,
        search_params: Mapping[str, Any] | None = None,
        embedding: Mapping[str, str] | None = None,
        profile: bool | None = None,
    ) -> Steps[Hits]:
        """The best `k` chunks for a text (a str), a vector (an array), or a chunk (`like="id"`).

        Mode `vector` ranks by similarity, `lexical` by the words of the text, `hybrid` by both; a hybrid query may have
        a `text` and a `vector` of its own. The server's docs/api.md explains the other options.

        >>> hits = lib.query("an apple a day", k=2, filter=F("year") >= 1850, mode="hybrid")
        >>> hits[0].id, hits[0].text
        ('apple', 'An apple a day')
        """
        body = _query_body(
            query,
            k=k,
            filter=filter,
            mode=mode,
            like=like,
            text=text,
            vector=vector,
            include=include,
            offset=offset,
            score_threshold=score_threshold,
            filter_mode=filter_mode,
            hybrid=hybrid,
            group_by=group_by,
            group_size=group_size,
            mmr=mmr,
            boost=boost,
            depth=depth,
            exact=exact,
            search_params=search_params,
            embedding=embedding,
            profile=profile,
        )
        answer = yield from self._session.call(build_request(routes.query, self.id, body=body))
        return types.parse_hits(answer.json())

    @operation
    def query_many(self, queries: Any, /, **options: Any) -> Steps[list[Hits]]:
        """Several queries: a list of texts, vectors and dicts of what `query` takes, or a matrix. Keywords are for all.

        Up to 256 of them are one request, answered from one state of the library.

        >>> [hits.ids for hits in lib.query_many(["apple", {"like": "apple"}], k=1)]
        [['apple'], ['pear']]
        """
        bodies = [
            _query_body(**{**options, **one}) if isinstance(one, Mapping) else _query_body(one, **options)
            for one in (queries if shape_of(queries) is None else rows_of(queries))
        ]
        found: list[Hits] = []
        for part in _parts(bodies, _QUERIES):
            request = build_request(routes.query_batch, self.id, body={"queries": part})
            answer = yield from self._session.call(request)
            found.extend(map(types.parse_hits, answer.json()["results"]))
        return found

    # The index and the model

    @operation
    def reindex(
        self, index_type: IndexType | None = None, *, index_params: Mapping[str, Any] | None = None
    ) -> Steps[J]:
        """Rebuild the index, of another type if one is given; queries go on. `wait()` of the result waits for it.

        >>> lib.reindex("brute_force").wait().state
        'done'
        """
        body = without_none(index_type=index_type, index_params=index_params)
        answer = yield from self._session.call(build_request(routes.reindex, self.id, body=body))
        job: J = index_job(self, self._job, self.id, answer.json())
        return job

    @operation
    def reembed(self, embedding: Mapping[str, str]) -> Steps[J]:
        """Move the library to another embedding model, `{"provider": ..., "model": ...}`; queries go on."""
        answer = yield from self._session.call(build_request(routes.reembed, self.id, body={"embedding": embedding}))
        job: J = reembedding_job(self, self._job, self.id, answer.json())
        return job

    @operation
    def export(self, file: str | Path, *, format: Literal["jsonl", "zip", "parquet"] | None = None) -> Steps[Path]:
        """Write the library to a file, all of one state, in the format that its name says; return its path.

        The file has its name when it is whole.

        >>> lib.export(folder / "library.jsonl").read_text().count('"text"')
        3
        """
        path = Path(file)
        draft = path.with_name(f"{path.name}.part")
        query = {"format": format or _format(path, _EXPORTED)}
        try:
            yield from self._session.call(build_request(routes.export_library, self.id, query=query, sink=draft))
            return draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)

    @operation
    def import_(
        self,
        file: str | Path,
        *,
        format: Literal["jsonl", "zip", "parquet", "csv"] | None = None,
        mode: Literal["upsert", "insert", "skip"] = "upsert",
        create: bool = False,
        columns: Mapping[str, str] | None = None,
    ) -> Steps[J]:
        """Write the rows of a file to the library, which `create` makes if it is not there. `wait()` of the result
        waits for it; `result` of what that returns tells how many rows were stored and which were refused.

        `mode` says what becomes of rows whose ids are in use; `columns` names those of a table, `{"text": "body"}`.

        >>> client.library("copy").import_(lib.export(folder / "a.zip"), create=True).wait().result["created"]
        3
        """
        path = Path(file)
        query = without_none(
            format=format or _format(path, _IMPORTED),
            mode=mode,
            create="true" if create else None,
            columns=",".join(f"{name}={column}" for name, column in columns.items()) if columns else None,
        )
        request = build_request(
            routes.import_rows, self.id, query=query, source=path, media_type="application/octet-stream"
        )
        answer = yield from self._session.call(request)
        job: J = server_job(self, self._job, answer.json())
        return job

    @operation
    def reembedding(self) -> Steps[J]:
        """The move to another model that is under way; NotFound where none is."""
        answer = yield from self._session.call(build_request(routes.get_reembedding, self.id))
        job: J = reembedding_job(self, self._job, self.id, answer.json())
        return job


class Library(Sync, _Library[Job]):
    __doc__ = _Library.__doc__
    _runner: Runner
    _job = Job

    @property
    def documents(self) -> Documents:
        """The documents of the library."""
        return Documents(self._runner, self.id)

    def upload(
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
        create_documents: bool = False,
        mode: Literal["upsert", "insert", "update"] = "upsert",
        batch_size: int | Literal["auto"] = "auto",
        parallel: int = 4,
        on_error: Literal["collect", "raise"] = "collect",
        progress: bool | Callable[[int], None] = False,
    ) -> UploadReport:
        """Write any number of rows, in batches that are sent at the same time; return what was done.

        Rows are what `upsert` takes, and may be a generator. Columns of a DataFrame that are no fields of a chunk are
        its metadata. Rows that cannot be stored are in `errors` of the report, by their numbers; with
        `on_error="raise"` the first of them ends the upload. Each batch is written whole or not at all; an upload is
        not: one that stops early has stored the batches before, and raises UploadFailed, whose `report` tells of them,
        or what the generator raised.

        Rows without an id are given one before they are sent, so what is sent again after a lost connection is stored
        once. A server that is restarted meanwhile is waited for, for half a minute. `progress` is shown on the standard
        error, or is a function of the number of rows that are done.

        >>> points.upload(({"id": f"row {n}", "vector": [n, 1.0, 0.5]} for n in range(5000)), parallel=2).created
        5000
        """
        plan = make_plan(
            self._session,
            self.id,
            rows,
            Columns(ids, texts, vectors, metadatas, document_ids, embed_texts, expires_at),
            mode=mode,
            batch_size=batch_size,
            parallel=parallel,
            on_error=on_error,
            embedding=embedding,
            create_documents=create_documents or None,
        )
        return run(self._runner, plan, progress)


class AsyncLibrary(Async, _Library[AsyncJob]):
    __doc__ = _Library.__doc__
    _runner: AsyncRunner
    _job = AsyncJob

    @property
    def documents(self) -> AsyncDocuments:
        """The documents of the library."""
        return AsyncDocuments(self._runner, self.id)

    async def upload(
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
        create_documents: bool = False,
        mode: Literal["upsert", "insert", "update"] = "upsert",
        batch_size: int | Literal["auto"] = "auto",
        parallel: int = 4,
        on_error: Literal["collect", "raise"] = "collect",
        progress: bool | Callable[[int], None] = False,
    ) -> UploadReport:
        """Write any number of rows, in batches that are sent at the same time; return what was done.

        Rows are what `upsert` takes, and may be a generator, async or not. Columns of a DataFrame that are no fields of
        a chunk are its metadata. Rows that cannot be stored are in `errors` of the report, by their numbers; with
        `on_error="raise"` the first of them ends the upload. Each batch is written whole or not at all; an upload is
        not: one that stops early has stored the batches before, and raises UploadFailed, whose `report` tells of them,
        or what the generator raised.

        Rows without an id are given one before they are sent, so what is sent again after a lost connection is stored
        once. A server that is restarted meanwhile is waited for, for half a minute. `progress` is shown on the standard
        error, or is a function of the number of rows that are done.
        """
        is_async = isinstance(rows, AsyncIterable)
        plan = make_plan(
            self._session,
            self.id,
            [] if is_async else rows,
            Columns(ids, texts, vectors, metadatas, document_ids, embed_texts, expires_at),
            mode=mode,
            batch_size=batch_size,
            parallel=parallel,
            on_error=on_error,
            embedding=embedding,
            create_documents=create_documents or None,
        )
        return await run_async(self._runner, plan, rows if is_async else None, progress)


def _query_body(
    query: str | VectorLike | None = None,
    *,
    filter: FilterLike | None = None,
    like: str | None = None,
    text: str | None = None,
    vector: VectorLike | None = None,
    include: Sequence[str] | None = None,
    boost: Sequence[Mapping[str, Any]] | None = None,
    **options: Any,
) -> dict[str, Any]:
    if isinstance(query, str):
        if text is not None:
            raise InvalidArgument("query and text are two texts: give one")
        text = query
    elif query is not None:
        if vector is not None:
            raise InvalidArgument("query and vector are two vectors: give one")
        vector = query
    body = {name: value for name, value in options.items() if value is not None}
    if text is not None:
        body["text"] = text
    if vector is not None:
        body["vector"] = encode(vector)
    if like is not None:
        body["chunk_id"] = like
    if filter is not None:
        body["filter"] = to_dict(filter)
    if boost is not None:
        body["boost"] = list(boost)
    return {**body, **_shown(include)} if include is not None else body


def _shown(include: Sequence[str] | None, empty: Any = None) -> dict[str, Any]:
    """What is shown of chunks; vectors in base64, which is exact and half as long."""
    if include is None:
        return {}
    if isinstance(include, str):
        raise InvalidArgument(f"include: takes a list such as ['text', 'metadata'], not {include!r}")
    names = list(include)
    shown: dict[str, Any] = {"include": names if names or empty is None else empty}
    return {**shown, "vectors": "base64"} if "embedding" in names else shown


def _format(path: Path, known: tuple[str, ...]) -> str:
    format = path.suffix.removeprefix(".").lower()
    if format not in known:
        raise InvalidArgument(f"format: the name {path.name!r} says none of {', '.join(known)}")
    return format


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


def _filter(filter: FilterLike | None) -> dict[str, Any] | None:
    return None if filter is None else to_dict(filter)


def _list(values: Sequence[str] | None) -> list[str] | None:
    if isinstance(values, str):
        raise InvalidArgument(f"takes a list of texts, not the text {values!r}")
    return None if values is None else list(values)


def _one_of(ids: Any, filter: Any) -> None:
    if (ids is None) == (filter is None):
        raise InvalidArgument("takes either ids or a filter; filter={} means all, where the server allows it")


def _parts(items: list[Any], size: int) -> Iterator[list[Any]]:
    for begin in range(0, len(items), size):
        yield items[begin : begin + size]
