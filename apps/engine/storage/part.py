"""Rows as a view holds them, in sealed segments and in its tail; and live rows of several parts as one."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from operator import itemgetter
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from apps.engine.array_files import scratch_array
from apps.engine.expiry import Expiring
from apps.engine.indexes.base import Params
from apps.engine.indexes.matrix import Matrix, Neighbors
from apps.engine.metadata import Columns
from apps.engine.metadata.filters import Filter
from apps.engine.metadata.ordering import Ranks
from apps.engine.storage.row_data import RowData, SealedRows
from apps.engine.text.bm25 import TextPart
from apps.engine.vectors import Float32, Float64, Int64, Mask

# Of vectors that are held twice while they are copied.
_BYTES_PER_COPY = 4 << 20


@dataclass(frozen=True)
class Part(ABC):
    """Rows: their keys int64 [n], vectors, and data besides. `alive` [n] masks the live rows; None where all live.

    Either all rows have a vector, or none has, and the matrix is [n, 0].
    """

    keys: Int64
    matrix: Matrix
    row_data: RowData
    alive: Mask | None

    @property
    @abstractmethod
    def kind(self) -> str:
        """The type of the index that answers."""

    @abstractmethod
    def search(
        self, queries: Float32, k: int, *, exact: bool, params: Params, allowed: Mask | None, sure: int | None
    ) -> Neighbors:
        """The k nearest to each of `queries` [m, dimension] of the rows that `allowed` names, all of which live; None
        names all live rows. `exact` asks no approximate index, which gets `sure`, and those of `params` that it takes.
        """

    @property
    def is_bare(self) -> bool:
        """Whether the rows have no vectors: their matrix has no columns, and nobody may search it."""
        return self.matrix.dimension == 0

    @property
    def dead(self) -> int:
        """The number of dead rows."""
        return 0 if self.alive is None else len(self.keys) - int(np.count_nonzero(self.alive))

    @property
    def live(self) -> int:
        """The number of live rows."""
        return len(self.keys) - self.dead

    @cached_property
    def expiring(self) -> Expiring:
        """The rows that expire, dead ones too."""
        return self.row_data.expiring(len(self.keys))

    def at(self, now: int) -> Self:
        """This part, the rows dead that have expired by `now`."""
        expired = self.expiring.by(now)
        if self.alive is not None:
            expired = expired[self.alive[expired]]
        if not len(expired):
            return self
        alive = np.ones(len(self.keys), np.bool_) if self.alive is None else self.alive.copy()
        alive[expired] = False
        return replace(self, alive=alive)

    def live_keys(self) -> Int64:
        """The keys of the live rows."""
        return self.keys if self.alive is None else self.keys[self.alive]

    @property
    def nbytes(self) -> int:
        """Memory or mapped files."""
        return self.keys.nbytes + self.matrix.nbytes + self.row_data.nbytes

    def matching(self, filter: Filter) -> Mask:
        """The live rows that match."""
        mask = self.row_data.mask(filter, self.keys)
        return mask if self.alive is None else mask & self.alive

    def matches_at(self, filter: Filter, places: Int64) -> Mask:
        """bool [n]: which of the rows `places` [n] match."""
        return self.row_data.matches_at(filter, self.keys, places)

    @abstractmethod
    def places(self, keys: Int64) -> Int64:
        """int64 [n]: where the live rows of `keys` [n] are; -1 for those that are not here."""

    def places_of_live(self, keys: Int64) -> Int64:
        """int64 [n]: the same of rows all of which live here."""
        return self.places(keys)

    def keys_at(self, field: str, places: Int64) -> list[bytes | None]:
        """The key of the value (`metadata/values.py`) of a field that each of the rows `places` has; None for none."""
        found: list[bytes | None] = [None] * len(places)
        for block, here, rows in _split(self.row_data.column_blocks(field, len(self.keys)), places):
            for i, key in zip(here.tolist(), block.keys_at(field, rows), strict=True):
                found[i] = key
        return found

    def numbers_at(self, field: str, places: Int64) -> Float64:
        """float64 [n]: the number that each of the rows `places` [n] has in a field, as `Columns.numbers_at`."""
        return self._read_at(field, places, lambda block, rows: block.numbers_at(field, rows))

    def times_at(self, field: str, places: Int64) -> Float64:
        """float64 [n]: likewise its time, as `Columns.times_at`."""
        return self._read_at(field, places, lambda block, rows: block.times_at(field, rows))

    def _read_at(self, field: str, places: Int64, read: Callable[[Columns, Int64], Float64]) -> Float64:
        """float64 [n]: what `read` gives for the rows `places` [n] of the blocks of a field's column."""
        blocks = self.row_data.column_blocks(field, len(self.keys))
        if len(blocks) == 1:
            return read(blocks[0], places)
        found = np.empty(len(places))
        for block, here, rows in _split(blocks, places):
            found[here] = read(block, rows)
        return found

    def columns(self, allowed: Mask, field: str | None = None) -> Iterator[tuple[Columns, Mask | None]]:
        """The column of a field by block, or all columns, and which rows of each block are allowed; None for all."""
        start, count = 0, len(self.keys)
        rows = self.row_data
        for block in rows.all_columns(count) if field is None else rows.column_blocks(field, count):
            mask = _cut(allowed, start, len(block))
            yield block, None if mask.all() else mask
            start += len(block)

    def ranks(self, fields: Sequence[str]) -> Iterator[tuple[int, int, list[Ranks]]]:
        """Ranges of rows, and the order of the rows of each by every one of `fields`."""
        count = len(self.keys)
        columns: list[list[tuple[int, Ranks]]] = []
        for field in fields:
            start, blocks = 0, []
            for block in self.row_data.column_blocks(field, count):
                blocks.append((start, block.ranks(field)))
                start += len(block)
            columns.append(blocks)
        # Fields may lie in different blocks.
        bounds = sorted({start for blocks in columns for start, _ in blocks if start < count} | {count})
        for start, end in pairwise(bounds):
            within = [max((block for block in blocks if block[0] <= start), key=itemgetter(0)) for blocks in columns]
            yield start, end, [ranks.cut(start - first, end - first) for first, ranks in within]

    def text_parts(self, allowed: Mask | None) -> Iterator[TextPart]:
        """The rows as a search for words takes them, by block. Rows that a block has beyond the part's are dead."""
        count, start = len(self.keys), 0
        for block in self.row_data.text_blocks(count):
            size, alive = len(block), self.alive
            if alive is None and start + size > count:
                alive = np.ones(count, np.bool_)
            alive = None if alive is None else _cut(alive, start, size)
            mask = None if allowed is None else _cut(allowed, start, size)
            yield TextPart(block, _cut(self.keys, start, size), alive, mask)
            start += size


