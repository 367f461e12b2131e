"""The index of rows without vectors, which no search by vector can find."""

from pathlib import Path
from typing import Self

from apps.engine.indexes.brute_force import BruteForce
from apps.engine.indexes.matrix import Matrix


class Bare(BruteForce):
    """Over a matrix of no columns, without files of its own. Nobody may search it: a view leaves such rows out."""

    kind = "none"

    @classmethod
    def load(cls, folder: Path, matrix: Matrix) -> Self:
        if matrix.dimension:
            raise ValueError(f"{folder.name} is said to hold no vectors, and holds some")
        return super().load(folder, matrix)
