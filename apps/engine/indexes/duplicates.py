"""Rows that an index cannot tell apart."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import xxhash
from numpy.typing import NDArray

from apps.engine.array_files import map_array, save_array
from apps.engine.vectors import Int64, Mask


@dataclass(frozen=True)
class Duplicates:
    """Rows whose codes equal those of an earlier row, its *representative*; an index holds representatives only.

    Otherwise duplicates of one row would fill a short-list, or link in a graph to each other and to nothing else.
    `pairs` [2, c] holds the representative of each duplicate, ascending, and the duplicate. `rows` counts all rows.
    """

    rows: int
    pairs: Int64

    @classmethod
    def find(cls, codes: Iterable[NDArray[Any]]) -> Self:
        """The duplicates in all the blocks of `codes` [n, width].

        Rows are told apart by a hash of 64 bits. Two that share one (1 in 10**7 for a million rows) count as equal, and
        both are scored when one is proposed.
        """
        hashes = np.fromiter((xxhash.xxh3_64_intdigest(code) for block in codes for code in block), np.uint64)
        _, first, group = np.unique(hashes, return_index=True, return_inverse=True)
        representatives = first[group]
        duplicates = np.flatnonzero(representatives != np.arange(len(hashes)))
        duplicates = duplicates[np.argsort(representatives[duplicates], kind="stable")]
        return cls(len(hashes), np.stack([representatives[duplicates], duplicates]))

    @classmethod
    def load(cls, folder: Path, rows: int) -> Self:
        """What was saved in `folder` for a matrix of `rows` rows; raises ValueError or OSError for anything else."""
        pairs = map_array(folder / "copies.npy")
        if pairs.ndim != 2 or len(pairs) != 2 or pairs.dtype != np.int64 or pairs.max(initial=-1) >= rows:
            raise ValueError(f"{folder} has duplicates of other rows")
        return cls(rows, pairs)

    def save(self, folder: Path) -> None:
        save_array(folder / "copies.npy", self.pairs)

    @property
    def count(self) -> int:
        """The number of representatives."""
        return self.rows - len(self.pairs[1])

    def representatives(self) -> Int64:
        """All representatives, ascending."""
        is_representative = np.ones(self.rows, np.bool_)
        is_representative[self.pairs[1]] = False
        return np.flatnonzero(is_representative)

    def sizes(self) -> Int64:
        """For each row [n], the number of rows that it stands for if it is a representative."""
        return 1 + np.bincount(self.pairs[0], minlength=self.rows)

    def representatives_of(self, allowed: Mask) -> Mask:
        """A mask of rows that is true for representatives that are allowed or have an allowed duplicate."""
        if not self.pairs.size:
            return allowed
        mask = allowed.copy()
        mask[self.pairs[0, allowed[self.pairs[1]]]] = True
        return mask
