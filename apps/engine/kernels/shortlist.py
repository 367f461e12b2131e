"""The reading of short-lists; `apps.engine.indexes.rerank` says what that is, and has the same in numpy."""

import numpy as np
from numba import njit, types

from apps.engine.kernels.exact import EUCLIDEAN, best_first, borrowed, fetch, norm, offer, read_only, score

_AHEAD = 8


@njit(nogil=True, forceinline=True)
def _alike(metric, value, factor):
    """An exact score in the unit of rough ones."""
    wide = np.float64(value) * factor
    return -wide * wide if metric == EUCLIDEAN else wide


@njit(
    types.void(
        types.int64,
        read_only(types.float32, 2),
        read_only(types.float32, 2),
        read_only(types.float64, 1),
        read_only(types.int64, 2),
        read_only(types.float32, 2),
        read_only(types.int64, 2),
        read_only(types.boolean, 1),
        read_only(types.int64, 1),
        read_only(types.float64, 1),
        types.int64[:, ::1],
        types.float32[:, ::1],
        types.boolean[::1],
    ),
    cache=True,
    nogil=True,
    error_model="numpy",
)
def read(metric, vectors, queries, factors, firsts, rough, pairs, allowed, looks, sure, positions, found, enough):
    """Write to `positions`, `found` [m, k] and `enough` [m] what `shortlist.read` answers.

    `allowed` is empty where all rows are. After `looks` firsts, ascending, a list is looked at; `sure` says how many
    standard errors count as out of reach then. Without `looks`, `rough` and `factors` are not used, nor `enough` told.
    """
    length, k = firsts.shape[1], positions.shape[1]
    vectors, firsts, rough, of_copies = borrowed(vectors), borrowed(firsts), borrowed(rough), borrowed(pairs)[0]
    order = np.empty(0, np.int64)
    # Of the first so many of a list: how many errors, their sum, and that of their squares.
    known = length + 1 if len(looks) else 1
    counts, sums, squares = np.zeros(known, np.int64), np.zeros(known), np.zeros(known)
    for i in range(len(queries)):
        query, factor = queries[i].astype(np.float64), factors[i] if len(looks) else 1.0
        query_norm = norm(queries, i, query)
        heap_scores, heap_rows = found[i], positions[i]
        held, look = 0, 0
        enough[i] = False
        for place in range(length):
            row = firsts[i, place]
            if row < 0:
                break
            next_row = firsts[i, place + _AHEAD] if place + _AHEAD < length else -1
            if next_row >= 0 and (not len(allowed) or allowed[next_row]):
                fetch(vectors, next_row)
            count, total, squared = 0, 0.0, 0.0
            if len(looks):
                count, total, squared = counts[place], sums[place], squares[place]
            copy = np.searchsorted(of_copies, row) if len(of_copies) else 0
            first = row
            while True:
                if not len(allowed) or allowed[row]:
                    value = score(metric, vectors, row, query, query_norm)
                    held = offer(heap_scores, heap_rows, order, held, value, row)
                    if len(looks):
                        error = _alike(metric, value, factor) - np.float64(rough[i, place])
                        count, total, squared = count + 1, total + error, squared + error * error
                if copy == len(of_copies) or of_copies[copy] != first:
                    break
                row = pairs[1, copy]
                copy += 1
            if not len(looks):
                continue
            done = place + 1
            counts[done], sums[done], squares[done] = count, total, squared
            if look == len(looks) or done != looks[look]:
                continue
            half = done // 2
            count -= counts[half]
            if held == k and count:
                mean = (total - sums[half]) / count
                variance = max(0.0, (squared - squares[half]) / count - mean * mean)
                reach = np.float64(rough[i, place]) + mean + sure[look] * np.sqrt(variance)
                if _alike(metric, heap_scores[0], factor) >= reach:
                    enough[i] = True
                    break
            look += 1
        best_first(heap_scores, heap_rows, order, held)
