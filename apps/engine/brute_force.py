"""Exact search: a float32 product over all rows gives scores within a proven bound; the few rows that the bound
cannot decide are scored exactly.

Holds the matrix [n, d] float32 and one float32 per row. A query costs one matrix-vector product, a few passes over n
floats, and the exact scores of the short-list: some tens of rows on real data, all n where all scores are equal within
the bound. A batch is one matrix product in blocks of queries, so that its scores stay below 64 MiB.
"""

from pathlib import Path
from typing import Self

import numpy as np

from apps.engine import selection
from apps.engine.files import map_array, save_array
from apps.engine.index import NO_PARAMS, Neighbors, Params, VectorIndex
from apps.engine.metrics import TINY_NORM, Metric, exact_scores, relative_bound, row_norms, underflow_bound
from apps.engine.scan import products
from apps.engine.vectors import Float32, Int64, Mask

_BLOCK_SCORES = 1 << 23
# Below this share of allowed rows, gathering them costs less than scoring all.
_GATHER_SHARE = 8


class BruteForce(VectorIndex):
    """Compares a query with every allowed row. Exact for every metric."""

    kind = "brute_force"

    def __init__(self, vectors: Float32, metric: Metric, norms: Float32) -> None:
        self._vectors = vectors
        self._metric = metric
        self._norms = norms

    @classmethod
    def build(cls, vectors: Float32, metric: Metric, params: Params = NO_PARAMS) -> Self:
        cls.check_params(params)
        return cls(vectors, metric, row_norms(vectors).astype(np.float32))

    def search(self, queries: Float32, k: int, allowed: Mask | None = None, params: Params = NO_PARAMS) -> Neighbors:
        return search_matrix(self._vectors, self._norms, self._metric, queries, k, allowed)

    def save(self, folder: Path) -> None:
        save_array(folder / "norms.npy", self._norms)

    @classmethod
    def load(cls, folder: Path, vectors: Float32, metric: Metric) -> Self:
        return cls(vectors, metric, map_array(folder / "norms.npy"))

    def __len__(self) -> int:
        return len(self._vectors)

    @property
    def nbytes(self) -> int:
        return self._norms.nbytes


def search_matrix(
    vectors: Float32,
    norms: Float32,
    metric: Metric,
    queries: Float32,
    k: int,
    allowed: Mask | None = None,
    order: Int64 | None = None,
) -> Neighbors:
    """The k best of `vectors` [n, d], with L2 norms `norms` [n], for each of `queries` [m, d].

    Ties are broken by ascending `order` [n], which defaults to the position.
    """
    m, n = len(queries), len(vectors)
    positions = np.full((m, k), -1, np.int64)
    scores = np.full((m, k), -np.inf, np.float32)
    rows: Int64 | None = None
    compared = n
    if allowed is not None:
        compared = int(np.count_nonzero(allowed))
        if compared == n:
            allowed = None
        elif compared * _GATHER_SHARE < n:
            rows = np.flatnonzero(allowed)
            vectors, norms, allowed = vectors[rows], norms[rows], None
    if compared:
        step = max(1, _BLOCK_SCORES // len(vectors))
        for start in range(0, m, step):
            block = queries[start : start + step]
            for i, (query, product) in enumerate(zip(block, products(block, vectors), strict=True), start):
                candidates = _candidates(metric, product, norms, query, k, allowed)
                exact = exact_scores(metric, vectors, query, candidates)
                if rows is not None:
                    candidates = rows[candidates]
                chosen = selection.best(exact, candidates if order is None else order[candidates], k)
                positions[i, : len(chosen)] = candidates[chosen]
                scores[i, : len(chosen)] = exact[chosen]
    return Neighbors(positions, scores, np.full(m, compared, np.int64), exact=True)


def _candidates(
    metric: Metric, products: Float32, norms: Float32, query: Float32, k: int, allowed: Mask | None
) -> Int64:
    """Positions of all rows that may be among the k best, from the float32 `products` [n] of rows and `query`.

    `products` is overwritten.
    """
    if k >= len(products):
        return np.arange(len(products)) if allowed is None else np.flatnonzero(allowed)
    dimension = len(query)
    wide = query.astype(np.float64)
    query_norm = float(np.sqrt((wide * wide).sum()))
    relative, underflow = relative_bound(dimension), underflow_bound(dimension)
    if metric is Metric.COSINE:
        # Divided by the row's norm and not by the query's: the quick scores are |query| times the cosine. One slack
        # serves all rows, so the interval is shifted by it and its lower end needs no array of its own.
        tiny = np.flatnonzero(norms < TINY_NORM)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            lower = np.divide(products, norms, out=products)
        upper = lower + _above(2 * (relative * query_norm + underflow / TINY_NORM))
        lower[tiny], upper[tiny] = -np.inf, np.inf
    elif metric is Metric.DOT:
        slack_of = norms * _above(relative * query_norm) + _above(underflow)
        lower, upper = products - slack_of, products + slack_of
    else:
        # 2xq - |x|^2 orders rows as -|x - q|^2 does.
        quick = 2 * products - norms * norms
        reach = norms + _above(query_norm)
        slack_of = reach * reach * _above(relative) + _above(underflow)
        lower, upper = quick - slack_of, quick + slack_of
    if allowed is not None:
        lower[~allowed] = -np.inf
        upper[~allowed] = -np.inf
    return selection.shortlist(lower, upper, k)


def _above(value: float) -> np.float32:
    """A float32 above `value`: rounding a bound down would break it, by a lot where float32 is denormal."""
    above: np.float32 = np.nextafter(np.float32(value), np.float32(np.inf))
    return above
