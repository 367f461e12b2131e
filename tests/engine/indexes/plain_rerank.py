"""Exact scores of lists of rows, as far as needed, by numpy: what `apps.engine.kernels.rerank` is compared with."""

from collections.abc import Sequence

import numpy as np

from apps.engine.indexes.duplicates import Duplicates
from apps.engine.indexes.matrix import Matrix
from apps.engine.metrics import Metric, exact_scores
from apps.engine.selection import best
from apps.engine.vectors import Float32, Float64, Int64, Mask

# A list is checked after 64 representatives, after every 32 more, and at its end: with 3.5 standard errors, then 2.75.
FIRST_CHECK, CHECK_STEP = 64, 32


def rerank(
    matrix: Matrix,
    queries: Float32,
    k: int,
    representatives: Int64,
    *,
    duplicates: Duplicates,
    allowed: Mask | None,
    rough: Float32 | None,
    factors: Float64,
) -> tuple[Int64, Float32, Mask]:
    """What `apps.engine.indexes.rerank.rerank` returns."""
    m, length = representatives.shape
    positions, scores = np.full((m, k), -1), np.full((m, k), -np.inf, np.float32)
    enough = representatives[:, -1] >= 0
    for i, query in enumerate(queries):
        full = int(np.count_nonzero(representatives[i] >= 0))
        rows, places = expand(duplicates, representatives[i, :full])
        order = np.argsort(places, kind="stable")
        if allowed is not None:
            order = order[allowed[rows[order]]]
        rows, places = rows[order], places[order]
        exact = exact_scores(matrix.metric, matrix.vectors, query, rows)
        if rough is not None:
            scaled = exact.astype(np.float64) * float(factors[i])
            if matrix.metric is Metric.EUCLIDEAN:
                scaled = -scaled * scaled
            checks = [(end, 3.5) for end in range(FIRST_CHECK, length, CHECK_STEP)] + [(length, 2.75)]
            reached = [check for check in checks if check[0] <= full]
            read, enough[i] = count_read(k, scaled, rough[i], places, reached)
            rows, exact = rows[:read], exact[:read]
        chosen = best(exact, rows, k)
        positions[i, : len(chosen)], scores[i, : len(chosen)] = rows[chosen], exact[chosen]
    return positions, scores, enough


def expand(duplicates: Duplicates, representatives: Int64) -> tuple[Int64, Int64]:
    """The rows `representatives` and their duplicates, and for each its place in `representatives`."""
    pairs, places = duplicates.pairs, np.arange(len(representatives))
    more = [pairs[1, pairs[0] == row] for row in representatives]
    sizes = [len(rows) for rows in more]
    return np.concatenate([representatives, *more]), np.concatenate([places, np.repeat(places, sizes)])


def count_read(
    k: int, exact: Float64, rough: Float32, places: Int64, checks: Sequence[tuple[int, float]]
) -> tuple[int, bool]:
    """The number of rows, at `places` of a list, that are read, and whether that is enough."""
    errors = exact - rough[places].astype(np.float64)
    # Sums one by one, as the kernel makes them.
    sums, squares = (np.concatenate([[0.0], np.cumsum(terms)]) for terms in (errors, errors * errors))
    for check, standard_errors in checks:
        half, end = np.searchsorted(places, [check // 2, check]).tolist()
        count = end - half
        if end < k or not count:
            continue
        mean = (sums[end] - sums[half]) / count
        variance = max(0.0, (squares[end] - squares[half]) / count - mean * mean)
        reach = float(rough[check - 1]) + mean + standard_errors * np.sqrt(variance)
        if np.partition(exact[:end], end - k)[end - k] >= reach:
            return end, True
    return len(exact), False
