"""Exact scores of the rows that codes or a graph propose, and longer lists for queries that a first one is too short
for.

A list holds *representatives*, rows that stand for themselves and their duplicates (`duplicates`), best first by rough
scores, as codes give them. It is read from the top, until the k-th score beats what the errors of the rough scores so
far let a later row reach; docs/indexes.md has the rule. Costs some 0.3 microseconds a row of 384 dimensions that is not
in the processor's cache.

Codes and graphs only propose rows. What is reported is `metrics.exact_scores` of the stored rows, ties by ascending
position, so an approximate index can miss a row and never misjudges one.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from apps.engine import kernels
from apps.engine.indexes.duplicates import Duplicates
from apps.engine.indexes.matrix import Matrix, Neighbors
from apps.engine.vectors import Float32, Float64, Int64, Mask

_FIRST_CHECK, _CHECK_STEP = 64, 32
_STANDARD_ERRORS, _STANDARD_ERRORS_AT_END = 3.5, 2.75
# A list that is too short is made longer by this factor.
_GROWTH = 4
# The number of rows that are listed at once, some 30 bytes each.
_LISTED_ROWS = 1 << 20
_ALL = np.empty(0, np.bool_)
_NO_SCORES, _NO_FACTORS = np.empty((0, 0), np.float32), np.empty(0)


class Candidates(NamedTuple):
    """What m queries find in lists of proposed rows: positions and scores [m, k] as in `Neighbors`, the number of rows
    that each query was compared with [m], and whether its list was long enough [m]."""

    positions: Int64
    scores: Float32
    compared: Int64
    enough: Mask


def search_lists(
    queries: Float32,
    k: int,
    allowed: Mask | None,
    *,
    matrix: Matrix,
    length: int,
    pays: Callable[[int], bool],
    search: Callable[[Float32, int], Candidates],
    listed: int | None = None,
) -> Neighbors | None:
    """What `search` finds for `queries` [m, d] in lists of `length`, then, for those whose list was too short, in lists
    four times as long, and so on while a length `pays`; and what an exact search of `matrix` finds then. None where the
    first length does not pay. `listed` is the number of rows that a query lists, where that is not the length.

    `compared` is the sum over all attempts, but no more than the number of rows.
    """
    if not pays(length):
        return None
    positions, scores, compared, enough = _search_in_blocks(search, queries, length, listed or length)
    proven, scanned = np.zeros((2, len(queries)), np.bool_)
    left = (~enough).nonzero()[0]
    while len(left) and pays(length := length * _GROWTH):
        positions[left], scores[left], more, enough = _search_in_blocks(search, queries[left], length, listed or length)
        compared[left] = np.minimum(compared[left] + more, len(matrix))
        left = left[~enough]
    if len(left):
        found = matrix.search(queries[left], k, allowed)
        positions[left], scores[left], proven[left], scanned[left] = found.positions, found.scores, found.proven, True
        compared[left] = np.minimum(compared[left] + found.compared, len(matrix))
    return Neighbors(positions, scores, compared, proven=proven, scanned=scanned)


def _search_in_blocks(
    search: Callable[[Float32, int], Candidates], queries: Float32, length: int, listed: int
) -> Candidates:
    """What `search` finds, called with so few queries at a time that their lists of `listed` rows take bounded
    memory."""
    step = max(1, _LISTED_ROWS // listed)
    if len(queries) <= step:
        return search(queries, length)
    steps = [search(queries[start : start + step], length) for start in range(0, len(queries), step)]
    return Candidates(*(np.concatenate(parts) for parts in zip(*steps, strict=True)))


def rerank(
    matrix: Matrix,
    queries: Float32,
    k: int,
    representatives: Int64,
    *,
    duplicates: Duplicates,
    allowed: Mask | None,
    rough: Float32 | None = None,
    factors: Float64 = _NO_FACTORS,
) -> tuple[Int64, Float32, Mask]:
    """The k best of the lists `representatives` [m, length], each for one of `queries` [m, d], as far as they are read:
    positions and scores [m, k], and whether each was read far enough [m].

    A list ends at its first -1, and then was too short. `allowed` [n] limits what may be found. `rough` [m, length] are
    the scores of the lists, in a unit in which exact scores are multiplied by `factors` [m] (and are minus the square
    of that under euclidean). Without them, lists are read to their end, and are long enough if they are full.
    """
    m, length = representatives.shape
    positions, scores, enough = np.empty((m, k), np.int64), np.empty((m, k), np.float32), np.empty(m, np.bool_)
    checks, errors = _checks(0 if rough is None else length)
    rough = _NO_SCORES if rough is None else rough
    plain = np.ascontiguousarray
    lists = plain(queries), factors, plain(representatives), plain(rough), duplicates.pairs
    given = *lists, _ALL if allowed is None else allowed, checks, errors
    kernels.get("rerank").rerank(matrix.metric.number, matrix.vectors, *given, positions, scores, enough)
    return positions, scores, enough if len(checks) else representatives[:, -1] >= 0


@lru_cache
def _checks(length: int) -> tuple[Int64, Float64]:
    """The numbers of representatives after which a list is checked, and the standard errors that are required then."""
    checks = np.array([*range(_FIRST_CHECK, length, _CHECK_STEP), length] if length else [], np.int64)
    return checks, np.where(checks < length, _STANDARD_ERRORS, _STANDARD_ERRORS_AT_END)
