"""Rows and queries in a range that suits float32 codes."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

import numpy as np

from apps.engine.indexes.matrix import Matrix
from apps.engine.metrics import Metric, unit_rows
from apps.engine.vectors import Float32, Float64, Int64

_BLOCK_VALUES = 1 << 21
# A scaled query beyond this is so far from all rows that its scores tie in float32 (24 bits).
_FAR = 2.0**30


@dataclass(frozen=True)
class Normalizer:
    """Brings rows and queries to the form that codes and graphs take: float32 [n, width], padded with zeros.

    Stored components reach from 1e-45 to 1e15, and float32 cannot hold the square of such a number. So under cosine
    rows become unit vectors; under dot and euclidean they are multiplied by `scale`, a power of two that brings the
    longest to a length from 0.5 to 1, which changes no order. Queries likewise; under dot they become unit vectors too,
    which changes no order either. `width` is at least the dimension.
    """

    metric: Metric
    width: int
    scale: float

    @classmethod
    def fit(cls, matrix: Matrix, width: int) -> Self:
        """The normalizer for the rows of `matrix`."""
        longest = float(matrix.norms.max(initial=0.0))
        _, exponent = np.frexp(longest)
        is_scaled = matrix.metric is not Metric.COSINE and longest
        return cls(matrix.metric, width, 2.0 ** -int(exponent) if is_scaled else 1.0)

    def row_blocks(self, vectors: Float32, positions: Int64 | None = None) -> Iterator[Float32]:
        """The rows of `vectors` [n, dimension], or those at `positions`, in order, in blocks of bounded memory."""
        count = len(vectors) if positions is None else len(positions)
        step = max(1, _BLOCK_VALUES // self.width)
        for start in range(0, count, step):
            part = slice(start, start + step)
            wide = vectors[part if positions is None else positions[part]].astype(np.float64)
            yield self._pad(unit_rows(wide) if self.metric is Metric.COSINE else wide * self.scale)

    def queries(self, queries: Float32) -> Float32:
        """`queries` [m, dimension] in this form."""
        wide = queries.astype(np.float64)
        if self.metric is not Metric.EUCLIDEAN:
            return self._pad(unit_rows(wide))
        wide *= self.scale
        longest = np.sqrt((wide * wide).sum(axis=1, keepdims=True))
        return self._pad(wide * (_FAR / np.maximum(longest, _FAR)))

    def factors(self, queries: Float32) -> Float64:
        """Numbers [m] that bring exact scores for `queries` [m, dimension] to the unit of faiss's scores by
        multiplication: a cosine, or an inner product in this form. Under euclidean the product is a distance in this
        form; its square, negative, is faiss's score."""
        if self.metric is not Metric.DOT:
            return np.full(len(queries), self.scale)
        lengths = np.linalg.norm(queries.astype(np.float64), axis=1)
        return self.scale / np.where(lengths > 0.0, lengths, 1.0)

    def _pad(self, wide: Float64) -> Float32:
        padded = np.zeros((len(wide), self.width), np.float32)
        padded[:, : wide.shape[1]] = wide
        return padded
