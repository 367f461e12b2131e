"""The data of rows besides their vectors: attributes, which filters look at, and texts.

Both lie in blocks, Columns and InvertedIndex, that are made of rows that follow one another. A sealed segment has one
of each, from its files. Rows in memory are kept as they were read, in order of arrival, and blocks are made of them
when a query first asks: of their texts, and of the fields that it names, not of all that there are. Until then a row
costs next to nothing. Rows may be appended behind those that a view looks at, which disturbs no view; only the one
thread that catches a library up appends.

In memory, blocks are made of some megabytes at a time and kept. Whatever is written, making one takes little memory,
and a request that ends early loses no more than one. Small blocks are merged, so that each is at least four times as
large as the next: a query after every single row that was added costs some log(n) times the making of a row, and it
searches some log(n) blocks. The columns of fields that were asked for first are freed when all take more memory than
the rows.
"""

import threading
from abc import ABC, abstractmethod
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Generic, NamedTuple, Protocol, Self, TypeVar

import numpy as np

from apps.engine.expiry import NEVER, NONE_EXPIRING, Expiring
from apps.engine.metadata import Attributes, Columns
from apps.engine.metadata.filters import Condition, Filter, conditions
from apps.engine.metadata.paths import field_of
from apps.engine.metadata.table import evaluate
from apps.engine.text.inverted_index import InvertedIndex
from apps.engine.vectors import Int64, Mask

_COLUMNS, _TEXT = "columns", "words"
# What Python needs for the objects of a row, and for those of a block.
_ROW_BYTES, _OBJECT_BYTES = 500, 2_000
# Text or metadata of which a block is made at once; blocks that would be larger together are not merged.
_SLICE_BYTES, _BLOCK_BYTES = 2 << 20, 4 << 20
_SMALL_ROWS, _SMALL_BYTES = 16, 1 << 16
# What columns in memory may take in any case.
_LEAST_BYTES = 1 << 20


class _Block(Protocol):
    def __len__(self) -> int: ...

    @property
    def nbytes(self) -> int: ...


B = TypeVar("B", bound=_Block)
T = TypeVar("T")


class Row(NamedTuple):
    """A row besides its vector."""

    attributes: Attributes
    text: str


class RowData(ABC):
    """The data of the rows of a part."""

    @abstractmethod
    def mask(self, filter: Filter, keys: Int64) -> Mask:
        """bool [n]: which of the first n rows, named by `keys` [n], match."""

    def matches_at(self, filter: Filter, keys: Int64, places: Int64) -> Mask:
        """bool [m]: which of the rows `places` [m] match; those of the part are named by `keys` [n]."""
        return self.mask(filter, keys)[places]

    @abstractmethod
    def column_blocks(self, path: str, count: int) -> Sequence[Columns]:
        """The column of a field in the first `count` rows; the last blocks may reach beyond them."""

    @abstractmethod
    def all_columns(self, count: int) -> Sequence[Columns]:
        """All columns of the first `count` rows."""

    @abstractmethod
    def unread(self, count: int) -> tuple[int, int]:
        """The number of rows, and that of the characters of their metadata, that `all_columns` reads to make columns,
        each time."""

    @abstractmethod
    def text_blocks(self, count: int) -> Sequence[InvertedIndex]:
        """Texts of the first `count` rows; the last blocks may reach beyond them."""

    @abstractmethod
    def expiring(self, count: int) -> Expiring:
        """Those of the first `count` rows that expire."""

    @property
    @abstractmethod
    def nbytes(self) -> int:
        """Memory or mapped files, as far as it is known."""


