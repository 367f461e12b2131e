"""Whether a library's view is what the database holds, and how near its answers are to exact ones."""

from dataclasses import dataclass

import numpy as np

from apps.engine.vectors import Float32, Int64
from apps.search import loading
from apps.search.cache import ViewCache
from apps.search.snapshots import open_snapshot

_NO_FILES = "no index files yet"
_BAD_FILES = "index files cannot be used"


@dataclass(frozen=True)
class Report:
    """`faults` counts rows that are missing, too many, or of another vector; `recall` is None without rows.

    `searched` says what was compared: the types of the index, or why it was only the rows.
    """

    rows: int
    faults: int
    searched: str
    recall: float | None


def verify_library(*, library_id: str, sample: int, k: int) -> Report:
    """Open the library's index files anew and compare them with its rows, from one snapshot; raises NotFound.

    Recall counts a neighbour as found whose score is that of the exact answer's last or better, so ties cost nothing.
    """
    with open_snapshot() as snapshot:
        current = ViewCache().current(snapshot, library_id)
        if current.view is None:
            return Report(0, 0, _NO_FILES, None)
        rows = loading.load(snapshot, current.state)
    keys, vectors = current.view.rows()
    true_keys, true_vectors = rows.rows()
    searched = ", ".join(sorted({segment.index.kind for segment in current.view.segments if segment.name})) or _NO_FILES
    if current.manifest is None and loading.index_folder(current.state.uid).numbers():
        searched = _BAD_FILES
    faults = _differing(keys, vectors, true_keys, true_vectors)
    if not len(true_keys):
        return Report(0, faults, searched, None)
    chosen = np.random.default_rng(0).choice(len(true_keys), min(sample, len(true_keys)), replace=False)
    found = current.view.search(true_vectors[chosen], k)
    exact = rows.search(true_vectors[chosen], k, exact=True)
    hits = sum(int(np.count_nonzero(one.scores >= best.scores[-1])) for one, best in zip(found, exact, strict=True))
    return Report(len(true_keys), faults, searched, hits / sum(len(best.scores) for best in exact))


def _differing(keys: Int64, vectors: Float32, true_keys: Int64, true_vectors: Float32) -> int:
    common, places, true_places = np.intersect1d(keys, true_keys, assume_unique=True, return_indices=True)
    unequal = int(np.count_nonzero((vectors[places] != true_vectors[true_places]).any(axis=1)))
    return unequal + len(keys) + len(true_keys) - 2 * len(common)
