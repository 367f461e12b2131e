"""Exact search by a scan of all allowed rows, as `matrix` does it."""

from pathlib import Path
from typing import Self

from apps.engine.indexes.base import Checkpoint, Params, VectorIndex
from apps.engine.indexes.matrix import Matrix
from apps.engine.vectors import Float32, Mask


class BruteForce(VectorIndex):
    """Compares a query with every allowed row. Exact for every metric."""

    kind = "brute_force"
    needs_kernels = False

    @classmethod
    def _build(cls, matrix: Matrix, params: Params, checkpoint: Checkpoint) -> Self:
        return cls(matrix)

    def _search(self, queries: Float32, k: int, allowed: Mask | None, count: int, params: Params, sure: int) -> None:
        """Leave all to the matrix."""

    def save(self, folder: Path) -> None:
        """Write nothing: the matrix is all there is."""

    @classmethod
    def load(cls, folder: Path, matrix: Matrix) -> Self:
        return cls(matrix)

    @property
    def nbytes(self) -> int:
        return 0