@dataclass(frozen=True)
class SealedRows(RowData):
    """The data of rows that never change."""

    columns: Columns
    text: InvertedIndex

    def mask(self, filter: Filter, keys: Int64) -> Mask:
        return evaluate(filter, keys, self.columns.mask_of)

    def matches_at(self, filter: Filter, keys: Int64, places: Int64) -> Mask:
        return evaluate(filter, keys, lambda condition: self.columns.matches_at(condition, places), places)

    def column_blocks(self, path: str, count: int) -> Sequence[Columns]:
        return [self.columns]

    def all_columns(self, count: int) -> Sequence[Columns]:
        return [self.columns]

    def unread(self, count: int) -> tuple[int, int]:
        return 0, 0

    def text_blocks(self, count: int) -> Sequence[InvertedIndex]:
        return [self.text]

    def expiring(self, count: int) -> Expiring:
        return self.columns.expiring

    def __len__(self) -> int:
        return len(self.columns)

    def save(self, folder: Path) -> None:
        """Write the files into `folder`, which must not exist."""
        folder.mkdir()
        for name, block in ((_COLUMNS, self.columns), (_TEXT, self.text)):
            (folder / name).mkdir()
            block.save(folder / name)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """The data that was saved in `folder`, mapped; raises OSError or ValueError."""
        return cls(Columns.load(folder / _COLUMNS), InvertedIndex.load(folder / _TEXT))

    @classmethod
    def merge(cls, parts: Sequence[tuple[RowData, int]], order: Int64) -> Self:
        """The data of the rows `order`, positions in the concatenation of `parts`, each with its number of rows."""
        columns = [rows.all_columns(count) for rows, count in parts]
        texts = [rows.text_blocks(count) for rows, count in parts]
        counts = [count for _, count in parts]
        return cls(
            Columns.merge(list(chain.from_iterable(columns)), _places(columns, counts)[order]),
            InvertedIndex.merge(list(chain.from_iterable(texts)), _places(texts, counts)[order]),
        )

    @property
    def nbytes(self) -> int:
        return self.columns.nbytes + self.text.nbytes


class BufferedRows(RowData):
    """The data of rows in memory."""

    def __init__(self, rows: Sequence[Row] = ()) -> None:
        self._rows: list[Row] = []
        # Places and times of the rows that expire, in order of arrival.
        self._expiring_places: list[int] = []
        self._expiry_times: list[int] = []
        self._bytes = 0
        self.append(rows)
        self._lock = threading.Lock()
        self._texts = _Blocks(InvertedIndex.merge)
        # By path; the one that was asked for last is the last.
        self._columns: dict[str, _Blocks[Columns]] = {}

    def append(self, rows: Sequence[Row]) -> None:
        """Add rows behind the others."""
        for place, row in enumerate(rows, len(self._rows)):
            if row.attributes.expires_at != NEVER:
                self._expiry_times.append(row.attributes.expires_at)
                self._expiring_places.append(place)
        self._rows += rows
        self._bytes += sum(_ROW_BYTES + len(row.text) + len(row.attributes.metadata) for row in rows)
        # Rows of one document share the text of its metadata.
        documents = {id(row.attributes.document): len(row.attributes.document) for row in rows}
        self._bytes += sum(documents.values())

    def select(self, mask: Mask) -> list[Row]:
        """Those of the first rows for which `mask` is true."""
        return [self._rows[place] for place in np.flatnonzero(mask).tolist()]

    def mask(self, filter: Filter, keys: Int64) -> Mask:
        count = len(keys)
        if not count:
            return np.empty(0, np.bool_)
        columns = self._columns_of({field_of(condition.path) for condition in conditions(filter)}, count)

        def mask_of(condition: Condition) -> Mask:
            masks = [block.mask_of(condition) for block in columns[field_of(condition.path)].blocks]
            return (masks[0] if len(masks) == 1 else np.concatenate(masks))[:count]

        return evaluate(filter, keys, mask_of)

    def column_blocks(self, path: str, count: int) -> Sequence[Columns]:
        field = field_of(path)
        return self._columns_of({field}, count)[field].blocks

    def all_columns(self, count: int) -> Sequence[Columns]:
        return [Columns.build(some) for some in self._attributes(0, count)]

    def unread(self, count: int) -> tuple[int, int]:
        rows = [row.attributes for row in self._rows[:count]]
        return len(rows), sum(len(row.metadata) + len(row.document) for row in rows)

    def text_blocks(self, count: int) -> Sequence[InvertedIndex]:
        if self._texts.length < count:
            with self._lock:
                start = self._texts.start if self._texts.length < count else count
                for some in _slices([row.text for row in self._rows[start:count]], len):
                    self._texts.add(InvertedIndex.build(some), start)
                    start += len(some)
        return self._texts.blocks

    def expiring(self, count: int) -> Expiring:
        places = self._expiring_places
        end = bisect_left(places, count)
        if not end:
            return NONE_EXPIRING
        return Expiring.of(np.array(self._expiry_times[:end], np.int64), np.array(places[:end], np.int64))

    @property
    def nbytes(self) -> int:
        return self._bytes + self._texts.nbytes + sum(blocks.nbytes for blocks in list(self._columns.values()))

    def _attributes(self, start: int, count: int) -> Iterator[Sequence[Attributes]]:
        rows = [row.attributes for row in self._rows[start:count]]
        return _slices(rows, lambda row: len(row.metadata) + len(row.document))

    def _columns_of(self, paths: set[str], count: int) -> dict[str, "_Blocks[Columns]"]:
        """For each of `paths` the column, in blocks of at least the first `count` rows."""
        known = self._columns
        found = {path: known[path] for path in paths if path in known and known[path].length >= count}
        if len(found) < len(paths):
            with self._lock:
                found = {path: known.pop(path, _Blocks(Columns.merge)) for path in paths}
                known |= found
                self._extend(found, count)
        return found

    def _extend(self, columns: dict[str, "_Blocks[Columns]"], count: int) -> None:
        """Make blocks of `columns`, by path, up to `count` rows."""
        for start in {blocks.start for blocks in columns.values() if blocks.length < count}:
            behind = {path: one for path, one in columns.items() if one.length < count and one.start == start}
            for rows in self._attributes(start, count):
                for blocks, block in zip(behind.values(), Columns.build_each(rows, behind), strict=True):
                    blocks.add(block, start)
                start += len(rows)
        held = sum(blocks.nbytes for blocks in self._columns.values())
        for path in list(self._columns):
            if held > max(self._bytes, _LEAST_BYTES) and path not in columns:
                held -= self._columns.pop(path).nbytes


