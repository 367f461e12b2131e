"""Whether a library's index has the rows that the database holds, and how near its answers are to exact ones.

Costs the memory of a view that is made of the rows, and twice that of their metadata and words: vectors are compared
some thousands of rows at a time with the index's files, which are mapped. No snapshot of the database is held while all
rows are read.
"""

from collections.abc import Iterator
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
_ROWS_PER_BLOCK = 2048
_QUERIES_PER_BLOCK = 16


@dataclass(frozen=True)
class Report:
    """`faults` counts rows that are missing, too many, or of another vector; `unequal` says what else differs in rows
    that both have: "metadata", with which ids and times go, or "words". `recall` is None with fewer than two rows.

    `searched` says what was compared: the types of the index, or why it was only the rows.
    """

    rows: int
    faults: int
    unequal: tuple[str, ...]
    searched: str
    recall: float | None


def verify_library(*, library_id: str, sample: int, k: int, policy: LoadingPolicy = DEFAULT_POLICY) -> Report:
    """Open the library's index files and compare what they hold with its rows; raises NotFound.

    Recall is that of the k nearest neighbours of `sample` rows, themselves left out. A neighbour counts as found whose
    score is that of the exact answer's last or better, so ties cost nothing.
    """
    current, rows = _index_and_rows(library_id, policy)
    if current.view is None or rows is None:
        return Report(0, 0, (), _NO_FILES, None)
    searched = ", ".join(sorted({segment.index.kind for segment in current.view.segments if segment.name})) or _NO_FILES
    if current.manifest is None and loading.index_folder(current.state.uid).numbers():
        searched = _BAD_FILES
    index_rows, true_rows = _Rows(current.view), _Rows(rows)
    recall = _recall(current.view, rows, true_rows, sample=sample, k=k)
    places, true_places = _in_both(index_rows, true_rows)
    faults = _count_faults(index_rows, true_rows, places, true_places)
    unequal = tuple(_unequal(index_rows.row_data(places), true_rows.row_data(true_places)))
    return Report(len(true_rows.keys), faults, unequal, searched, recall)


def _index_and_rows(library_id: str, policy: LoadingPolicy) -> tuple[LoadedView, View | None]:
    """The library with its index files, and a view of its rows in the same state; raises NotFound."""
    while True:
        with open_snapshot() as snapshot:
            current = ViewCache(policy=policy).current(snapshot, library_id)
            if current.view is None or current.manifest is None:
                return current, current.view  # made of the rows
            loaded = loading.load_in_steps(snapshot, current.state, policy)
            if loaded is None:
                continue  # it has other vectors now
            if loaded.state.position == current.state.position:
                return current, loaded.view
            caught_up = loading.catch_up(snapshot, loaded.state, current.view, current.state.position, policy)
            if caught_up is not None:
                return replace(current, state=loaded.state, view=caught_up), loaded.view


class _Rows:
    """The live rows of a view in ascending order of their `keys`, int64 [n]."""

    def __init__(self, view: View) -> None:
        self._parts = view.parts
        self.keys, self._places = live_rows(self._parts)

    def vectors(self, rows: Int64) -> Float32:
        """A copy of the vectors of some rows."""
        return vectors_at(self._parts, self._places[rows])

    def row_data(self, rows: Int64) -> SealedRows:
        """A copy of the data of some rows."""
        return row_data_at(self._parts, self._places[rows])


def _in_both(index: _Rows, rows: _Rows) -> tuple[Int64, Int64]:
    """Where the rows are that both have, in the one and in the other."""
    _, places, true_places = np.intersect1d(index.keys, rows.keys, return_indices=True)
    return places, true_places


def _count_faults(index: _Rows, rows: _Rows, places: Int64, true_places: Int64) -> int:
    unequal = 0
    for block in _blocks(len(places), _ROWS_PER_BLOCK):
        differs = index.vectors(places[block]) != rows.vectors(true_places[block])
        unequal += int(np.count_nonzero(differs.any(axis=1)))
    return unequal + len(index.keys) + len(rows.keys) - 2 * len(places)


def _unequal(data: SealedRows, true_data: SealedRows) -> Iterator[str]:
    """What differs, besides vectors, in the rows that both have."""
    if not data.columns.equals(true_data.columns):
        yield "metadata"
    if not data.text.equals(true_data.text):
        yield "words"


def _recall(view: View, rows: View, true_rows: _Rows, *, sample: int, k: int) -> float | None:
    count = len(true_rows.keys)
    chosen = np.random.default_rng(0).choice(count, min(sample, count), replace=False)
    hits = wanted = 0
    for block in _blocks(len(chosen), _QUERIES_PER_BLOCK):
        keys, queries = true_rows.keys[chosen[block]].tolist(), true_rows.vectors(chosen[block])
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


def _blocks(count: int, size: int) -> Iterator[slice]:
    return (slice(start, start + size) for start in range(0, count, size))
