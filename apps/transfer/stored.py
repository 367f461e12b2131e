"""A library in one snapshot, page by page, as exports read it.

Pages are of columns: metadata as JSON text, times as the database writes them, vectors as bytes one behind the other.
How many rows a page has follows from how large those before were.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import orjson
from django.db import DataError

from apps.engine.vectors import DTYPE
from apps.libraries import selectors
from apps.libraries.chunk_fields import stored_timestamp
from apps.libraries.dialects import SNAPSHOT_ALIAS
from apps.libraries.expiry import IS_EXPIRED, JOIN_DOCUMENT
from apps.search.snapshots import LibraryState, Snapshot
from apps.transfer.rows import LibraryData

_BELOW_ALL_KEYS: Final = -(2**63)
_FIRST_ROWS: Final = 64
_MOST_ROWS: Final = 1000
_BYTES_PER_PAGE: Final = 1 << 20
# The most by which a page has more rows than the one before, as a factor.
_GROWTH: Final = 4

# A page as one row, which has each column as a JSON array: the driver would hand the interpreter's lock over for each
# row, and the threads that write and send what was read want it, too.
_PAGE: Final = "WITH page AS ({rows}) SELECT {columns} FROM page"
_OF_CHUNK: Final = {
    "key": "chunk.id",
    "id": "chunk.public_id",
    "document_id": "document.public_id",
    "position": "chunk.position",
    "text": "chunk.text",
    "embed_text": "chunk.embed_text",
    "metadata": "chunk.metadata",
    "expires_at": "chunk.expires_at",
    "created_at": "chunk.created_at",
    "updated_at": "chunk.updated_at",
    "document_key": "document.id",
    # Looked up in the table's key, where the vector is not asked for.
    "vector_of": "embedding.chunk_id",
}
_CHUNKS: Final = f"""
    SELECT {{columns}}
    FROM vectordb_chunk AS chunk {JOIN_DOCUMENT} LEFT JOIN vectordb_embedding AS embedding
        ON embedding.chunk_id = chunk.id AND embedding.generation = %s{{more}}
    WHERE chunk.library_id = %s AND chunk.id > %s AND {IS_EXPIRED} IS NOT TRUE
    ORDER BY chunk.id LIMIT %s"""
_VECTORS: Final = f"""
    SELECT count(*), max(id), {{joined}} FROM (
        SELECT chunk.id AS id, embedding.vector AS vector
        FROM vectordb_chunk AS chunk {JOIN_DOCUMENT}
        JOIN vectordb_embedding AS embedding ON embedding.chunk_id = chunk.id
            AND embedding.generation = %s AND length(embedding.vector) = %s
        WHERE chunk.library_id = %s AND chunk.id > %s AND {IS_EXPIRED} IS NOT TRUE
        ORDER BY chunk.id LIMIT %s) AS found"""
_OF_DOCUMENT: Final = {
    "key": "document.id",
    "id": "document.public_id",
    "title": "document.title",
    "source": "document.source",
    "metadata": "document.metadata",
    "expires_at": "document.expires_at",
    "created_at": "document.created_at",
    "updated_at": "document.updated_at",
}
_DOCUMENTS: Final = """
    SELECT {columns} FROM vectordb_document AS document
    WHERE document.library_id = %s AND document.id > %s AND (document.expires_at <= %s) IS NOT TRUE{more}
    ORDER BY document.id LIMIT %s"""
_DOCUMENTS_OF_KEYS: Final = "SELECT {columns} FROM vectordb_document AS document WHERE document.id IN ({keys})"
_HAS_NO_CHUNK: Final = """
    AND NOT EXISTS (SELECT 1 FROM vectordb_chunk AS chunk WHERE chunk.document_id = document.id
                    AND (chunk.expires_at <= %s) IS NOT TRUE)"""
_COUNT: Final = "SELECT count(*) FROM {} WHERE library_id = %s"


class DocumentRow(NamedTuple):
    """A document; `metadata` is JSON text, times are as the database writes them."""

    key: int
    id: str
    title: str
    source: str
    metadata: str
    expires_at: str | None
    created_at: str
    updated_at: str


class ChunkPage(NamedTuple):
    """Chunks, column by column; `metadata` is JSON text, times are as the database writes them. `vector_of` is null
    where a chunk has no vector; those of the others are in `vectors`, as float32 values."""

    key: list[int]
    id: list[str]
    document_id: list[str | None]
    position: list[int | None]
    text: list[str]
    embed_text: list[str | None]
    metadata: list[str]
    expires_at: list[str | None]
    created_at: list[str]
    updated_at: list[str]
    document_key: list[int | None]
    vector_of: list[int | None]
    vectors: bytes


@dataclass
class StoredLibrary:
    """A library as `snapshot` has it. What has expired by then is not there. `read` counts documents and chunks that
    were given out."""

    snapshot: Snapshot
    library: LibraryData
    _state: LibraryState = field(repr=False)
    read: int = 0

    @classmethod
    def open(cls, snapshot: Snapshot, library_id: str) -> "StoredLibrary":
        """The library of this id; raises NotFound."""
        state = snapshot.existing_library(library_id)
        library: Any = selectors.library_data(selectors.library_row(library_id, SNAPSHOT_ALIAS))
        return cls(snapshot, library, state)

    def count(self) -> int:
        """Documents and chunks, those that have expired among them."""
        tables = ("vectordb_document", "vectordb_chunk")
        counts = [self.snapshot.rows(_COUNT.format(table), [self._state.key])[0][0] for table in tables]
        return sum(map(int, counts))

    @property
    def dimension(self) -> int:
        """The components of each vector; 0 where there never was one."""
        return self._state.dimension or 0

    @property
    def vector_bytes(self) -> int:
        """The bytes of each vector."""
        return self.dimension * DTYPE.itemsize

    def documents(self, *, without_chunks: bool = False) -> Iterator[list[DocumentRow]]:
        """All documents in order of creation, or those `without_chunks`."""
        rows = _DOCUMENTS.replace("{more}", _HAS_NO_CHUNK if without_chunks else "")
        moments, texts = [self.snapshot.moment] * (2 if without_chunks else 1), ("title", "source", "metadata")
        for columns, _ in self._pages(rows, _OF_DOCUMENT, [self._state.key], moments, texts=texts):
            self.read += len(columns[0])
            yield [DocumentRow._make(row) for row in zip(*columns, strict=True)]

    def chunks(self, *, with_vectors: bool) -> Iterator[ChunkPage]:
        """All chunks in order of creation; `with_vectors`, or only with whether they have one. A vector of another
        length than the library's, which no service writes, is left out `with_vectors`."""
        rows = _CHUNKS.replace("{more}", " AND length(embedding.vector) = %s" if with_vectors else "")
        params = [self._state.generation, *([self.vector_bytes] if with_vectors else []), self._state.key]
        joined, moments = "embedding.vector" if with_vectors else "", [self.snapshot.moment] * 2
        for columns, vectors in self._pages(
            rows, _OF_CHUNK, params, moments, texts=("text", "metadata"), joined=joined
        ):
            self.read += len(columns[0])
            yield ChunkPage._make([*columns, vectors])

    def chunks_with_documents(self) -> Iterator[tuple[ChunkPage, dict[int, DocumentRow]]]:
        """As `chunks`, with their vectors; and the documents of these chunks by their keys."""
        for page in self.chunks(with_vectors=True):
            keys = sorted({key for key in page.document_key if key is not None})
            rows = _DOCUMENTS_OF_KEYS.replace("{keys}", ", ".join(["%s"] * len(keys)) or "null")
            columns, _ = self._columns(self._page(rows, _OF_DOCUMENT), keys)
            yield page, {row[0]: DocumentRow._make(row) for row in zip(*columns, strict=True)}

    def vectors(self) -> Iterator[bytes]:
        """The vectors of those chunks that have one, in the same order, many at a time. A vector of another length than
        the library's, which no service writes, is left out."""
        sql = _VECTORS.format(joined=self.snapshot.dialect.join_bytes("vector"))
        most = max(1, _BYTES_PER_PAGE // max(1, self.vector_bytes))
        after, count, moment = _BELOW_ALL_KEYS, most, self.snapshot.moment
        while count == most:
            params = [self._state.generation, self.vector_bytes, self._state.key, after, moment, moment, most]
            [(count, after, vectors)] = self.snapshot.rows(sql, params)
            yield vectors or b""

    def _pages(
        self,
        rows: str,
        columns: dict[str, str],
        before: list[Any],
        behind: list[Any],
        *,
        texts: Sequence[str],
        joined: str = "",
    ) -> Iterator[tuple[list[list[Any]], bytes]]:
        """The columns of `rows`, a statement whose first column is their key, and which takes the key of the row before
        them between other parameters, and the number of rows last; beside them the bytes of the column `joined`. How
        large rows are is seen by these and by their `texts`."""
        sql, places = self._page(rows, columns, joined), [list(columns).index(name) for name in texts]
        after, count = _BELOW_ALL_KEYS, _FIRST_ROWS
        while True:
            try:
                page, bytes_joined = self._columns(sql, [*before, after, *behind, count])
            except DataError:
                # No database makes a text of a gigabyte.
                if count == 1:
                    raise
                count = max(1, count // _GROWTH)
                continue
            if keys := page[0]:
                yield page, bytes_joined
            if len(keys) < count:
                return
            after = keys[-1]
            size = 1 + len(bytes_joined) + sum(sum(map(len, page[at])) for at in places)
            count = max(1, min(_MOST_ROWS, count * _GROWTH, count * _BYTES_PER_PAGE // size))

    def _page(self, rows: str, columns: dict[str, str], joined: str = "") -> str:
        """The statement that has the `columns` of `rows` as `_columns` takes them."""
        dialect = self.snapshot.dialect
        columns = columns | {"metadata": dialect.json_text(columns["metadata"]), "joined": joined or "null"}
        names = ", ".join(f"{column} AS {name}" for name, column in columns.items())
        found = [dialect.json_array(name) for name in columns if name != "joined"]
        found.append(dialect.join_bytes("joined") if joined else "null")
        return _PAGE.format(rows=rows.replace("{columns}", names), columns=", ".join(found))

    def _columns(self, sql: str, params: Sequence[Any]) -> tuple[list[list[Any]], bytes]:
        [(*columns, joined)] = self.snapshot.rows(sql, params)
        return list(map(orjson.loads, columns)), joined or b""


def document_data(row: DocumentRow) -> dict[str, Any]:
    """A document as it travels, its metadata in a form that only orjson takes."""
    return {
        "id": row.id,
        "title": row.title,
        "source": row.source,
        "metadata": orjson.Fragment(row.metadata),
        "expires_at": stored_timestamp(row.expires_at),
        "created_at": stored_timestamp(row.created_at),
        "updated_at": stored_timestamp(row.updated_at),
    }


def chunks_data(page: ChunkPage) -> Iterator[dict[str, Any]]:
    """Chunks as they travel, their metadata in a form that only orjson takes; without their vectors."""
    texts = (page.text, page.embed_text, map(orjson.Fragment, page.metadata))
    times = (map(stored_timestamp, moments) for moments in (page.expires_at, page.created_at, page.updated_at))
    rows = zip(page.id, page.document_id, page.position, *texts, *times, strict=True)
    for id, document_id, position, text, embed_text, metadata, expires_at, created_at, updated_at in rows:
        yield {
            "id": id,
            "document_id": document_id,
            "position": position,
            "text": text,
            "embed_text": embed_text,
            "metadata": metadata,
            "expires_at": expires_at,
            "created_at": created_at,
            "updated_at": updated_at,
        }
