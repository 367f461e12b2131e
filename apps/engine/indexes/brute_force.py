"""Exact search, in one of three ways that give the same answers to the last bit.

- An index of more than a few dimensions keeps an 8-bit copy of its rows beside the float32 matrix. Compiled code scans
  the copy, one query or many, and scores exactly the rows that its bound does not decide (`scan`, `kernels.bytes`).
- Rows without a copy, as those of a view's tail, are gone through once by compiled code that decides by a float32
  product (`kernels.exact`).
- Where the kernels are not loaded, or the matrix is not contiguous: a float32 product of all rows gives scores within
  a proven bound (`metrics`), a few passes of numpy find the rows that the bound does not decide, and these are scored.

The copy takes 1 byte per element, rounded up to 128 dimensions, and 16 per row. On 117,659 rows of 384 dimensions one
query takes 1 ms and reads half of the copy, each of 32 takes 0.3 ms; numpy's product and argpartition take 6 ms. A
mask costs what its rows cost. Where all scores are equal within the bound, all rows are scored.
"""

from pathlib import Path
from typing import Self

import numpy as np

from apps.engine import kernels, selection
from apps.engine.array_files import map_array, save_array
from apps.engine.indexes.base import NO_PARAMS, Checkpoint, Neighbors, Params, VectorIndex, go_on
from apps.engine.indexes.scan import Codes, products
from apps.engine.metrics import TINY_NORM, Metric, exact_scores, is_plain, relative_bound, row_norms, underflow_bound
from apps.engine.vectors import Float32, Int64, Mask

_BLOCK_SCORES = 1 << 23
# Below this share of allowed rows, gathering them costs less than scoring all.
_GATHER_SHARE = 8
# The same for the scan of the copy, which looks at a mask only where a row may be among the best.
_GATHER_CODES_SHARE = 2
# Below this dimension a row of the copy would be longer than the row itself; below so many rows it saves nothing.
_CODED_DIMENSION = 32
_CODED_ROWS = 512
_NONE = np.empty(0, np.int64)


class BruteForce(VectorIndex):
    """Compares a query with every allowed row. Exact for every metric."""

    kind = "brute_force"

    def __init__(self, vectors: Float32, metric: Metric, norms: Float32, codes: Codes | None) -> None:
        self._vectors = vectors
        self._metric = metric
        self.norms = norms
        self._codes = codes

    @classmethod
    def build(
        cls,
        vectors: Float32,
        metric: Metric,
        params: Params = NO_PARAMS,
        exact: "BruteForce | None" = None,
        checkpoint: Checkpoint = go_on,
    ) -> Self:
        cls.check_params(params)
        codes = Codes.build(vectors, metric) if _is_coded(vectors) else None
        return cls(vectors, metric, row_norms(vectors).astype(np.float32), codes)

    @classmethod
    def without_copy(cls, vectors: Float32, metric: Metric) -> Self:
        """The same search, without a copy of the rows that makes it quick."""
        return cls(vectors, metric, row_norms(vectors).astype(np.float32), None)

    def search(self, queries: Float32, k: int, allowed: Mask | None = None, params: Params = NO_PARAMS) -> Neighbors:
        return search_matrix(self._vectors, self.norms, self._metric, queries, k, allowed, codes=self._codes)

    def save(self, folder: Path) -> None:
        save_array(folder / "norms.npy", self.norms)
        if self._codes is not None:
            self._codes.save(folder)

    @classmethod
    def load(
        cls,
        folder: Path,
        vectors: Float32,
        metric: Metric,
        exact: "BruteForce | None" = None,
    ) -> Self:
        norms = map_array(folder / "norms.npy")
        if vectors.ndim != 2 or norms.shape != (len(vectors),) or norms.dtype != np.float32:
            raise ValueError(f"{folder.name} holds norms of other rows")
        codes = Codes.load(folder, *vectors.shape) if _is_coded(vectors) else None
        return cls(vectors, metric, norms, codes)

    def __len__(self) -> int:
        return len(self._vectors)

    @property
    def has_copy(self) -> bool:
        """Whether there is an 8-bit copy of the rows, which makes a scan several times as fast."""
        return self._codes is not None

    @property
    def nbytes(self) -> int:
        return self.norms.nbytes + (0 if self._codes is None else self._codes.nbytes)


