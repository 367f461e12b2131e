"""Cosine, dot and euclidean: the exact score of a row, and quick scores with a proven bound on their error.

A score is higher for a better row: the cosine, the inner product, or minus the L2 distance.

*Exact* scores are computed row by row in float64 from the stored float32 values and rounded to float32 once. A row is
added up in one fixed order, by `kernels.scores` and by numpy until that is loaded: in sixteen lanes, of which numpy
adds whole blocks, as it does not reorder a sum over an outer axis. So two equal rows get equal scores wherever they
lie, and one row gets the same score alone or in a batch, on every machine.

*Quick* scores come from a float32 product (BLAS). For any order of summation, with or without fused multiply-add,
    |fl(x.q) - x.q| <= gamma * sum|x_i q_i| <= gamma * |x||q|,   gamma = d*u / (1 - d*u),   u = 2**-24
(Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., section 3.1), where gradual or sudden underflow adds
at most 2d * 2**-126. `relative_bound` is more than twice gamma plus the few roundings made around the product, so that
it also covers the rounding of the exact score to float32: a row whose quick score is more than two bounds below that of
k other rows cannot tie with them.
"""

from enum import Enum
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from apps.engine import kernels

_LANES = 16
_UNIT = 2.0**-24
_UNDERFLOW = 2.0**-126
# Below this norm, float32 products may lose their relative accuracy; such rows are always scored exactly.
_TINY_NORM = 1e-18
_NO_ROWS = np.empty(0, np.int64)


class Metric(Enum):
    """How two vectors are compared."""

    COSINE = "cosine"
    DOT = "dot"
    EUCLIDEAN = "euclidean"

    @cached_property
    def number(self) -> int:
        """What the kernels call it."""
        return list(Metric).index(self)

    def distance(self, score: float) -> float:
        """The distance that goes with a score, lower is better: 1 - cosine, minus the inner product, or L2."""
        return 1.0 - score if self is Metric.COSINE else -score + 0.0


def relative_bound(dimension: int) -> float:
    """Bound on the error of a quick score, relative to the norms; see the head of this module."""
    return 2.0 * (dimension + 16) * _UNIT / (1.0 - (dimension + 16) * _UNIT)


def underflow_bound(dimension: int) -> float:
    """What underflow in a float32 product of this dimension can add to its error."""
    return 4.0 * dimension * _UNDERFLOW


def product_bounds(
    metric: Metric, products: NDArray[np.float32], norms: NDArray[np.float32], query: NDArray[np.float32]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Numbers [n] below and above one that orders rows as their exact scores do, from the float32 `products` [n] of
    rows and `query` [d], and the `norms` [n] of the rows."""
    lengths, length = norms.astype(np.float64), float(row_norms(query[None])[0])
    relative, underflow = relative_bound(len(query)), underflow_bound(len(query))
    if metric is Metric.EUCLIDEAN:
        # 2xq - |x|^2 orders rows as -|x - q|^2 does.
        quick = 2.0 * products - lengths * lengths
        slack = relative * (lengths + length) ** 2 + underflow
        return quick - slack, quick + slack
    slack = relative * length * lengths + underflow
    lower, upper = products - slack, products + slack
    if metric is Metric.COSINE:
        lengths[lengths < _TINY_NORM] = np.nan
        lower, upper = np.nan_to_num(lower / lengths, nan=-np.inf), np.nan_to_num(upper / lengths, nan=np.inf)
    return lower, upper


def row_norms(vectors: NDArray[np.float32]) -> NDArray[np.float64]:
    """L2 norms [n] of `vectors` [n, dimension], computed in float64 in blocks of bounded memory."""
    norms = np.empty(len(vectors), np.float64)
    if (kernel := kernels.get("scores")) and is_plain(vectors):
        kernel.norms(vectors, norms)
        return norms
    for part in _blocks(*vectors.shape):
        block = vectors[part].astype(np.float64)
        norms[part] = np.sqrt(_sums(block * block))
    return norms


def unit_rows(wide: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rows of `wide` divided by their L2 norms; a row of zeros stays."""
    norms = np.sqrt((wide * wide).sum(axis=1, keepdims=True))
    units: NDArray[np.float64] = wide / np.where(norms > 0.0, norms, 1.0)
    return units


def exact_scores(
    metric: Metric,
    vectors: NDArray[np.float32],
    query: NDArray[np.float32],
    positions: NDArray[np.int64] | None = None,
) -> NDArray[np.float32]:
    """Scores of `vectors` [n, dimension] against `query` [dimension]; higher is better, float32.

    `positions` [m] names the rows to score, all by default; at most some megabytes are copied.
    """
    count = len(vectors) if positions is None else len(positions)
    scores = np.empty(count, np.float32)
    if (kernel := kernels.get("scores")) and is_plain(vectors):
        places = _NO_ROWS if positions is None else np.ascontiguousarray(positions)
        kernel.scores(metric.number, vectors, np.ascontiguousarray(query, np.float32)[None], places, scores)
        return scores
    wide_query = query.astype(np.float64)
    query_norm = np.sqrt(_sums((wide_query * wide_query)[None]))
    for part in _blocks(count, len(query)):
        rows = (vectors[part] if positions is None else vectors[positions[part]]).astype(np.float64)
        if metric is Metric.EUCLIDEAN:
            difference = rows - wide_query
            block = -np.sqrt(_sums(difference * difference))
        else:
            block = _sums(rows * wide_query)
            if metric is Metric.COSINE:
                block = block / (np.sqrt(_sums(rows * rows)) * query_norm)
        scores[part] = block
    # Adding zero turns -0.0 into 0.0, which compare equal and would print differently.
    scores += np.float32(0.0)
    return scores


def _sums(terms: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sums [n] of the rows of `terms` [n, d], in the order that the head of `kernels.scores` describes."""
    rows, dimension = terms.shape
    whole = dimension - dimension % _LANES
    lanes = np.ascontiguousarray(terms[:, :whole]).reshape(rows, -1, _LANES).sum(axis=1)
    while lanes.shape[1] > 1:
        half = lanes.shape[1] // 2
        lanes = lanes[:, :half] + lanes[:, half:]
    sums: NDArray[np.float64] = lanes[:, 0]
    for column in range(whole, dimension):
        sums = sums + terms[:, column]
    return sums


def _blocks(rows: int, dimension: int) -> list[slice]:
    """Slices of `rows` rows, of some two million elements each."""
    step = max(1, (1 << 21) // max(1, dimension))
    return [slice(start, min(start + step, rows)) for start in range(0, rows, step)]


def is_plain(array: NDArray[np.float32]) -> bool:
    """Whether the kernels take this array as it is."""
    return array.flags.c_contiguous and array.dtype == np.float32
