"""Rows in a fixed order, with an index: sealed in files that all processes map, or in memory.

Keys ascend. Nothing but the mask of dead rows ever changes, and a changed mask makes another Segment. A segment that
was saved is named by its folder:

keys.npy      int64 [n], ascending
vectors.npy   float32 [n, dimension]; [n, 0] where the rows have no vectors
exact/        norms and codes of its matrix, which answers exact queries
index/        the files of its index, unless that has none
content/      the files of its row data
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np

from apps.engine.array_files import map_array, save_array
from apps.engine.errors import Damaged
from apps.engine.indexes.base import NO_PARAMS, Checkpoint, Params, VectorIndex, no_checkpoint
from apps.engine.indexes.matrix import Matrix, Neighbors
from apps.engine.indexes.registry import BARE, BRUTE_FORCE, index_type
from apps.engine.metrics import Metric
from apps.engine.storage.checked_files import raise_damaged
from apps.engine.storage.part import Part, live_rows, row_data_at, vectors_at
from apps.engine.storage.row_data import BufferedRows, RowData, SealedRows
from apps.engine.vectors import Float32, Int64, Mask

_KEYS, _VECTORS, _MATRIX, _INDEX, _ROW_DATA = "keys.npy", "vectors.npy", "exact", "index", "content"


@dataclass(frozen=True)
class Segment(Part):
    """`name` is that of its folder, empty while it is in memory only."""

    index: VectorIndex
    params: Params
    name: str

    @classmethod
    def build(
        cls,
        *,
        keys: Int64,
        matrix: Matrix,
        row_data: RowData,
        kind: str = BRUTE_FORCE,
        params: Params = NO_PARAMS,
        name: str = "",
        checkpoint: Checkpoint = no_checkpoint,
    ) -> Self:
        """A segment of the rows of `matrix` with `row_data`, named by `keys` [n], which must ascend; keeps all three.
        Rows without vectors have an index of the type `none`, whatever `kind` says. What `checkpoint` raises ends the
        build, as `VectorIndex.build` says."""
        if not matrix.dimension:
            kind, params = BARE, NO_PARAMS
        index = index_type(kind).build(matrix, params, checkpoint)
        return cls(keys=keys, matrix=matrix, row_data=row_data, alive=None, index=index, params=params, name=name)

    @classmethod
    def merge(
        cls,
        parts: Sequence[Part],
        *,
        kind: str = BRUTE_FORCE,
        params: Params = NO_PARAMS,
        checkpoint: Checkpoint = no_checkpoint,
        scratch: Path | None = None,
    ) -> Self:
        """A segment of the live rows of `parts`, which have no live key in common, and are all bare or none; shares the
        arrays of a segment that has all of them. Raises OSError as `vectors_at`, which is given `scratch`."""
        living = [part for part in parts if part.live]
        if len(living) == 1 and isinstance(sole := living[0], Segment) and not sole.dead:
            keys, matrix, row_data = sole.keys, sole.matrix, sole.row_data
            if not isinstance(row_data, SealedRows):
                row_data = row_data_at([sole], np.arange(len(keys)))
        else:
            keys, places = live_rows(parts)
            matrix = Matrix.build(vectors_at(parts, places, scratch), parts[0].matrix.metric)
            row_data = row_data_at(parts, places)
        return cls.build(keys=keys, matrix=matrix, row_data=row_data, kind=kind, params=params, checkpoint=checkpoint)

    def save(self, folder: Path) -> None:
        """Write the files of the segment, whose row data must be sealed, into `folder`, which must not exist."""
        assert isinstance(self.row_data, SealedRows)
        folder.mkdir()
        (folder / _MATRIX).mkdir()
        save_array(folder / _KEYS, self.keys)
        save_array(folder / _VECTORS, self.matrix.vectors)
        self.matrix.save(folder / _MATRIX)
        if self.kind not in (BRUTE_FORCE, BARE):
            (folder / _INDEX).mkdir()
            self.index.save(folder / _INDEX)
        self.row_data.save(folder / _ROW_DATA)

    @classmethod
    def load(cls, folder: Path, *, dimension: int, metric: Metric, kind: str, params: Params) -> Self:
        """The segment in `folder`, without dead rows. Raises Damaged for files that make none, and what `raise_damaged`
        lets through."""
        with raise_damaged(folder.name):
            keys, vectors = map_array(folder / _KEYS), map_array(folder / _VECTORS)
            matrix = Matrix.load(folder / _MATRIX, vectors, metric)
            index = index_type(kind).load(folder / _INDEX, matrix)
            row_data = SealedRows.load(folder / _ROW_DATA)
        columns = 0 if kind == BARE else dimension
        if keys.dtype != np.int64 or vectors.dtype != np.float32 or vectors.shape != (len(keys), columns):
            raise Damaged(f"{folder.name} holds arrays of another type or shape")
        if len(row_data) != len(keys):
            raise Damaged(f"{folder.name} holds data of another number of rows")
        return cls(
            keys=keys, matrix=matrix, row_data=row_data, alive=None, index=index, params=params, name=folder.name
        )

    @property
    def kind(self) -> str:
        return self.index.kind

    @property
    def nbytes(self) -> int:
        return super().nbytes + self.index.nbytes

    @property
    def resident_bytes(self) -> int:
        """What searches by vector that are not asked to be exact keep in memory."""
        return self.keys.nbytes + self.index.resident_bytes

    def search(
        self, queries: Float32, k: int, *, exact: bool, params: Params, allowed: Mask | None, sure: int | None
    ) -> Neighbors:
        allowed = self.alive if allowed is None else allowed
        if exact:
            return self.matrix.search(queries, k, allowed)
        if params:
            known = {parameter.name for parameter in self.index.search_parameters}
            params = {name: value for name, value in params.items() if name in known}
        return self.index.search(queries, k, allowed, params, sure)

    @cached_property
    def _first_of_run(self) -> int | None:
        """The first key where the keys follow one another, as those of rows written together do; None elsewhere."""
        first, last = int(self.keys[0]), int(self.keys[-1])
        return first if last - first == len(self.keys) - 1 else None

    def places(self, keys: Int64) -> Int64:
        first, last = self._first_of_run, len(self.keys) - 1
        if first is not None:
            # No bisection. As numbers without a sign, places before the first are behind the last.
            places = keys - first
            found = places.view(np.uint64) <= last
        else:
            places = np.minimum(np.searchsorted(self.keys, keys), last)
            found = self.keys[places] == keys
        if self.alive is not None:
            found &= self.alive[np.where(found, places, 0)]
        return np.where(found, places, -1)

    def places_of_live(self, keys: Int64) -> Int64:
        first = self._first_of_run
        return np.searchsorted(self.keys, keys) if first is None else keys - first

    def without(self, keys: Int64) -> "Segment":
        """This segment, the rows of `keys` dead."""
        places = self.places(keys)
        places = places[places >= 0]
        if not len(places):
            return self
        alive = np.ones(len(self.keys), np.bool_) if self.alive is None else self.alive.copy()
        alive[places] = False
        return replace(self, alive=alive)

    def copy_live(self) -> "Segment":
        """The live rows of a segment in memory that has dead ones."""
        assert isinstance(self.row_data, BufferedRows)
        assert self.alive is not None
        matrix = Matrix.build(self.matrix.vectors[self.alive], self.matrix.metric)
        row_data = BufferedRows(self.row_data.select(self.alive))
        return Segment.build(keys=self.keys[self.alive], matrix=matrix, row_data=row_data)
