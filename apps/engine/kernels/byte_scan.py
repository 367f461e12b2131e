"""Search in the 8-bit copy of the rows that `byte_codes.ByteCodes` makes; docs/indexes.md derives the bound.

A query is decided on in steps, each of which leaves few rows for the next:
1. the product with a row's coarse plane gives a bound on its score: all rows, 2 ns each for 384 dimensions;
2. rows whose bound reaches the k-th best score known wait, and from time to time the most promising of them are scored,
   which raises the threshold for the others;
3. the fine plane gives a closer bound: hundreds of rows;
4. the exact score: tens of rows.
Rows are taken in chunks, so that a batch reads each from memory once.
"""

import numpy as np
from numba import njit, types
from numba.cpython.unsafe.numbers import trailing_zeros

from apps.engine.kernels import jit
from apps.engine.kernels.byte_products import GROUP, QUERIES, find_passing, multiply_four, row_product
from apps.engine.kernels.exact_scan import threshold
from apps.engine.kernels.heap import heap_push, heap_sort
from apps.engine.kernels.intrinsics import borrow, prefetch
from apps.engine.kernels.scores import EUCLIDEAN, SPACE, norm, score

# The arrays of a `ByteCodes`.
_COPY = jit.read_only(types.uint8, 3), jit.VECTORS, jit.REALS, jit.REALS
_CHUNK = 512
# The number of rows ahead that a single query asks for.
_AHEAD = 64
# What is held of a query, in this order; the letters are those of the derivation.
_NORM, _SHIFT, _ALONG, _REACH, _STEP, _COARSE, _FINE = range(7)


@jit.inline
def _length(values):
    total = 0.0
    for value in values:
        total += value * value
    return np.sqrt(total)


@jit.inline
def _prepare(metric, queries, wide, mean, longest, codes, prepared, lanes):
    """Fill `codes` [m, w] int8 and `prepared` [m, 7] from `queries` [m, d] and `wide`, the same in float64.

    norm    |q|
    shift   by how much what `threshold` asks of a row is more than what T must reach
    along   t
    reach   Z
    step    u
    coarse  what is added to u times a product with the coarse plane: for the offset of its numbers, and |c||h|
    fine    the same for both planes
    """
    dimension = len(mean)
    centre = _length(mean)
    rest = np.empty(dimension)
    for j in range(len(queries)):
        length, along = norm(queries, j, wide[j], lanes), 1.0
        if metric == EUCLIDEAN:
            rest[:] = wide[j] - mean
            reach = _length(rest)
            shift = -0.5 * reach * reach * (1 - 2.0**-38)
        else:
            rest[:] = wide[j]
            along = 0.0
            if centre > 0.0:
                for i in range(dimension):
                    along += wide[j, i] * (mean[i] / centre)
                for i in range(dimension):
                    rest[i] -= along * (mean[i] / centre)
            shift = along * centre + 2.0**-36 * centre * length
            reach = _length(rest) + 2.0**-12 * length
        step, total = np.abs(rest).max() / 127.0, 0.0
        if step > 0.0:
            for i in range(dimension):
                code = np.rint(rest[i] / step)
                codes[j, i] = np.int8(code)
                rest[i] -= step * code
                total += code
        lost = longest * _length(rest)
        prepared[j, _NORM], prepared[j, _SHIFT], prepared[j, _ALONG] = length, shift, along
        prepared[j, _REACH], prepared[j, _STEP] = reach * (1 + 2.0**-20), step
        prepared[j, _COARSE], prepared[j, _FINE] = lost - 112 * step * total, lost - 120 * step * total


@jit.inline
def _refine(plane, numbers, row, product, codes, query, j):
    """The closer bound on a row, from its products with the coarse plane and with the fine one, `plane`."""
    product = 16 * product + row_product(plane, row, codes, j)
    return (
        numbers[row, 0] * (query[_STEP] * product + query[_FINE])
        + numbers[row, 1] * query[_ALONG]
        + numbers[row, 3] * query[_REACH]
    )


@njit(nogil=True)
def _settle(matrix, asked, waiting, best, j, left, count, floor, final):
    """Score the most promising of the `left` rows that wait on query `j`, and all that may be among the best if this
    is `final`, or else as many as it takes to be left with half of them.

    Returns the number of rows that still wait, the number in the heap of the best, which was `count`, and what a bound
    must reach now, which was `floor`.
    """
    plane, numbers, vectors = borrow(matrix[0]), borrow(matrix[1]), borrow(matrix[2])
    metric, codes, query, wide = asked[0], borrow(asked[1]), borrow(asked[2])[j], borrow(asked[3])[j]
    bounds, rows, products = borrow(waiting[0])[j], borrow(waiting[1])[j], borrow(waiting[2])[j]
    found, positions, none = borrow(best[0])[j], borrow(best[1])[j], borrow(waiting[5])
    lanes = borrow(waiting[6])
    enough, most, refined = left // 2, len(found), 0
    while left:
        most = min(most, left)
        highest, places, chosen = borrow(waiting[3])[:most], borrow(waiting[4])[:most], 0
        for i in range(left):
            if chosen < most or bounds[i] >= highest[0]:
                chosen = heap_push(highest, places, none, chosen, np.float32(bounds[i]), i)
        for i in places:
            prefetch(plane, rows[i])
            prefetch(numbers, rows[i])
        for i in places:
            bound = bounds[i]
            if i >= refined:
                bound = _refine(plane, numbers, rows[i], products[i], codes, query, j)
            if bound >= floor:
                value = score(metric, vectors, rows[i], wide, query[_NORM], lanes)
                count = heap_push(found, positions, none, count, value, rows[i])
                if count == len(found):
                    reached = threshold(metric, found[0], query[_NORM], vectors.shape[1]) - query[_SHIFT]
                    floor = max(floor, reached)
            bounds[i] = -np.inf
        if final:
            for i in range(refined, left):
                if bounds[i] >= floor:
                    prefetch(plane, rows[i])
                    prefetch(numbers, rows[i])
        kept = 0
        for i in range(left):
            bound = bounds[i]
            if final and i >= refined and bound >= floor:
                bound = _refine(plane, numbers, rows[i], products[i], codes, query, j)
            if bound >= floor:
                bounds[kept], rows[kept], products[kept] = bound, rows[i], products[i]
                kept += 1
        left = kept
        if final:
            refined = left
        elif left <= enough:
            break
        most *= 2
    return left, count, floor


