"""Views, compared with the rows of the snapshot that they are of."""

import numpy as np

from apps.engine.storage import part
from apps.engine.storage.view import View
from apps.engine.vectors import DTYPE, Float32, Int64
from apps.libraries.models import Chunk
from apps.search.cache import ViewCache
from apps.search.loading import LoadedView
from apps.search.query.spec import EVERYTHING
from apps.search.snapshots import Snapshot, open_snapshot
from tests.engine.data import ranking

PROBES = np.array([[1, 0.5, -0.25], [-1, 2, 0.125]], np.float32)


def shown(cache: ViewCache, library_id: str = "a") -> LoadedView:
    """What the cache answers from now; it is what a snapshot of now says."""
    with open_snapshot() as snapshot:
        return shown_in(snapshot, cache, library_id)


def shown_in(snapshot: Snapshot, cache: ViewCache, library_id: str = "a") -> LoadedView:
    """What the cache answers from in `snapshot`; it is what the snapshot says, of chunks with a vector and without."""
    current = cache.current(snapshot, library_id)
    assert current.state == snapshot.library(library_id)
    rows = snapshot.rows(
        "SELECT chunk.id, embedding.vector FROM vectordb_library AS library"
        " JOIN vectordb_chunk AS chunk ON chunk.library_id = library.id"
        " LEFT JOIN vectordb_embedding AS embedding ON embedding.chunk_id = chunk.id"
        " AND embedding.generation = library.generation"
        " WHERE library.public_id = %s ORDER BY chunk.id",
        [library_id],
    )
    dimension = current.state.dimension or 0
    assert current.view.keys(current.view.matching(EVERYTHING)).tolist() == [key for key, _ in rows]
    rows = [(key, vector) for key, vector in rows if vector and len(vector) == dimension * DTYPE.itemsize]
    keys = np.array([key for key, _ in rows], np.int64)
    vectors = np.frombuffer(b"".join(vector for _, vector in rows), DTYPE).reshape(len(rows), dimension)
    probes = np.resize(PROBES, (2, dimension))
    for hits, probe in zip(current.view.search(probes, len(rows) + 5), probes, strict=True):
        assert hits.keys.tolist() == keys[ranking(current.state.metric, vectors, probe)].tolist()
    return current


def nearest(current: LoadedView, vector: list[float]) -> str:
    """The id of the chunk that is nearest to `vector`."""
    [hits] = current.view.search(np.array([vector], np.float32), 1)
    return Chunk.objects.get(pk=int(hits.keys[0])).public_id


def live_rows(view: View) -> tuple[Int64, Float32, Int64]:
    """Keys and vectors of all live rows that have a vector, in ascending order of the keys; and the keys of the
    others."""
    embedded = [one for one in view.parts if not one.is_bare] or [view.tail]
    keys, places = part.live_rows(embedded)
    bare_keys, _ = part.live_rows([one for one in view.parts if one.is_bare])
    return keys, part.vectors_at(embedded, places), bare_keys
