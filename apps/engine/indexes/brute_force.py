"""Exact search by a scan of all allowed rows, as `matrix` does it."""

from pathlib import Path
from typing import Self

from apps.engine.indexes.base import NO_PARAMS, Checkpoint, Params, VectorIndex, no_checkpoint
from apps.engine.indexes.matrix import Matrix, Neighbors
from apps.engine.vectors import Float32, Mask


class BruteForce(VectorIndex):
    """Compares a query with every allowed row. Exact for every metric."""

    kind = "brute_force"

    @classmethod
    def build(cls, matrix: Matrix, params: Params = NO_PARAMS, checkpoint: Checkpoint = no_checkpoint) -> Self:
        cls.check_params(params)
        return cls(matrix)

    def search(self, queries: Float32, k: int, allowed: Mask | None = None, params: Params = NO_PARAMS) -> Neighbors:
        return self.matrix.search(queries, k, allowed)

    def save(self, folder: Path) -> None:
        """Write nothing: the matrix is all there is."""

    @classmethod
    def load(cls, folder: Path, matrix: Matrix) -> Self:
        return cls(matrix)

    @property
    def nbytes(self) -> int:
        return 0