@jit.kernel(types.int64(jit.INT, jit.INT))
def capacity(k, rows):
    """The number of rows that may wait on a query, 20 bytes each."""
    return 1024 + min(64 * k, rows)


@jit.kernel(types.void(jit.INT, *_COPY, jit.VECTORS, jit.VECTORS, jit.INTS, jit.FLAGS, *jit.ANSWERS))
def search(metric, planes, numbers, mean, longest, vectors, queries, rows, allowed, positions, found):
    """Write to `positions` and `found` [m, k] the k best rows for each of `queries` [m, d].

    Looks at the rows of the list `rows`, which ascends, or at all rows where it is empty. Of these, only rows that are
    true in `allowed` [n] are results, unless it is empty. The copy is that of `byte_codes.ByteCodes`.
    """
    number, gather = len(queries), len(rows) > 0
    size = len(rows) if gather else len(numbers)
    wide, lanes = queries.astype(np.float64), np.empty(SPACE)
    prepared = np.empty((number, 7))
    # Codes of whole fours of queries, aligned to lines of the cache.
    fours, width = (number + QUERIES - 1) // QUERIES * QUERIES, 2 * planes.shape[2]
    memory = np.zeros(fours * width + 64, np.int8)
    aligned = -memory.ctypes.data % 64
    codes = memory[aligned : aligned + fours * width].reshape(fours, width)
    _prepare(metric, queries, wide, mean, longest[0], codes, prepared, lanes)

    plane, most = planes[0], capacity(positions.shape[1], size)
    bounds, candidates = np.empty((number, most)), np.empty((number, most), np.int64)
    their_products = np.empty((number, most), np.int32)
    chosen = (np.empty(most, np.float32), np.empty(most, np.int64), np.empty(0, np.int64))
    matrix, asked, best = (planes[1], numbers, vectors), (metric, codes, prepared, wide), (found, positions)
    waiting = (bounds, candidates, their_products, chosen[0], chosen[1], chosen[2], lanes)
    left, counts, floors = np.zeros(number, np.int64), np.zeros(number, np.int64), np.full(number, -1e200)

    here, fields = np.empty(_CHUNK + _AHEAD, np.int64), np.zeros((3, _CHUNK))
    # One row more, as sixteen of a column are loaded with those of the columns beside it.
    products, sixteen = np.zeros((_CHUNK + 1, QUERIES), np.int32), np.empty(GROUP)
    for base in range(0, size, _CHUNK):
        chunk = min(_CHUNK, size - base)
        for i in range(chunk + _AHEAD):
            here[i] = rows[min(base + i, size - 1)] if gather else base + i
        # A line of the cache holds the numbers of four rows.
        for i in range(base + _CHUNK, base + 2 * _CHUNK, 1 if gather else 4):
            prefetch(numbers, rows[min(i, size - 1)] if gather else i)
        if gather:
            for i in range(chunk):
                for field in range(3):
                    fields[field, i] = numbers[here[i], field]
        else:
            these = numbers[base : base + chunk]
            for i in range(chunk):
                for field in range(3):
                    fields[field, i] = these[i, field]
        # No row passes that is not there.
        fields[2, chunk:] = -np.inf
        for first in range(0, number, QUERIES):
            if number > 1:
                for i in range(0, chunk, 2):
                    other = min(i + 1, chunk - 1)
                    multiply_four(plane, here[i], here[other], codes, first, products, i, other)
            else:
                for i in range(chunk):
                    prefetch(plane, here[i + _AHEAD])
                    products[i, 0] = row_product(plane, here[i], codes, 0)
            for j in range(first, min(first + QUERIES, number)):
                step, offset = 16 * prepared[j, _STEP], prepared[j, _COARSE]
                along, reach = prepared[j, _ALONG], prepared[j, _REACH]
                for group in range(0, chunk, GROUP):
                    query = (step, offset, along, reach, floors[j])
                    bits = find_passing(products, j - first, fields, group, query, sixteen)
                    while bits:
                        i = np.int64(trailing_zeros(bits))
                        bits &= bits - np.uint64(1)
                        row = here[group + i]
                        if len(allowed) == 0 or allowed[row]:
                            place = left[j]
                            bounds[j, place], candidates[j, place] = sixteen[i], row
                            their_products[j, place] = products[group + i, j - first]
                            left[j] = place + 1
                    if left[j] > most - GROUP:
                        left[j], counts[j], floors[j] = _settle(
                            matrix, asked, waiting, best, j, left[j], counts[j], floors[j], False
                        )
    for j in range(number):
        _, count, _ = _settle(matrix, asked, waiting, best, j, left[j], counts[j], floors[j], True)
        heap_sort(found[j], positions[j], np.empty(0, np.int64), count)
