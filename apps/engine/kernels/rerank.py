"""Exact scores of lists of rows, as far as needed; `indexes.rerank` says what that is."""

import numpy as np
from numba import types

from apps.engine.kernels import jit
from apps.engine.kernels.heap import heap_push, heap_sort
from apps.engine.kernels.intrinsics import borrow, prefetch
from apps.engine.kernels.packed import keep_best, pack, unpack_best
from apps.engine.kernels.scores import EUCLIDEAN, SPACE, norm, score

# Queries, factors, representatives, rough scores, duplicates.
_PAIRS = jit.read_only(jit.INT, 2)
_LISTS = jit.VECTORS, jit.REALS, _PAIRS, jit.VECTORS, _PAIRS
_AHEAD = 8


@jit.inline
def _scale(metric, value, factor):
    """An exact score in the unit of rough ones."""
    wide = np.float64(value) * factor
    return -wide * wide if metric == EUCLIDEAN else wide


@jit.kernel(types.void(jit.INT, jit.VECTORS, *_LISTS, jit.FLAGS, jit.INTS, jit.REALS, *jit.ANSWERS, types.boolean[::1]))
def rerank(
    metric, vectors, queries, factors, representatives, rough, pairs, allowed, checks, errors, positions, found, enough
):
    """Write to `positions`, `found` [m, k] and `enough` [m] what `rerank.rerank` returns.

    `allowed` is empty where all rows are allowed. A list is checked after each number of representatives in `checks`,
    ascending; `errors` has the standard errors that are required then. Without `checks`, `rough` and `factors` are not
    used, and `enough` stays false.

    A check asks for the k-th score so far, which a heap knows. Without checks, rows are sorted when all are there: in
    lists, which begin with the best rows, most rows would climb or sink through the whole heap.
    """
    length, k = representatives.shape[1], positions.shape[1]
    vectors, representatives, rough = borrow(vectors), borrow(representatives), borrow(rough)
    duplicated = borrow(pairs)[0]
    order, lanes = np.empty(0, np.int64), np.empty(SPACE)
    # For each beginning of a list: the number of errors, their sum, and that of their squares.
    known = length + 1 if len(checks) else 1
    counts, sums, squares = np.zeros(known, np.int64), np.zeros(known), np.zeros(known)
    pool = np.empty(0 if len(checks) else 2 * max(length, k), np.int64)
    for i in range(len(queries)):
        query, factor = queries[i].astype(np.float64), factors[i] if len(checks) else 1.0
        query_norm = norm(queries, i, query, lanes)
        heap_scores, heap_rows = found[i], positions[i]
        held, check = 0, 0
        enough[i] = False
        for place in range(length):
            row = representatives[i, place]
            if row < 0:
                break
            next_row = representatives[i, place + _AHEAD] if place + _AHEAD < length else -1
            if next_row >= 0 and (not len(allowed) or allowed[next_row]):
                prefetch(vectors, next_row)
            count, total, squared = 0, 0.0, 0.0
            if len(checks):
                count, total, squared = counts[place], sums[place], squares[place]
            duplicate = np.searchsorted(duplicated, row) if len(duplicated) else 0
            representative = row
            while True:
                if not len(allowed) or allowed[row]:
                    value = score(metric, vectors, row, query, query_norm, lanes)
                    if not len(checks):
                        if held == len(pool):
                            held = keep_best(pool, k)
                        pool[held] = pack(value, row)
                        held += 1
                    else:
                        held = heap_push(heap_scores, heap_rows, order, held, value, row)
                        error = _scale(metric, value, factor) - np.float64(rough[i, place])
                        count, total, squared = count + 1, total + error, squared + error * error
                if duplicate == len(duplicated) or duplicated[duplicate] != representative:
                    break
                row = pairs[1, duplicate]
                duplicate += 1
            if not len(checks):
                continue
            done = place + 1
            counts[done], sums[done], squares[done] = count, total, squared
            if check == len(checks) or done != checks[check]:
                continue
            half = done // 2
            count -= counts[half]
            if held == k and count:
                mean = (total - sums[half]) / count
                variance = max(0.0, (squared - squares[half]) / count - mean * mean)
                reach = np.float64(rough[i, place]) + mean + errors[check] * np.sqrt(variance)
                if _scale(metric, heap_scores[0], factor) >= reach:
                    enough[i] = True
                    break
            check += 1
        if len(checks):
            heap_sort(heap_scores, heap_rows, order, held)
        else:
            unpack_best(pool[:held], heap_scores, heap_rows)
