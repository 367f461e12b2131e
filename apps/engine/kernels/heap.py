"""The best rows so far: a binary heap with the worst of them on top, in two arrays of k.

A better row has a higher score or, at the same score, a lower rank: its number in `order` [n], or its position where
`order` is empty.
"""

import numpy as np

from apps.engine.kernels import jit


@jit.inline
def _is_worse(found, rows, order, one, other):
    if found[one] != found[other]:
        return found[one] < found[other]
    if len(order):
        return order[rows[one]] > order[rows[other]]
    return rows[one] > rows[other]


@jit.inline
def _swap(found, rows, one, other):
    found[one], found[other] = found[other], found[one]
    rows[one], rows[other] = rows[other], rows[one]


@jit.inline
def _sink(found, rows, order, count):
    """Put the top of the heap of `count` rows where it belongs."""
    place = 0
    while 2 * place + 1 < count:
        child = 2 * place + 1
        if child + 1 < count and _is_worse(found, rows, order, child + 1, child):
            child += 1
        if not _is_worse(found, rows, order, child, place):
            break
        _swap(found, rows, place, child)
        place = child


@jit.inline
def heap_push(found, rows, order, count, value, row):
    """Take `row` into the heap of the `count` best so far if it is one of them; return their number now."""
    if count < len(rows):
        place = count
        found[place], rows[place] = value, row
        while place > 0 and _is_worse(found, rows, order, place, (place - 1) // 2):
            _swap(found, rows, place, (place - 1) // 2)
            place = (place - 1) // 2
        return count + 1
    if value < found[0]:
        return count
    worst, its_row = found[0], rows[0]
    found[0], rows[0] = value, row
    if value == worst and (order[row] > order[its_row] if len(order) else row > its_row):
        found[0], rows[0] = worst, its_row
    else:
        _sink(found, rows, order, count)
    return count


@jit.inline
def heap_sort(found, rows, order, count):
    """Turn the heap of `count` rows into a list, best first, and mark the places behind them as empty."""
    for last in range(count - 1, 0, -1):
        _swap(found, rows, 0, last)
        _sink(found, rows, order, last)
    found[count:] = -np.inf
    rows[count:] = -1
