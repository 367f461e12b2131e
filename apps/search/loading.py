"""From rows to a view, and from changes to the next one; always from one snapshot.

Loading costs one pass over the library's rows, and its vectors' memory once. Catching up costs what changed. Vectors
that no search can use, or of another length than the library's dimension, are left out: no service has written them.
"""

import numpy as np

from apps.engine.metrics import Metric
from apps.engine.vectors import DTYPE, Float32, Int64, usable
from apps.engine.view import View
from apps.search.snapshots import LibraryState, Position, Snapshot

_ROWS_PER_PAGE = 2000
_BELOW_ALL_KEYS = -(2**63)
# Past so many changes, or half as many as there are rows, reading all rows is quicker than replaying.
_REPLAY_AT_MOST = 20_000

_COUNT = """
    SELECT count(*) FROM chunk JOIN embedding ON embedding.chunk_id = chunk.id AND embedding.generation = %s
    WHERE chunk.library_id = %s AND length(embedding.vector) = %s"""

_PAGE = """
    SELECT chunk.id, embedding.vector
    FROM chunk JOIN embedding ON embedding.chunk_id = chunk.id AND embedding.generation = %s
    WHERE chunk.library_id = %s AND length(embedding.vector) = %s AND chunk.id > %s
    ORDER BY chunk.id LIMIT %s"""

_CHANGED = """
    SELECT changed.chunk_key, embedding.vector
    FROM (SELECT DISTINCT chunk_key FROM change WHERE library_key = %s AND seq > %s) AS changed
    LEFT JOIN chunk ON chunk.id = changed.chunk_key AND chunk.library_id = %s
    LEFT JOIN embedding ON embedding.chunk_id = chunk.id AND embedding.generation = %s
                       AND length(embedding.vector) = %s"""


def load(snapshot: Snapshot, state: LibraryState) -> View:
    """The view of all rows; `state.dimension` must not be None."""
    assert state.dimension is not None
    params = [state.generation, state.key, state.dimension * DTYPE.itemsize]
    [(count,)] = snapshot.rows(_COUNT, params)
    keys = np.empty(count, np.int64)
    vectors = np.empty((count, state.dimension), np.float32)
    end, last = 0, _BELOW_ALL_KEYS
    # By pages: a client of PostgreSQL would hold all rows at once.
    while block := snapshot.rows(_PAGE, [*params, last, _ROWS_PER_PAGE]):
        last = block[-1][0]
        found, matrix = _usable(block, state.metric, state.dimension)
        start, end = end, end + len(found)
        keys[start:end], vectors[start:end] = found, matrix
    return View.build(
        dimension=state.dimension, metric=state.metric, kind=state.index_type, keys=keys[:end], vectors=vectors[:end]
    )


def catch_up(snapshot: Snapshot, state: LibraryState, view: View, since: Position) -> View:
    """The view of `state`, made from `view`, which stands at `since`; a fresh one where that is quicker or where the
    library's history does not contain `since` any more."""
    if not snapshot.has(state.key, since):
        return load(snapshot, state)
    sql = "SELECT count(*) FROM change WHERE library_key = %s AND seq > %s"
    [(changes,)] = snapshot.rows(sql, [state.key, since.seq])
    if changes > max(_REPLAY_AT_MOST, len(view) // 2):
        return load(snapshot, state)
    changed = snapshot.rows(
        _CHANGED, [state.key, since.seq, state.key, state.generation, view.dimension * DTYPE.itemsize]
    )
    keys, vectors = _usable([row for row in changed if row[1] is not None], state.metric, view.dimension)
    touched = np.array([key for key, _ in changed], np.int64)
    return view.advanced(keys=keys, vectors=vectors, gone=np.setdiff1d(touched, keys))


def _usable(rows: list[tuple[int, bytes]], metric: Metric, dimension: int) -> tuple[Int64, Float32]:
    """Keys and vectors of rows of the database, without those that no search could use: what a service has checked
    may have been written past it."""
    keys = np.array([key for key, _ in rows], np.int64)
    vectors = np.frombuffer(b"".join([vector for _, vector in rows]), DTYPE).reshape(len(rows), dimension)
    fine = usable(vectors, metric)
    return (keys, vectors) if fine.all() else (keys[fine], vectors[fine])
