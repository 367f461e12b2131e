"""The index of rows without vectors, which no search by vector can find."""

from pathlib import Path
from typing import Self

from apps.engine.indexes.base import Checkpoint, Params, VectorIndex
from apps.engine.indexes.matrix import Matrix
from apps.engine.vectors import Float32, Mask


class Bare(VectorIndex):
    """Over a matrix of no columns. Nobody may search it: a view leaves such rows out."""

    kind = "none"
    needs_kernels = False

    @classmethod
    def _build(cls, matrix: Matrix, params: Params, checkpoint: Checkpoint) -> Self:
        return cls(matrix)

    def _search(self, queries: Float32, k: int, allowed: Mask | None, count: int, params: Params) -> None:
        """Find nothing better than the matrix does."""

    def save(self, folder: Path) -> None:
        """Write nothing."""

    @classmethod
    def load(cls, folder: Path, matrix: Matrix) -> Self:
        if matrix.dimension:
            raise ValueError(f"{folder.name} is said to hold no vectors, and holds some")
        return cls(matrix)

    @property
    def nbytes(self) -> int:
        return 0
