"""Rows of a library as the database holds them, read as arrays.

Rows without a vector are bare. So are those whose vector no search can use, or is of another length than the library's
dimension: no service writes such vectors.
"""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import compress
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np

from apps.engine.expiry import NEVER
from apps.engine.metadata import Attributes
from apps.engine.storage.row_data import Row
from apps.engine.vectors import DTYPE, Float32, Int64, usable
from apps.libraries.dialects.base import Dialect
from apps.search.snapshots import LibraryState, Snapshot
from apps.search.unindexed import Paths, indexed_document, indexed_metadata

_BELOW_ALL_KEYS, _ABOVE_ALL_KEYS = -(2**63), 2**63 - 1
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

# A column of the vector of a chunk: null where it has none of the library's generation and dimension. Each is looked
# up: of a join, PostgreSQL would expect few vectors of that length, and compare all of them with all chunks.
_OF_VECTOR = """(SELECT {} FROM vectordb_embedding AS embedding WHERE embedding.chunk_id = chunk.id
                       AND embedding.generation = %s AND length(embedding.vector) = %s)"""
_VECTOR = _OF_VECTOR.format("vector")

_EXTENT = f"""
    SELECT count({_OF_VECTOR.format("1")}), max(chunk.id)
    FROM vectordb_chunk AS chunk
    WHERE chunk.library_id = %s"""

_FIELDS = """chunk.public_id, document.public_id, chunk.created_at, {metadata}, {document_metadata},
           chunk.expires_at, document.expires_at, chunk.text"""

_PAGE = f"""
    SELECT chunk.id, {_VECTOR}, {_FIELDS}
    FROM vectordb_chunk AS chunk
    LEFT JOIN vectordb_document AS document ON document.id = chunk.document_id
    WHERE chunk.library_id = %s AND chunk.id > %s AND chunk.id <= %s
    ORDER BY chunk.id LIMIT %s"""

_CHANGED = f"""
    SELECT changed.chunk_key, {_VECTOR}, {_FIELDS}
    FROM (SELECT DISTINCT chunk_key FROM vectordb_change WHERE library_key = %s AND seq > %s) AS changed
    LEFT JOIN vectordb_chunk AS chunk ON chunk.id = changed.chunk_key AND chunk.library_id = %s
    LEFT JOIN vectordb_document AS document ON document.id = chunk.document_id"""


_DOCUMENTS = """
    SELECT document.id, document.public_id, document.created_at, {document_metadata}, document.expires_at
    FROM vectordb_document AS document
    WHERE document.library_id = %s AND document.id > %s ORDER BY document.id LIMIT %s"""


class StoredRows(NamedTuple):
    """Rows named by `keys` [n]: `vectors` [n, dimension], and what `rows` [n] say besides. And bare rows, named by
    `bare_keys` [m]: `bare_rows` [m]."""

    keys: Int64
    vectors: Float32
    rows: list[Row]
    bare_keys: Int64
    bare_rows: list[Row]


def read_all(snapshot: Snapshot, state: LibraryState, page_rows: int, before_page: Callable[[], None]) -> StoredRows:
    """Read all rows in ascending order of their keys, by pages; `before_page` is called before each but the first, and
    may renew the snapshot. A library of less than a page costs one statement."""
    params = [*_of_vectors(state), state.key]
    statement = _statement(_PAGE, snapshot.dialect)
    documents: dict[str, str] = {}
    page = snapshot.rows(statement, [*params, _BELOW_ALL_KEYS, _ABOVE_ALL_KEYS, page_rows])
    if len(page) < page_rows:
        return _as_arrays(page, state, documents)
    [(count, greatest)] = snapshot.rows(_EXTENT, params)
    keys = np.empty(count, np.int64)
    vectors = np.empty((count, state.dimension or 0), np.float32)
    bare_keys = [np.empty(0, np.int64)]
    rows: list[Row] = []
    bare_rows: list[Row] = []
    end = 0
    # By pages: a client of PostgreSQL would hold all rows at once. Rows are added at the end, perhaps faster than this.
    while page:
        found = _as_arrays(page, state, documents)
        start, end = end, end + len(found.keys)
        if end > len(keys):
            # Rows were added among these since they were counted; they are few.
            keys.resize(end, refcheck=False)
            vectors.resize((end, state.dimension or 0), refcheck=False)
        keys[start:end], vectors[start:end] = found.keys, found.vectors
        bare_keys.append(found.bare_keys)
        rows += found.rows
        bare_rows += found.bare_rows
        last = page[-1][0]
        if last == greatest:
            break
        before_page()
        page = snapshot.rows(statement, [*params, last, greatest, page_rows])
    return StoredRows(keys[:end], vectors[:end], rows, np.concatenate(bare_keys), bare_rows)