class _Blocks(Generic[B]):
    """Blocks of `length` rows that follow one another. Small ones are merged, so that there are few."""

    def __init__(self, merge: Callable[[Sequence[B], Int64], B]) -> None:
        self._merge = merge
        self.blocks: tuple[B, ...] = ()
        self.start = self.length = self.nbytes = 0

    def add(self, block: B, start: int) -> None:
        """Add the block of the rows from `start` on, which is `self.start` or the end of the last block."""
        blocks = [*(self.blocks if start == self.length else self.blocks[:-1]), block]
        is_small = len(block) < _SMALL_ROWS and block.nbytes < _SMALL_BYTES
        while not is_small and len(blocks) > 1 and len(blocks[-2]) < 4 * len(blocks[-1]):
            last = blocks[-2:]
            if sum(one.nbytes for one in last) > _BLOCK_BYTES:
                break
            blocks[-2:] = [self._merge(last, np.arange(len(last[0]) + len(last[1])))]
        self.blocks, self.nbytes = tuple(blocks), sum(one.nbytes + _OBJECT_BYTES for one in blocks)
        self.length = start + len(block)
        # A small block is sooner made again, with the rows that follow, than merged.
        self.start = start if is_small else self.length


def _slices(items: Sequence[T], size: Callable[[T], int]) -> Iterator[Sequence[T]]:
    """`items` in slices of some megabytes."""
    start = held = 0
    for end, item in enumerate(items, 1):
        held += size(item)
        if held >= _SLICE_BYTES or end == len(items):
            yield items[start:end]
            start, held = end, 0


def _places(blocks: Sequence[Sequence[_Block]], counts: Sequence[int]) -> Int64:
    """Where the rows of all parts are among those of all blocks, which may reach beyond their part's rows."""
    found, start = [np.empty(0, np.int64)], 0
    for some, count in zip(blocks, counts, strict=True):
        found.append(np.arange(start, start + count))
        start += sum(len(block) for block in some)
    return np.concatenate(found)
