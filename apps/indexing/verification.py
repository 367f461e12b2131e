"""Whether a library's index has the rows that the database holds, and how near its answers are to exact ones.

Costs the memory of a view that is made of the rows, and twice that of their metadata and words.
"""

from dataclasses import dataclass, replace

import numpy as np

from apps.engine.storage.part import live_rows, row_data_at, vectors_at
from apps.engine.storage.row_data import SealedRows
from apps.engine.storage.view import Hits, View
from apps.engine.vectors import Float32, Int64
from apps.search import loading
from apps.search.cache import ViewCache
from apps.search.loading import DEFAULT_POLICY, LoadedView, LoadingPolicy
from apps.search.snapshots import open_snapshot

_NO_FILES = "no index files yet"
_BAD_FILES = "index files cannot be used"
_QUERIES_AT_ONCE = 16


@dataclass(frozen=True)
class Report:
    """`faults` counts rows that are missing, too many, or of another vector or none; `unequal` says what else differs
    in rows that both have: "metadata", with which ids and times go, or "words". `recall` is None with fewer than two
    rows that have a vector.

    `searched` says what was compared: the types of the index, or why it was only the rows.
    """

    rows: int
    faults: int
    unequal: tuple[str, ...]
    searched: str
    recall: float | None


def verify_library(
    *, library_id: str, sample: int, k: int, policy: LoadingPolicy = DEFAULT_POLICY, rows_at_once: int = 2048
) -> Report:
    """Open the library's index files and compare what they hold with its rows; raises NotFound.

    Recall is that of the k nearest neighbours of `sample` rows, themselves left out. A neighbour counts as found whose
    score is that of the exact answer's last or better, so ties cost nothing.
    """
    current, rows = _index_and_rows(library_id, policy)
    searched = ", ".join(sorted({segment.index.kind for segment in current.view.segments if segment.name})) or _NO_FILES
    if current.manifest is None and loading.index_folder(current.state.uid).numbers():
        searched = _BAD_FILES
    index_rows, true_rows = Rows(current.view), Rows(rows)
    recall = _recall(current.view, rows, true_rows, sample=sample, k=k)
    # Where the rows are that both have, in the one and in the other.
    _, places, true_places = np.intersect1d(index_rows.keys, true_rows.keys, return_indices=True)
    faults = len(index_rows.keys) + len(true_rows.keys) - 2 * len(places)
    faults += count_differing(index_rows, places, true_rows, true_places, rows_at_once)
    data, true_data = index_rows.row_data(places), true_rows.row_data(true_places)
    unequal = {"metadata": data.columns.equals(true_data.columns), "words": data.text.equals(true_data.text)}
    differing = tuple(name for name, is_equal in unequal.items() if not is_equal)
    return Report(len(true_rows.keys), faults, differing, searched, recall)


def _index_and_rows(library_id: str, policy: LoadingPolicy) -> tuple[LoadedView, View]:
    """The library with its index files, and a view of its rows in the same state; raises NotFound."""
    while True:
        with open_snapshot() as snapshot:
            current = ViewCache(policy=policy).current(snapshot, library_id)
            if current.manifest is None:
                return current, current.view  # made of the rows
            loaded = loading.load_in_steps(snapshot, current.state, policy)
            if loaded is None:
                continue  # it has other vectors now
            if loaded.state.position == current.state.position:
                return current, loaded.view
            caught_up = loading.catch_up(snapshot, loaded.state, current.view, current.state.position, policy)
            if caught_up is not None:
                return replace(current, state=loaded.state, view=caught_up), loaded.view


class Rows:
    """The live rows of a view in ascending order of their `keys`, int64 [n]. Those of `bare`, bool [n], have no
    vector."""

    def __init__(self, view: View) -> None:
        self._parts = view.parts
        self.keys, self._places = live_rows(self._parts)
        self.bare = np.concatenate([np.full(len(part.keys), part.is_bare) for part in self._parts])[self._places]

    def vectors(self, rows: Int64) -> Float32:
        """A copy of the vectors of some rows, none of them bare."""
        return vectors_at(self._parts, self._places[rows])

    def row_data(self, rows: Int64) -> SealedRows:
        """A copy of the data of some rows."""
        return row_data_at(self._parts, self._places[rows])


def count_differing(index: Rows, places: Int64, rows: Rows, true_places: Int64, at_once: int) -> int:
    """The number of `places` [n] whose vector differs from that at `true_places` [n], or that are bare in one only;
    reads some rows `at_once`."""
    bare, true_bare = index.bare[places], rows.bare[true_places]
    differing = int(np.count_nonzero(bare != true_bare))
    have_vectors = ~(bare | true_bare)
    places, true_places = places[have_vectors], true_places[have_vectors]
    for start in range(0, len(places), at_once):
        some = slice(start, start + at_once)
        differing += int((index.vectors(places[some]) != rows.vectors(true_places[some])).any(axis=1).sum())
    return differing


def _recall(view: View, rows: View, true_rows: Rows, *, sample: int, k: int) -> float | None:
    embedded = np.flatnonzero(~true_rows.bare)
    chosen = np.random.default_rng(0).choice(embedded, min(sample, len(embedded)), replace=False)
    hits = wanted = 0
    for start in range(0, len(chosen), _QUERIES_AT_ONCE):
        some = chosen[start : start + _QUERIES_AT_ONCE]
        keys, queries = true_rows.keys[some].tolist(), true_rows.vectors(some)
        found, exact = view.search(queries, k + 1), rows.search(queries, k + 1, exact=True)
        for key, one, other in zip(keys, found, exact, strict=True):
            best = _others(other, key)[:k]
            wanted += len(best)
            hits += int(np.count_nonzero(_others(one, key)[: len(best)] >= best[-1:]))
    return hits / wanted if wanted else None


def _others(hits: Hits, key: int) -> Float32:
    """The scores of all but the row of `key`."""
    others: Float32 = hits.scores[hits.keys != key]
    return others
