"""Scores and rows packed into one whole number each, which is greater the better the row is: it has a higher score or,
at the same score, a lower position. So one sort without a comparison of two things finds the best.
"""

import numpy as np

from apps.engine.kernels import jit

_ROW_BITS = 32
_LAST_ROW = (1 << _ROW_BITS) - 1
_MAGNITUDE = 0x7FFFFFFF


@jit.inline
def _flip(bits):
    """The bits of a float32 as a whole number of the same order, or back: those of negative ones count downwards."""
    return bits ^ _MAGNITUDE if bits < 0 else bits


@jit.inline
def pack(score, row):
    """`score` is float32, and `row` below 2^32."""
    return (np.int64(_flip(np.float32(score).view(np.int32))) << _ROW_BITS) | (_LAST_ROW - row)


@jit.inline
def keep_best(pool, k):
    """Move the best k of `pool`, which has room for twice as many, to its beginning; return k."""
    pool.sort()
    pool[:k] = pool[len(pool) - k :]
    return k


@jit.inline
def unpack_best(pool, found, rows):
    """Write the best of `pool` to `found` and `rows` [k], best first, and mark the places behind them as empty."""
    pool.sort()
    count = min(len(pool), len(rows))
    for place in range(count):
        packed = pool[len(pool) - 1 - place]
        found[place] = np.int32(_flip(packed >> _ROW_BITS)).view(np.float32)
        rows[place] = _LAST_ROW - (packed & _LAST_ROW)
    found[count:] = -np.inf
    rows[count:] = -1
