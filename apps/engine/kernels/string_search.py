"""Finds many byte strings in a sorted list of them: a bisection for each, some 0.2 microseconds instead of five."""

import numpy as np
from numba import njit, types

_BYTES = types.Array(types.uint8, 1, "C", readonly=True)
_SHORT, _LONG = (types.Array(kind, 1, "C", readonly=True) for kind in (types.uint32, types.uint64))


@njit(
    [types.int64[::1](_BYTES, starts, types.int64, types.int64, _BYTES, _LONG) for starts in (_SHORT, _LONG)],
    cache=True,
    nogil=True,
)
def find_each(text, starts, first, last, wanted, wanted_starts):
    """The place of each wanted string among the strings of `text` from `first` up to `last`, which ascend; -1 for one
    that is not there. String i begins at `starts[i]` and ends where the next one begins; so for those wanted."""
    found = np.empty(len(wanted_starts) - 1, np.int64)
    for i in range(len(found)):
        begin, size = np.int64(wanted_starts[i]), np.int64(wanted_starts[i + 1] - wanted_starts[i])
        low, high, place = first, last, -1
        while low < high:
            middle = (low + high) >> 1
            start = np.int64(starts[middle])
            length = np.int64(starts[middle + 1]) - start
            order, at, shared = np.int64(0), 0, min(size, length)
            while order == 0 and at < shared:
                order = np.int64(text[start + at]) - np.int64(wanted[begin + at])
                at += 1
            if order == 0:
                order = length - size
            if order == 0:
                place = middle
                break
            if order < 0:
                low = middle + 1
            else:
                high = middle
        found[i] = place
    return found
