"""Searches at build time that tell how many candidates an approximate index needs on its own rows."""

from dataclasses import dataclass
from typing import Self

import numpy as np

from apps.engine.indexes.duplicates import Duplicates
from apps.engine.indexes.matrix import Matrix
from apps.engine.indexes.normalize import Normalizer
from apps.engine.metrics import Metric, exact_scores, unit_rows
from apps.engine.vectors import Float32, Int64

_QUERIES = 128
_K = 10
# How many rows more are looked at for those that tie with the last of the best.
_TIES = 22
_SEED = 20240229
_SEPARABLE = 1e-4
_LARGEST = 2.0**100


@dataclass(frozen=True)
class Calibration:
    """Queries [m, dimension] like those to come, and `floors` [m], the exact score of the `k`-th best row of each.
    `best` [m] has the rows of each that score as much; None where very many tie.

    The queries lie in the middle of a few rows drawn at random; rows themselves are their own nearest neighbours.

    `separable` says whether rows differ by more than a ten-thousandth of their length. Where they do not, calibration
    proves nothing: all rows score alike from between them, and float32 cannot tell them apart from elsewhere.
    """

    matrix: Matrix
    queries: Float32
    floors: Float32
    best: list[Int64 | None]
    separable: bool
    k: int = _K

    @classmethod
    def draw(cls, matrix: Matrix, count: int = _QUERIES, mixed: int = 2) -> Self:
        """`count` queries for `matrix`, which has at least k rows; the same for the same rows. Each lies between two
        rows, or between two, three and so on up to `mixed` rows by turns."""
        drawn = np.random.default_rng(_SEED).integers(0, len(matrix), (mixed, count))
        rows = [matrix.vectors[positions].astype(np.float64) for positions in drawn]
        if matrix.metric is Metric.COSINE:
            rows = [unit_rows(one) for one in rows]
        one, other = rows[:2]
        gaps, lengths = np.linalg.norm(one - other, axis=1), np.linalg.norm(one, axis=1)
        apart = gaps > 0.0
        separable = apart.any() and np.median(gaps[apart] / np.maximum(lengths, gaps)[apart]) > _SEPARABLE
        numbers = 2 + np.arange(count) % (mixed - 1)
        middle = np.cumsum(rows, axis=0)[numbers - 1, np.arange(count)] / numbers[:, None]
        if matrix.metric is not Metric.EUCLIDEAN:
            # Unit vectors, but for rows so short that their products with one would vanish in float32.
            middle = unit_rows(np.where(middle.any(axis=1, keepdims=True), middle, one))
            middle *= 1.0 if matrix.metric is Metric.COSINE else min(Normalizer.fit(matrix, 0).scale, _LARGEST)
        queries = middle.astype(np.float32)
        nearest = matrix.search(queries, _K + _TIES)
        floors = nearest.scores[:, _K - 1]
        best = [
            None if scores[-1] >= floor else rows[scores >= floor]
            for rows, scores, floor in zip(nearest.positions, nearest.scores, floors, strict=True)
        ]
        return cls(matrix, queries, floors, best, bool(separable))

    def recall(self, scores: Float32) -> float:
        """The share of true neighbours among answers of these `scores` [m, k]; one that ties with the last counts."""
        return float((scores >= self.floors[:, None]).mean())

    def ranks(self, duplicates: Duplicates, proposed: Int64) -> Int64:
        """Ascending, the place in `proposed` [m, r] (representatives, -1 for none) of each of the m*k true neighbours;
        r for those that are not there."""
        ranks = np.full((len(proposed), self.k), proposed.shape[1], np.int64)
        sizes = duplicates.sizes()
        for i, (rows, found) in enumerate(zip(proposed, ranks, strict=True)):
            rows, best = rows[rows >= 0], self.best[i]
            if best is None:
                scores = exact_scores(self.matrix.metric, self.matrix.vectors, self.queries[i], rows)
                places = np.flatnonzero(scores >= self.floors[i])
            else:
                places = np.flatnonzero(np.isin(rows, best))
            neighbors = np.repeat(places, sizes[rows[places]])[: self.k]
            found[: len(neighbors)] = neighbors
        return np.sort(ranks, axis=None)