def _split(blocks: Sequence[Columns], places: Int64) -> Iterator[tuple[Columns, Int64, Int64]]:
    """Those of `blocks` that hold the rows `places`, with the positions in `places` of those that each holds, and their
    rows in it."""
    start = 0
    for block in blocks:
        here = np.flatnonzero((places >= start) & (places < start + len(block)))
        if len(here):
            yield block, here, places[here] - start
        start += len(block)


def _cut(array: NDArray[Any], start: int, size: int) -> NDArray[Any]:
    """`size` elements of `array` from `start` on; zeros beyond its end."""
    cut = array[start : start + size]
    return cut if len(cut) == size else np.concatenate([cut, np.zeros(size - len(cut), array.dtype)])


def live_rows(parts: Sequence[Part]) -> tuple[Int64, Int64]:
    """The keys of the live rows of several parts that have no live key in common, ascending, and the places of these
    rows in the concatenation of the parts, dead rows included."""
    keys, places, start = [np.empty(0, np.int64)], [np.empty(0, np.int64)], 0
    for part in parts:
        live = np.arange(len(part.keys)) if part.alive is None else np.flatnonzero(part.alive)
        keys.append(part.keys[live])
        places.append(start + live)
        start += len(part.keys)
    all_keys = np.concatenate(keys)
    order = np.argsort(all_keys, kind="stable")
    return all_keys[order], np.concatenate(places)[order]


def vectors_at(parts: Sequence[Part], places: Int64, scratch: Path | None = None) -> Float32:
    """A copy of the vectors at `places`, as `live_rows` gives them: [n, dimension]; there is at least one part, and
    none of these rows is bare where others are not. Many are held in a file of the folder `scratch`, where there is
    one. Raises OSError where that cannot be made."""
    shape = len(places), max(part.matrix.dimension for part in parts)
    vectors = np.empty(shape, np.float32) if scratch is None else scratch_array(scratch, shape, np.float32)
    start, step = 0, _BYTES_PER_COPY // (4 * max(1, shape[1]))
    for part in parts:
        here = np.flatnonzero((places >= start) & (places < start + len(part.keys)))
        for first in range(0, len(here), step):
            rows = here[first : first + step]
            vectors[rows] = part.matrix.vectors[places[rows] - start]
        start += len(part.keys)
    return vectors


def row_data_at(parts: Sequence[Part], places: Int64) -> SealedRows:
    """The data of the rows at `places`, copied: equal where it is of equal rows, in whatever parts they lie."""
    return SealedRows.merge([(part.row_data, len(part.keys)) for part in parts], places)
