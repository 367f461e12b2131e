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
_SEED = 20240229
_SEPARABLE = 1e-4
_LARGEST = 2.0**100


@dataclass(frozen=True)
class Calibration:
    """Queries [m, dimension] like those to come, and `floors` [m], the exact score of the `k`-th best row of each.

    The queries lie half-way between two rows drawn at random; rows themselves are their own nearest neighbours.

    `separable` says whether rows differ by more than a ten-thousandth of their length. Where they do not, calibration
    proves nothing: all rows score alike from between them, and float32 cannot tell them apart from elsewhere.
    """

    matrix: Matrix
    queries: Float32
    floors: Float32
    separable: bool
    k: int = _K

    @classmethod
    def draw(cls, matrix: Matrix) -> Self:
        """Queries for `matrix`, which has at least k rows; the same for the same rows."""
        pairs = np.random.default_rng(_SEED).integers(0, len(matrix), (2, _QUERIES))
        one, other = (matrix.vectors[rows].astype(np.float64) for rows in pairs)
        if matrix.metric is Metric.COSINE:
            one, other = unit_rows(one), unit_rows(other)
        gaps, lengths = np.linalg.norm(one - other, axis=1), np.linalg.norm(one, axis=1)
        apart = gaps > 0.0
        separable = apart.any() and np.median(gaps[apart] / np.maximum(lengths, gaps)[apart]) > _SEPARABLE
        middle = (one + other) / 2
        if matrix.metric is not Metric.EUCLIDEAN:
            # Unit vectors, but for rows so short that their products with one would vanish in float32.
            middle = unit_rows(np.where(middle.any(axis=1, keepdims=True), middle, one))
            middle *= 1.0 if matrix.metric is Metric.COSINE else min(Normalizer.fit(matrix, 0).scale, _LARGEST)
        queries = middle.astype(np.float32)
        floors = matrix.search(queries, _K).scores[:, -1]
        return cls(matrix, queries, floors, bool(separable))

    def recall(self, scores: Float32) -> float:
        """The share of true neighbours among answers of these `scores` [m, k]; one that ties with the last counts."""
        return float((scores >= self.floors[:, None]).mean())

    def ranks(self, duplicates: Duplicates, proposed: Int64) -> Int64:
        """Ascending, the place in `proposed` [m, r] (representatives, -1 for none) of each of the m*k true neighbours;
        r for those that are not there."""
        ranks = np.full((len(proposed), self.k), proposed.shape[1], np.int64)
        sizes = duplicates.sizes()
        for query, rows, floor, found in zip(self.queries, proposed, self.floors, ranks, strict=True):
            rows = rows[rows >= 0]
            places = np.flatnonzero(exact_scores(self.matrix.metric, self.matrix.vectors, query, rows) >= floor)
            neighbors = np.repeat(places, sizes[rows[places]])[: self.k]
            found[: len(neighbors)] = neighbors
        return np.sort(ranks, axis=None)
