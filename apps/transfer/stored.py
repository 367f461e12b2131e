"""A library in one snapshot, page by page, as exports read it.

Pages are of rows as the database's driver has them: texts, metadata as JSON text, vectors as bytes. How many rows a
page has follows from how large those before were.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any, Final, NamedTuple

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

_VECTOR = """(SELECT {} FROM vectordb_embedding AS embedding WHERE embedding.chunk_id = chunk.id
              AND embedding.generation = %s AND length(embedding.vector) = %s)"""
# As texts on SQLite: in a column of its own, each would be made a time first.
_TIMES = "coalesce({0}.expires_at, null), coalesce({0}.created_at, null), coalesce({0}.updated_at, null)"
_CHUNKS = f"""
    SELECT chunk.id, chunk.public_id, document.public_id, chunk.position, chunk.text, chunk.embed_text, {{metadata}},
           {_TIMES.format("chunk")}, {{vector}}{{more}}
    FROM vectordb_chunk AS chunk {JOIN_DOCUMENT}
    WHERE chunk.library_id = %s AND chunk.id > %s AND {IS_EXPIRED} IS NOT TRUE
    ORDER BY chunk.id LIMIT %s"""
_VECTORS = f"""
    SELECT chunk.id, embedding.vector
    FROM vectordb_chunk AS chunk {JOIN_DOCUMENT}
    JOIN vectordb_embedding AS embedding ON embedding.chunk_id = chunk.id
        AND embedding.generation = %s AND length(embedding.vector) = %s
    WHERE chunk.library_id = %s AND chunk.id > %s AND {IS_EXPIRED} IS NOT TRUE
    ORDER BY chunk.id LIMIT %s"""
_DOCUMENTS = f"""
    SELECT document.id, document.public_id, document.title, document.source, {{metadata}},
           {_TIMES.format("document")}
    FROM vectordb_document AS document
    WHERE document.library_id = %s AND document.id > %s AND (document.expires_at <= %s) IS NOT TRUE{{more}}
    ORDER BY document.id LIMIT %s"""


_DOCUMENT = f", document.title, document.source, {{metadata}}, {_TIMES.format('document')}"
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


class ChunkRow(NamedTuple):
    """A chunk; `vector` is its float32 values, 1 where only its presence was asked for, None where it has none."""

    key: int
    id: str
    document_id: str | None
    position: int | None
    text: str
    embed_text: str | None
    metadata: str
    expires_at: Any
    created_at: Any
    updated_at: Any
    vector: Any


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
        for page in self._chunks("", with_vectors):
            yield [ChunkRow._make(row) for row in page]

    def chunks_with_documents(self) -> Iterator[list[tuple[Any, ...]]]:
        """All chunks in order of creation: the columns of ChunkRow, and behind them those of the document from its
        title on, as in DocumentRow, null for none."""
        return self._chunks(_DOCUMENT.format(metadata=self.snapshot.dialect.json_text("document.metadata")), True)

    def _chunks(self, more: str, with_vectors: bool) -> Iterator[list[tuple[Any, ...]]]:
        vector = _VECTOR.format("vector" if with_vectors else "1")
        sql = _CHUNKS.format(metadata=self.snapshot.dialect.json_text("chunk.metadata"), vector=vector, more=more)
        row_bytes = self.dimension * DTYPE.itemsize if with_vectors else 0
        params = [*self._of_vectors, self._state.key]
        for page in self._pages(sql, params, [self.snapshot.moment] * 2, texts=(4, 6), row_bytes=row_bytes):
            self.read += len(page)
            yield page

    def vectors(self) -> Iterator[bytes]:
        """The vectors of those chunks that have one, in the same order, many at a time."""
        params, row_bytes = [*self._of_vectors, self._state.key], self.dimension * DTYPE.itemsize
        for page in self._pages(_VECTORS, params, [self.snapshot.moment] * 2, row_bytes=row_bytes):
            yield b"".join([row[1] for row in page])

    @property
    def _of_vectors(self) -> list[int]:
        return [self._state.generation, self.dimension * DTYPE.itemsize]

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
    return {
        "id": row.id,
        "document_id": row.document_id,
        "position": row.position,
        "text": row.text,
        "embed_text": row.embed_text,
        "metadata": orjson.Fragment(row.metadata),
        "expires_at": stored_timestamp(row.expires_at),
        "created_at": stored_timestamp(row.created_at),
        "updated_at": stored_timestamp(row.updated_at),
    }
