"""The k nearest rows of a matrix, read once: a float32 product, of which `metrics` bounds the error, decides on all but
a few, and these are scored exactly. A row of 384 floats in the cache takes some 17 ns.
"""

import numpy as np
from numba import njit, types

from apps.engine.kernels import jit
from apps.engine.kernels.heap import heap_push, heap_sort
from apps.engine.kernels.intrinsics import borrow
from apps.engine.kernels.scores import COSINE, DOT, SPACE, norm, score

_CHUNK = 256
# Rows of a chunk that are looked at one by one where one of them may be among the best.
_GROUP = 32


@jit.inline
def threshold(metric, worst, query_norm, dimension):
    """A row whose exact score is `worst` or better has x.q / |x| (cosine), x.q (dot; but for the rounding of a float64
    sum) or -|x - q|^2 / 2 (euclidean) at or above this number."""
    if worst == -np.inf:
        return -1e200
    # What rounds to `worst` or above lies above the float32 before it; float64 sums err by less than the slack.
    below = np.float64(np.nextafter(worst, np.float32(-np.inf)))
    slack = (dimension + 16) * 2.0**-52
    if metric == COSINE:
        return (below - slack) * query_norm
    if metric == DOT:
        return below
    return -0.5 * below * below * (1 + 4 * slack)


@jit.inline
def _limits(metric, worst, query_norm, dimension):
    """Numbers (a, b, c): a row whose exact score is `worst` or better, whose L2 norm in float32 is n and whose product
    with the query in float32 is p, has p + (a * n + b) * n + c >= 0."""
    least = threshold(metric, worst, query_norm, dimension)
    relative = 2.0 * (dimension + 16) * 2.0**-24 / (1.0 - (dimension + 16) * 2.0**-24)
    underflow = 4.0 * dimension * 2.0**-126 + query_norm * 2.0**-148
    if metric == COSINE:
        return 0.0, relative * query_norm - least, underflow
    if metric == DOT:
        return 0.0, relative * query_norm, underflow - least
    return (
        0.5 * relative - 0.5,
        relative * query_norm,
        underflow - least + (2.0**-40 - 0.5) * query_norm * query_norm,
    )


@njit(nogil=True, fastmath={"reassoc", "contract", "nsz"}, forceinline=True)
def _quick_product(vectors, row, query):
    """The product in float32 of a row of `vectors` [n, d] and `query` [d], added up in any order."""
    total = np.float32(0)
    for i in range(vectors.shape[1]):
        total += vectors[row, i] * query[i]
    return total


@jit.kernel(types.void(jit.INT, jit.VECTORS, jit.FLOATS, jit.VECTORS, jit.INTS, jit.INTS, *jit.ANSWERS))
def search(metric, vectors, norms, queries, rows, order, positions, found):
    """Write to `positions` and `found` [m, k] the k best for each of `queries` [m, d] of the rows of `vectors` [n, d]
    with L2 norms `norms` [n]: of those at `rows`, or of all where that is empty."""
    vectors, order, positions, found = borrow(vectors), borrow(order), borrow(positions), borrow(found)
    number, dimension = queries.shape
    gather = len(rows) > 0
    size = len(rows) if gather else len(vectors)
    wide, lanes = queries.astype(np.float64), np.empty(SPACE)
    query_norms, counts = np.empty(number), np.zeros(number, np.int64)
    for j in range(number):
        query_norms[j] = norm(queries, j, wide[j], lanes)
    products, lengths = np.empty(_CHUNK, np.float32), np.empty(_CHUNK, np.float32)
    for base in range(0, size, _CHUNK):
        chunk = min(_CHUNK, size - base)
        for i in range(chunk):
            lengths[i] = norms[rows[base + i] if gather else base + i]
        for j in range(number):
            query, plain, heap_scores, heap_rows = wide[j], borrow(queries)[j], found[j], positions[j]
            for i in range(chunk):
                products[i] = _quick_product(vectors, rows[base + i] if gather else base + i, plain)
            worst = heap_scores[0] if counts[j] == len(heap_rows) else np.float32(-np.inf)
            a, b, c = _limits(metric, worst, query_norms[j], dimension)
            for first in range(0, chunk, _GROUP):
                group = slice(first, min(chunk, first + _GROUP))
                hopeful = 0
                for i in range(group.start, group.stop):
                    hopeful |= products[i] + (a * lengths[i] + b) * lengths[i] + c >= 0
                if not hopeful:
                    continue
                for i in range(group.start, group.stop):
                    if products[i] + (a * lengths[i] + b) * lengths[i] + c >= 0:
                        row = rows[base + i] if gather else base + i
                        value = score(metric, vectors, row, query, query_norms[j], lanes)
                        counts[j] = heap_push(heap_scores, heap_rows, order, counts[j], value, row)
                        if counts[j] == len(heap_rows):
                            a, b, c = _limits(metric, heap_scores[0], query_norms[j], dimension)
    for j in range(number):
        heap_sort(found[j], positions[j], order, counts[j])
