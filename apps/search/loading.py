"""From rows to a view, and from changes to the next one; always from one snapshot.

Loading costs one pass over the library's rows, and its vectors' memory once. Catching up costs what changed.
"""

import numpy as np

from apps.engine.vectors import DTYPE, Float32
from apps.engine.view import View
from apps.search.snapshots import LibraryState, Position, Snapshot

_ROWS_PER_BLOCK = 2000
# Past so many changes, or half as many as there are rows, reading all rows is quicker than replaying.
_REPLAY_AT_MOST = 20_000

_COUNT = """
    SELECT count(*) FROM chunk JOIN embedding ON embedding.chunk_id = chunk.id AND embedding.generation = %s
    WHERE chunk.library_id = %s AND length(embedding.vector) = %s"""

_ALL = """
    SELECT chunk.id, embedding.vector
    FROM chunk JOIN embedding ON embedding.chunk_id = chunk.id AND embedding.generation = %s
    WHERE chunk.library_id = %s AND length(embedding.vector) = %s
    ORDER BY chunk.id"""

_CHANGED = """
    SELECT changed.chunk_key, embedding.vector
    FROM (SELECT DISTINCT chunk_key FROM change WHERE library_key = %s AND seq > %s) AS changed
    LEFT JOIN chunk ON chunk.id = changed.chunk_key AND chunk.library_id = %s
    LEFT JOIN embedding ON embedding.chunk_id = chunk.id AND embedding.generation = %s
                       AND length(embedding.vector) = %s"""


def load(snapshot: Snapshot, state: LibraryState) -> View:
    """The view of all rows; `state.dimension` must not be None. Rows of another length than it are left out."""
    assert state.dimension is not None
    params = [state.generation, state.key, state.dimension * DTYPE.itemsize]
    [(count,)] = snapshot.rows(_COUNT, params)
    keys = np.empty(count, np.int64)
    vectors = np.empty((count, state.dimension), np.float32)
    start = 0
    for block in snapshot.blocks(_ALL, params, _ROWS_PER_BLOCK):
        end = start + len(block)
        keys[start:end] = [key for key, _ in block]
        vectors[start:end] = _matrix([vector for _, vector in block], state.dimension)
        start = end
    return View.build(dimension=state.dimension, metric=state.metric, kind=state.index_type, keys=keys, vectors=vectors)


def catch_up(snapshot: Snapshot, state: LibraryState, view: View, since: Position) -> View:
    """The view of `state`, made from `view`, which stands at `since`; a fresh one where that is quicker or where the
    library's history does not contain `since` any more."""
    if not snapshot.has(state.key, since):
        return load(snapshot, state)
    sql = "SELECT count(*) FROM change WHERE library_key = %s AND seq > %s"
    [(changes,)] = snapshot.rows(sql, [state.key, since.seq])
    if changes > max(_REPLAY_AT_MOST, len(view) // 2):
        return load(snapshot, state)
    dimension = view.dimension
    changed = snapshot.rows(_CHANGED, [state.key, since.seq, state.key, state.generation, dimension * DTYPE.itemsize])
    present = [(key, vector) for key, vector in changed if vector is not None]
    gone = [key for key, vector in changed if vector is None]
    return view.advanced(
        keys=np.array([key for key, _ in present], np.int64),
        vectors=_matrix([vector for _, vector in present], dimension),
        gone=np.array(gone, np.int64),
    )


def _matrix(blobs: list[bytes], dimension: int) -> Float32:
    return np.frombuffer(b"".join(blobs), DTYPE).reshape(len(blobs), dimension)
