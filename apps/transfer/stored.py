"""A library in one snapshot, page by page, as exports read it.

Pages are of rows as the database's driver has them: texts, metadata as JSON text, vectors as bytes. How many rows a
page has follows from how large those before were.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any, Final, NamedTuple, TypeAlias

import orjson

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

# Whether there is one is looked up in the table's key, without reading it.
_HAS_VECTOR = """(SELECT 1 FROM vectordb_embedding AS embedding WHERE embedding.chunk_id = chunk.id
                  AND embedding.generation = %s)"""
_VECTOR = """(SELECT vector FROM vectordb_embedding AS embedding WHERE embedding.chunk_id = chunk.id
              AND embedding.generation = %s AND length(embedding.vector) = %s)"""
# As texts on SQLite: in a column of its own, each would be made a time first.
_TIMES = "coalesce({0}.expires_at, null), coalesce({0}.created_at, null), coalesce({0}.updated_at, null)"
_CHUNKS = f"""
    SELECT chunk.id, chunk.public_id, document.public_id, chunk.position, chunk.text, chunk.embed_text, {{metadata}},
           {_TIMES.format("chunk")}, {{vector}}{{more}}
    FROM vectordb_chunk AS chunk {JOIN_DOCUMENT}
    WHERE chunk.library_id = %s AND chunk.id > %s AND {IS_EXPIRED} IS NOT TRUE
    ORDER BY chunk.id LIMIT %s"""
# A page as one row: to take each vector out of its own would cost as much again.
_VECTORS = f"""
    SELECT count(*), max(id), {{joined}} FROM (
        SELECT chunk.id AS id, embedding.vector AS vector
        FROM vectordb_chunk AS chunk {JOIN_DOCUMENT}
        JOIN vectordb_embedding AS embedding ON embedding.chunk_id = chunk.id
            AND embedding.generation = %s AND length(embedding.vector) = %s
        WHERE chunk.library_id = %s AND chunk.id > %s AND {IS_EXPIRED} IS NOT TRUE
        ORDER BY chunk.id LIMIT %s) AS found"""
_DOCUMENT = f"""
    SELECT document.id, document.public_id, document.title, document.source, {{metadata}},
           {_TIMES.format("document")}
    FROM vectordb_document AS document
    WHERE """
_DOCUMENTS = f"""
    {_DOCUMENT}document.library_id = %s AND document.id > %s AND (document.expires_at <= %s) IS NOT TRUE{{more}}
    ORDER BY document.id LIMIT %s"""
_HAS_NO_CHUNK = """
    AND NOT EXISTS (SELECT 1 FROM vectordb_chunk AS chunk WHERE chunk.document_id = document.id
                    AND (chunk.expires_at <= %s) IS NOT TRUE)"""
_COUNT = "SELECT count(*) FROM {} WHERE library_id = %s"


class DocumentRow(NamedTuple):
    """A document; `metadata` is JSON text, times are the driver's."""

    key: int
    id: str
    title: str
    source: str
    metadata: str
    expires_at: Any
    created_at: Any
    updated_at: Any


# A chunk: its key, id, document's id, position, text, embed_text, metadata as JSON text; expires_at, created_at and
# updated_at as the driver has them; and its vector as float32 values, 1 where only its presence was asked for, None
# where it has none. No class: to make it would take as long as to write the row.
ChunkRow: TypeAlias = tuple[Any, ...]


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

    def documents(self, *, without_chunks: bool = False) -> Iterator[list[DocumentRow]]:
        """All documents in order of creation, or those `without_chunks`."""
        metadata = self.snapshot.dialect.json_text("document.metadata")
        sql = _DOCUMENTS.format(metadata=metadata, more=_HAS_NO_CHUNK if without_chunks else "")
        moments = [self.snapshot.moment] * (2 if without_chunks else 1)
        for page in self._pages(sql, [self._state.key], moments, texts=(2, 3, 4)):
            self.read += len(page)
            yield [DocumentRow._make(row) for row in page]

    def chunks(self, *, with_vectors: bool) -> Iterator[list[ChunkRow]]:
        """All chunks in order of creation; `with_vectors`, or only with whether they have one."""
        return self._chunks("", with_vectors)

    def chunks_with_documents(self) -> Iterator[tuple[list[tuple[Any, ...]], dict[int, DocumentRow]]]:
        """All chunks in order of creation: a ChunkRow, and behind it the key of its document or null; and the documents
        of these chunks by their keys."""
        metadata = self.snapshot.dialect.json_text("document.metadata")
        for page in self._chunks(", document.id", True):
            keys = sorted({row[-1] for row in page} - {None})
            marks = ", ".join(["%s"] * len(keys)) or "null"
            rows = self.snapshot.rows(f"{_DOCUMENT}document.id IN ({marks})".format(metadata=metadata), keys)
            yield page, {row[0]: DocumentRow._make(row) for row in rows}

    def _chunks(self, more: str, with_vectors: bool) -> Iterator[list[tuple[Any, ...]]]:
        vector = _VECTOR if with_vectors else _HAS_VECTOR
        sql = _CHUNKS.format(metadata=self.snapshot.dialect.json_text("chunk.metadata"), vector=vector, more=more)
        row_bytes = self._vector_bytes if with_vectors else 0
        params = [self._state.generation, *([row_bytes] if with_vectors else []), self._state.key]
        for page in self._pages(sql, params, [self.snapshot.moment] * 2, texts=(4, 6), row_bytes=row_bytes):
            self.read += len(page)
            yield page

    def vectors(self) -> Iterator[bytes]:
        """The vectors of those chunks that have one, in the same order, many at a time. A vector of another length than
        the library's, which no service writes, is left out."""
        sql = _VECTORS.format(joined=self.snapshot.dialect.join_bytes("vector"))
        most = max(1, _BYTES_PER_PAGE // max(1, self._vector_bytes))
        after, count, moment = _BELOW_ALL_KEYS, most, self.snapshot.moment
        while count == most:
            params = [self._state.generation, self._vector_bytes, self._state.key, after, moment, moment, most]
            [(count, after, vectors)] = self.snapshot.rows(sql, params)
            yield vectors or b""

    @property
    def _vector_bytes(self) -> int:
        return self.dimension * DTYPE.itemsize

    def _pages(
        self, sql: str, before: list[Any], behind: list[Any], *, texts: Sequence[int] = (), row_bytes: int = 0
    ) -> Iterator[list[tuple[Any, ...]]]:
        """Rows of a statement whose first column is their key, and which takes the key of the row before them between
        other parameters, and the number of rows last. Each has `row_bytes` and its `texts`, which are columns."""
        after, count = _BELOW_ALL_KEYS, _FIRST_ROWS
        while page := self.snapshot.rows(sql, [*before, after, *behind, count]):
            yield page
            if len(page) < count:
                return
            after = page[-1][0]
            size = 1 + len(page) * row_bytes + sum(sum(map(len, map(itemgetter(at), page))) for at in texts)
            count = max(1, min(_MOST_ROWS, count * _GROWTH, count * _BYTES_PER_PAGE // size))


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


def chunk_data(row: ChunkRow) -> dict[str, Any]:
    """A chunk as it travels, its metadata in a form that only orjson takes; without its vector."""
    _, id, document_id, position, text, embed_text, metadata, expires_at, created_at, updated_at, _ = row
    return {
        "id": id,
        "document_id": document_id,
        "position": position,
        "text": text,
        "embed_text": embed_text,
        "metadata": orjson.Fragment(metadata),
        "expires_at": stored_timestamp(expires_at),
        "created_at": stored_timestamp(created_at),
        "updated_at": stored_timestamp(updated_at),
    }
