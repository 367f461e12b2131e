"""The k best of n scores that are known within a bound: candidates that provably hold them, then exact scores.

Costs one pass over the scores and a partition of some n/64 of them.
"""

import numpy as np

from apps.engine.vectors import Float32, Float64, Int64

_COLUMNS = 64
_LOWEST = float(np.finfo(np.float32).min)


def kth_largest_floor(values: Float32 | Float64, k: int) -> float:
    """A number that at least k of `values` [n] reach; close to the k-th largest, and cheap to find.

    The values are laid out in 64 rows; k of the columns' maxima are k different values, so the k-th largest maximum
    is reached by at least k values.
    """
    if k >= len(values):
        return float(values.min(initial=np.inf))
    width = len(values) // _COLUMNS
    if width > 4 * k:
        values = values[: width * _COLUMNS].reshape(_COLUMNS, width).max(axis=0)
    return float(np.partition(values, len(values) - k)[len(values) - k])


def candidates(lower: Float32 | Float64, upper: Float32 | Float64, k: int) -> Int64:
    """Positions of all rows that may be among the k best, ties included, where row i's score lies in
    [lower[i], upper[i]]. Rows with an upper bound of -inf are never among them."""
    floor = max(kth_largest_floor(lower, k), _LOWEST)
    positions = np.flatnonzero(upper >= floor)
    if len(positions) > 4 * k:
        positions = positions[upper[positions] >= kth_largest_floor(lower[positions], k)]
    return positions


def best(scores: Float32, order: Int64, k: int) -> Int64:
    """Indices of the k highest `scores`, ties by ascending `order` (both [n]); at most n indices."""
    return np.lexsort((order, -scores))[:k]
