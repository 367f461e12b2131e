"""Builds every entry over a data set, lets them search in turns, and recomputes the distances of what they found."""

import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

import numpy as np

from apps.engine.indexes import registry
from apps.engine.indexes.matrix import Matrix
from apps.engine.indexes.registry import BRUTE_FORCE
from apps.engine.metrics import exact_scores
from apps.engine.storage.row_data import BufferedRows
from apps.engine.storage.segment import Segment
from apps.engine.storage.view import View
from benchmarks.dataset import Float32
from benchmarks.engine.grids import DataSet, Entry
from benchmarks.engine.references import REFERENCES, NotInstalled, Search

K = 10
_PER_BLOCK = 25
_TOLERANCE = 1e-6


@dataclass
class Line:
    """One line of the table. `compared` is the share of rows that a query was compared with, by the index's own count;
    times are medians over single queries, of one thread: through the view with text ids resolved, and, `by_itself`, of
    the index's search alone, which is what a library's is compared with. All times are the processor's, so that other
    programs count less. `build_seconds` are without the 8-bit copy for exact search, which all types share; those of
    `brute_force` are that copy's."""

    data: str
    kind: str
    build: Mapping[str, Any]
    search: Mapping[str, Any]
    build_seconds: float
    bytes_per_row: float
    microseconds: float
    by_itself: float
    times_numpy: float
    recall: float
    compared: float
    microseconds_in_batches: float | None

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass
class _Contender:
    entry: Entry
    params: Mapping[str, Any]
    search: Search
    build_seconds: float
    nbytes: float
    view: View | None
    times: list[float]
    times_by_itself: list[float]


def run(data_set: DataSet, vectors: Float32, queries: Float32, entries: list[Entry], rounds: int) -> list[Line]:
    """The lines of a data set; `rounds` is how often the entries take turns."""
    began = time.process_time()
    matrix = Matrix.build(vectors, data_set.metric)
    copy_seconds = time.process_time() - began
    contenders = [one for entry in entries for one in _built(entry, matrix, copy_seconds)]
    for turn in range(rounds):
        at = (turn * _PER_BLOCK) % len(queries)
        block = queries[at : at + _PER_BLOCK]
        for one in contenders[turn % len(contenders) :] + contenders[: turn % len(contenders)]:
            one.times += _times(one.search, block)
            if one.view is not None:
                one.times_by_itself += _times(_by_itself(one.view, one.params), block)
    truth = [np.sort(exact_scores(data_set.metric, vectors, query))[-K:] for query in queries]
    numpy_time = next((median(one.times) for one in contenders if one.entry.kind == "numpy"), float("nan"))
    return [_line(data_set, one, vectors, queries, truth, numpy_time) for one in contenders]


def _built(entry: Entry, matrix: Matrix, copy_seconds: float) -> list[_Contender]:
    vectors, metric = matrix.vectors, matrix.metric
    rows, dimension = vectors.shape
    if rows > entry.most_rows or rows < entry.least_rows or dimension > entry.most_dimensions:
        return []
    began = time.process_time()
    view = None
    try:
        if entry.kind in REFERENCES:
            with_params = REFERENCES[entry.kind](vectors, metric, entry.build)
            nbytes = float("nan")
        else:
            segment = Segment.build(
                keys=np.arange(rows),
                matrix=matrix,
                row_data=BufferedRows(),
                kind=entry.kind,
                params=entry.build,
            )
            view = View.of(dimension=dimension, metric=metric, segments=(segment,), built_at=0.0)
            nbytes = segment.index.nbytes or segment.matrix.nbytes - vectors.nbytes
            ids = [f"row-{key}" for key in range(rows)]
            with_params = _through(view, ids)
    except NotInstalled as library:
        print(f"{entry.kind}: {library} is not installed, so it is left out", file=sys.stderr)
        return []
    took = time.process_time() - began
    if entry.kind == BRUTE_FORCE:
        took += copy_seconds
    print(f"{entry.kind}: built in {took:.1f} s", file=sys.stderr)
    return [_Contender(entry, params, with_params(params), took, nbytes, view, [], []) for params in entry.searches]


def _through(view: View, ids: list[str]) -> Callable[[Mapping[str, Any]], Search]:
    """Searches as the server does: by the view, keys resolved to text ids."""

    def with_params(params: Mapping[str, Any]) -> Search:
        def search(query: Float32, k: int) -> np.ndarray:
            [hits] = view.search(query[np.newaxis], k, params=params)
            _ = [ids[key] for key in hits.keys.tolist()]
            return hits.keys

        return search

    return with_params


def _by_itself(view: View, params: Mapping[str, Any]) -> Search:
    """Searches of the index alone."""
    index = view.segments[0].index
    return lambda query, k: index.search(query[np.newaxis], k, None, params).positions


def _times(search: Search, block: Float32) -> list[float]:
    found = []
    for query in block:
        began = time.thread_time()
        search(query, K)
        found.append(time.thread_time() - began)
    # The first ones find the caches as another entry left them.
    return found[5:]


def _line(
    data_set: DataSet,
    one: _Contender,
    vectors: Float32,
    queries: Float32,
    truth: list[np.ndarray],
    numpy_time: float,
) -> Line:
    hits, compared = 0, []
    for query, best in zip(queries, truth, strict=True):
        positions = np.unique(one.search(query, K))
        scores = exact_scores(data_set.metric, vectors, query, positions.astype(np.int64))
        hits += int(np.count_nonzero(scores >= best[0] - _TOLERANCE * max(1.0, abs(float(best[0])))))
    batches = None
    if one.view is not None:
        compared = [hit.compared for hit in one.view.search(queries[:50], K, params=one.params)]
        batches = median(_batch_times(one.view, queries, one.params)) * 1e6
    took = median(one.times)
    by_itself = median(one.times_by_itself) if one.times_by_itself else took
    return Line(
        data=data_set.name,
        kind=one.entry.kind,
        build=dict(one.entry.build),
        search=dict(one.params),
        build_seconds=one.build_seconds,
        bytes_per_row=one.nbytes / len(vectors),
        microseconds=took * 1e6,
        by_itself=by_itself * 1e6,
        times_numpy=numpy_time / by_itself,
        recall=min(1.0, hits / (len(queries) * min(K, len(vectors)))),
        compared=float(np.mean(compared)) / len(vectors) if compared else float("nan"),
        microseconds_in_batches=batches,
    )


def _batch_times(view: View, queries: Float32, params: Mapping[str, Any], per_batch: int = 32) -> list[float]:
    """Seconds per query in batches."""
    found = []
    for start in range(0, len(queries) - per_batch + 1, per_batch):
        began = time.thread_time()
        view.search(queries[start : start + per_batch], K, params=params)
        found.append((time.thread_time() - began) / per_batch)
    return found


def known(entry: Entry) -> bool:
    """Whether this version has the entry."""
    return entry.kind in REFERENCES or entry.kind in registry.INDEX_TYPES
