"""Finds many byte strings in a sorted list of packed ones (`apps.engine.strings`): a bisection for each, some 0.2
microseconds instead of ten. And copies many short strings, some 20 nanoseconds each."""

import numpy as np
from numba import types

from apps.engine.kernels import jit

_BLOCK = 16
_LONG = jit.read_only(types.uint64, 1)


@jit.inline
def _locate(blocks, prefixes, ends, i):
    """Where the block of packed string i starts, the length of its prefix, and where the rest of the string starts and
    ends."""
    block = i // _BLOCK
    start, prefix = np.int64(blocks[block]), np.int64(prefixes[block])
    rest = np.int64(ends[i - 1]) if i % _BLOCK else prefix
    return start, prefix, start + rest, start + np.int64(ends[i])


@jit.kernel(
    *(
        types.int64[::1](jit.BYTES, _LONG, jit.BYTES, jit.read_only(end, 1), jit.INT, jit.INT, jit.BYTES, _LONG)
        for end in (types.uint16, types.uint32)
    )
)
def find_each(text, blocks, prefixes, ends, first, last, wanted, wanted_starts):
    """The place of each wanted string among the packed strings from `first` up to `last`, which ascend; -1 for one that
    is not there. Wanted string i begins at `wanted_starts[i]` and ends where the next one begins."""
    found = np.empty(len(wanted_starts) - 1, np.int64)
    for i in range(len(found)):
        begin, size = np.int64(wanted_starts[i]), np.int64(wanted_starts[i + 1] - wanted_starts[i])
        low, high, place = first, last, -1
        while low < high:
            middle = (low + high) >> 1
            start, prefix, rest, end = _locate(blocks, prefixes, ends, middle)
            length = prefix + end - rest
            order, at, shared = np.int64(0), 0, min(size, length)
            while order == 0 and at < shared:
                there = start + at if at < prefix else rest + at - prefix
                order = np.int64(text[there]) - np.int64(wanted[begin + at])
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


@jit.kernel(
    *(
        types.Tuple((types.uint8[::1], types.uint64[::1]))(jit.BYTES, _LONG, jit.BYTES, jit.read_only(end, 1), jit.INTS)
        for end in (types.uint16, types.uint32)
    )
)
def take(text, blocks, prefixes, ends, places):
    """The bytes of the packed strings at `places` [n], and where each starts among them; the last is the end."""
    starts = np.zeros(len(places) + 1, np.uint64)
    length = 0
    for i in range(len(places)):
        _, prefix, rest, end = _locate(blocks, prefixes, ends, places[i])
        length += prefix + end - rest
        starts[i + 1] = length
    found = np.empty(length, np.uint8)
    length = 0
    for i in range(len(places)):
        start, prefix, rest, end = _locate(blocks, prefixes, ends, places[i])
        for at in range(start, start + prefix):
            found[length] = text[at]
            length += 1
        for at in range(rest, end):
            found[length] = text[at]
            length += 1
    return found, starts


@jit.kernel(types.void(jit.BYTES, jit.INTS, jit.INTS, types.uint8[::1]))
def copy_ranges(text, starts, lengths, found):
    """Write to `found` the ranges of `text` that start at `starts` [n] and have `lengths` [n], one after another."""
    end = 0
    for i in range(len(starts)):
        start = starts[i]
        for at in range(lengths[i]):
            found[end + at] = text[start + at]
        end += lengths[i]
