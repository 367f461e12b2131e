"""A library: what it is, and uploads. Its other methods are with their subjects.

chunks   write, change, delete, read, list and count chunks
queries  queries, and what values the metadata has
index    the index, and the embedding model
files    export and import
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal, TypeVar

from vectordb_client import _routes as routes
from vectordb_client import types
from vectordb_client._binding import Async, Sync, operation
from vectordb_client._core import Steps, build_request
from vectordb_client._rows import Columns
from vectordb_client._runners import AsyncRunner, Runner
from vectordb_client._upload import make_plan, run, run_async
from vectordb_client.chunks import ChunkMethods
from vectordb_client.documents import AsyncDocuments, Documents
from vectordb_client.files import FileMethods
from vectordb_client.index import IndexMethods
from vectordb_client.jobs import AsyncJob, Job
from vectordb_client.queries import QueryMethods
from vectordb_client.types import (
    IndexState,
    LibraryInfo,
    Stats,
    UploadReport,
)

J = TypeVar("J")


class _Library(ChunkMethods, QueryMethods, IndexMethods[J], FileMethods[J]):
    """A library. It is cheap to make: `client.library("notes")` asks nothing of the server.

    `info` is what the server said when this was made by `create`, `get` or `list`, or by the last `describe`; else
    None.
    """

    def __init__(self, runner: Any, id: str, info: LibraryInfo | None = None) -> None:
        super().__init__(runner)
        self.id = id
        self.info = info

    def __repr__(self) -> str:
        shown = [repr(self.id)]
        if self.info is not None:
            # The first vector fixes it: what was not known then may be known now.
            shown += [f"dimension={self.info.dimension}"] if self.info.dimension is not None else []
            shown.append(f"metric={self.info.metric!r}")
        return f"{type(self).__name__}({', '.join(shown)})"

    @operation
    def describe(self) -> Steps[LibraryInfo]:
        """What the server says about the library now.

        >>> lib.describe().metric
        'cosine'
        """
        answer = yield from self._session.call(build_request(routes.get_library, self.id))
        self.info = types.parse(LibraryInfo, answer.json(), etag=answer.headers.get("etag"))
        return self.info

    @operation
    def stats(self) -> Steps[Stats]:
        """Numbers of documents and chunks, revision, state of the index.

        >>> lib.stats().chunks
        3
        """
        answer = (yield from self._session.call(build_request(routes.library_stats, self.id))).json()
        index = types.parse(IndexState, answer["index"])
        return types.parse(Stats, {**answer, "index": index})


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
