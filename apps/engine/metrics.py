"""Cosine, dot and euclidean: the exact score of a row, and quick scores with a proven bound on their error.

A score is higher for a better row: the cosine, the inner product, or minus the L2 distance.

*Exact* scores are computed row by row in float64 from the stored float32 values and rounded to float32 once. The
product of two float32 values is exact in float64, and numpy adds up a contiguous row in an order that depends on its
length alone; so two equal rows get equal scores wherever they lie, and one row gets the same score alone or in a batch.

*Quick* scores come from a float32 product (BLAS). For any order of summation, with or without fused multiply-add,
    |fl(x.q) - x.q| <= gamma * sum|x_i q_i| <= gamma * |x||q|,   gamma = d*u / (1 - d*u),   u = 2**-24
(Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., section 3.1), where gradual or sudden underflow adds
at most 2d * 2**-126. `relative_bound` is more than twice gamma plus the few roundings made around the product, so that
it also covers the rounding of the exact score to float32: a row whose quick score is more than two bounds below that of
k other rows cannot tie with them.
"""

from enum import Enum

import numpy as np
from numpy.typing import NDArray

_UNIT = 2.0**-24
_UNDERFLOW = 2.0**-126
# Below this norm, float32 products may lose their relative accuracy; such rows are always scored exactly.
TINY_NORM = 1e-18


class Metric(Enum):
    """How two vectors are compared."""

    COSINE = "cosine"
    DOT = "dot"
    EUCLIDEAN = "euclidean"

    def distance(self, score: float) -> float:
        """The distance that goes with a score, lower is better: 1 - cosine, minus the inner product, or L2."""
        return 1.0 - score if self is Metric.COSINE else -score + 0.0


def relative_bound(dimension: int) -> float:
    """Bound on the error of a quick score, relative to the norms; see the head of this module."""
    return 2.0 * (dimension + 16) * _UNIT / (1.0 - (dimension + 16) * _UNIT)


def underflow_bound(dimension: int) -> float:
    """What underflow in a float32 product of this dimension can add to its error."""
    return 4.0 * dimension * _UNDERFLOW


def row_norms(vectors: NDArray[np.float32]) -> NDArray[np.float64]:
    """L2 norms [n] of `vectors` [n, dimension], computed in float64 in blocks of bounded memory."""
    norms = np.empty(len(vectors), np.float64)
    step = max(1, (1 << 21) // max(1, vectors.shape[1]))
    for start in range(0, len(vectors), step):
        block = vectors[start : start + step].astype(np.float64)
        norms[start : start + step] = np.sqrt((block * block).sum(axis=1))
    return norms


def exact_scores(
    metric: Metric,
    vectors: NDArray[np.float32],
    query: NDArray[np.float32],
    positions: NDArray[np.int64] | None = None,
) -> NDArray[np.float32]:
    """Scores of `vectors` [n, dimension] against `query` [dimension]; higher is better, float32.

    `positions` [m] names the rows to score, all by default; they are gathered in blocks of bounded memory.
    """
    count = len(vectors) if positions is None else len(positions)
    scores = np.empty(count, np.float32)
    wide_query = query.astype(np.float64)
    query_norm = np.sqrt((wide_query * wide_query).sum())
    step = max(1, (1 << 21) // max(1, vectors.shape[1]))
    for start in range(0, count, step):
        part = slice(start, start + step)
        rows = (vectors[part] if positions is None else vectors[positions[part]]).astype(np.float64)
        if metric is Metric.EUCLIDEAN:
            difference = rows - wide_query
            block = -np.sqrt((difference * difference).sum(axis=1))
        else:
            block = (rows * wide_query).sum(axis=1)
            if metric is Metric.COSINE:
                norms = np.sqrt((rows * rows).sum(axis=1)) * query_norm
                block = block / norms
        scores[part] = block
    # Adding zero turns -0.0 into 0.0, which compare equal and would print differently.
    scores += np.float32(0.0)
    return scores