def read_changed(snapshot: Snapshot, state: LibraryState, since: int) -> tuple[StoredRows, Int64]:
    """Read the rows that the log names past `since`; return those that are there, and the keys of those that are
    gone."""
    changed = snapshot.rows(_statement(_CHANGED, snapshot.dialect), [*_of_vectors(state), state.key, since, state.key])
    gone = [row[0] for row in changed if row[2] is None]
    return _as_arrays([row for row in changed if row[2] is not None], state, {}), np.array(gone, np.int64)


def read_documents(snapshot: Snapshot, library_key: int, after: int | None, count: int) -> dict[int, Attributes]:
    """The next `count` documents of a library behind the key `after` (None: from the first on), by key. Their own
    metadata, all of it, is in the place of a chunk's."""
    found = snapshot.rows(
        _statement(_DOCUMENTS, snapshot.dialect), [library_key, _BELOW_ALL_KEYS if after is None else after, count]
    )
    return {
        key: Attributes(
            id,
            None,
            _microseconds(created_at),
            metadata,
            expires_at=NEVER if expires_at is None else _expiry(expires_at),
        )
        for key, id, created_at, metadata, expires_at in found
    }


def _of_vectors(state: LibraryState) -> list[int]:
    """The parameters of `_OF_VECTOR`; without a dimension no vector is of its length."""
    return [state.generation, (state.dimension or 0) * DTYPE.itemsize]


def _as_arrays(found: list[tuple[Any, ...]], state: LibraryState, documents: dict[str, str]) -> StoredRows:
    """Rows of the database. `documents` has the metadata of documents, which rows share."""
    embedded, bare = found, [row for row in found if row[1] is None]
    if bare:
        embedded = [row for row in found if row[1] is not None]
    vectors = np.frombuffer(b"".join([row[1] for row in embedded]), DTYPE).reshape(len(embedded), state.dimension or 0)
    fine = usable(vectors, state.metric)
    if not fine.all():
        # Written past the services.
        bare = sorted([*bare, *compress(embedded, ~fine)], key=itemgetter(0))
        embedded, vectors = list(compress(embedded, fine)), vectors[fine]
    return StoredRows(
        _keys_of(embedded),
        vectors,
        _rows_of(embedded, documents, state.unindexed),
        _keys_of(bare),
        _rows_of(bare, documents, state.unindexed),
    )


def _keys_of(found: list[tuple[Any, ...]]) -> Int64:
    return np.array([row[0] for row in found], np.int64)


def _rows_of(found: list[tuple[Any, ...]], documents: dict[str, str], unindexed: Paths) -> list[Row]:
    return [
        Row(
            Attributes(
                id,
                document_id,
                _microseconds(created_at),
                indexed_metadata(metadata, unindexed),
                _shared(document, documents, unindexed),
                NEVER if own is inherited is None else _expiry(own, inherited),
            ),
            text,
        )
        for _, _, id, document_id, created_at, metadata, document, own, inherited, text in found
    ]


def _shared(text: str | None, known: dict[str, str], unindexed: Paths) -> str:
    """What is indexed of a document's metadata, as one object for all of its rows."""
    if text is None:
        return ""
    found = known.get(text)
    if found is None:
        found = known[text] = _recent(indexed_document(text, unindexed))
    return found


@lru_cache(maxsize=256)
def _recent(text: str) -> str:
    """An equal text of an earlier read, where there was one lately: a document's chunks may be written one by one."""
    return text


def _expiry(*moments: str | datetime | None) -> int:
    """The earlier of the times of a chunk and its document, in microseconds since the epoch."""
    return min(_microseconds(moment) for moment in moments if moment is not None)


@lru_cache(maxsize=4096)
def _microseconds(moment: str | datetime) -> int:
    """A time of the database in microseconds since the epoch; 0 for another text, which no service writes."""
    try:
        at = datetime.fromisoformat(moment) if isinstance(moment, str) else moment
    except ValueError:
        return 0
    return ((at if at.tzinfo else at.replace(tzinfo=UTC)) - _EPOCH) // timedelta(microseconds=1)


@lru_cache
def _statement(sql: str, dialect: Dialect) -> str:
    return sql.format(
        metadata=dialect.json_text("chunk.metadata"), document_metadata=dialect.json_text("document.metadata")
    )