def _is_coded(vectors: Float32) -> bool:
    return len(vectors) >= _CODED_ROWS and vectors.shape[1] >= _CODED_DIMENSION


def search_matrix(
    vectors: Float32,
    norms: Float32,
    metric: Metric,
    queries: Float32,
    k: int,
    allowed: Mask | None = None,
    order: Int64 | None = None,
    codes: Codes | None = None,
) -> Neighbors:
    """The k best of `vectors` [n, d], with L2 norms `norms` [n], for each of `queries` [m, d].

    Ties are broken by ascending `order` [n], which defaults to the position; `codes`, of the same vectors, know the
    position only.
    """
    compared = len(vectors)
    if allowed is not None:
        compared = int(np.count_nonzero(allowed))
        if compared == len(vectors):
            allowed = None
    k_found = min(k, compared)
    if k_found == 0:
        positions, scores = np.empty((len(queries), 0), np.int64), np.empty((len(queries), 0), np.float32)
    elif kernels.loaded() and is_plain(vectors) and is_plain(norms):
        queries = np.ascontiguousarray(queries, np.float32)
        if codes is not None and order is None:
            positions, scores = _by_codes(vectors, metric, queries, k_found, compared, allowed, codes)
        else:
            positions, scores = _by_kernel(vectors, norms, metric, queries, k_found, allowed, order)
    else:
        positions, scores = _by_products(vectors, norms, metric, queries, k_found, allowed, order)
    if k_found < k:
        few = positions, scores
        positions, scores = np.full((len(queries), k), -1, np.int64), np.full((len(queries), k), -np.inf, np.float32)
        positions[:, :k_found], scores[:, :k_found] = few
    yes = np.ones(len(queries), np.bool_)
    return Neighbors(positions, scores, np.full(len(queries), compared, np.int64), proven=yes, scanned=yes)


def _by_codes(
    vectors: Float32, metric: Metric, queries: Float32, k: int, compared: int, allowed: Mask | None, codes: Codes
) -> tuple[Int64, Float32]:
    """The k best of all rows or of the `compared` allowed ones: positions and scores [m, k]."""
    rows = None
    if allowed is not None and compared * _GATHER_CODES_SHARE < len(vectors):
        rows, allowed = np.flatnonzero(allowed), None
    elif allowed is not None:
        allowed = np.ascontiguousarray(allowed)
    return codes.nearest(vectors, metric, queries, k, rows, allowed)


def _by_kernel(
    vectors: Float32,
    norms: Float32,
    metric: Metric,
    queries: Float32,
    k: int,
    allowed: Mask | None,
    order: Int64 | None,
) -> tuple[Int64, Float32]:
    """The k best rows, of which there are as many: positions and scores [m, k]."""
    from apps.engine.kernels import exact

    positions, scores = np.empty((len(queries), k), np.int64), np.empty((len(queries), k), np.float32)
    rows = _NONE if allowed is None else np.flatnonzero(allowed)
    order = _NONE if order is None else np.ascontiguousarray(order, np.int64)
    exact.nearest(metric.number, vectors, norms, queries, rows, allowed is not None, order, positions, scores)
    return positions, scores


def _by_products(
    vectors: Float32,
    norms: Float32,
    metric: Metric,
    queries: Float32,
    k: int,
    allowed: Mask | None,
    order: Int64 | None,
) -> tuple[Int64, Float32]:
    """What `_by_kernel` does, by numpy."""
    positions, scores = np.empty((len(queries), k), np.int64), np.empty((len(queries), k), np.float32)
    rows = None
    if allowed is not None and np.count_nonzero(allowed) * _GATHER_SHARE < len(vectors):
        rows = np.flatnonzero(allowed)
        vectors, norms, allowed = vectors[rows], norms[rows], None
    step = max(1, _BLOCK_SCORES // len(vectors))
    for start in range(0, len(queries), step):
        block = queries[start : start + step]
        for i, (query, product) in enumerate(zip(block, products(block, vectors), strict=True), start):
            candidates = _candidates(metric, product, norms, query, k, allowed)
            exact = exact_scores(metric, vectors, query, candidates)
            if rows is not None:
                candidates = rows[candidates]
            chosen = selection.best(exact, candidates if order is None else order[candidates], k)
            positions[i], scores[i] = candidates[chosen], exact[chosen]
    return positions, scores


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
