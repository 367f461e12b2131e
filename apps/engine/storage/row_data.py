"""The data of rows besides their vectors: attributes, which filters look at, and texts.

Both lie in blocks, Columns and InvertedIndex, that are made of rows that follow one another. A sealed segment has one
of each, from its files. Rows in memory are kept as they were read, in order of arrival, and blocks are made of them
when a query first asks; until then a row costs next to nothing. Rows may be appended behind those that a view looks at,
which disturbs no view; only the one thread that catches a library up appends.

In memory, each block is at least twice as large as the next. So a query after every single row that was added costs
some log2(n) times the making of a row, and it searches some log2(n) blocks.
"""

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Generic, NamedTuple, Protocol, Self, TypeVar

import numpy as np

from apps.engine.metadata import Attributes, Columns
from apps.engine.text.inverted_index import InvertedIndex
from apps.engine.vectors import Int64, Mask

_COLUMNS, _TEXT = "columns", "words"
# What Python needs for the objects of a row.
_ROW_BYTES = 500


class _Block(Protocol):
    def __len__(self) -> int: ...


B = TypeVar("B", bound=_Block)


class Row(NamedTuple):
    """A row besides its vector."""

    attributes: Attributes
    text: str


class RowData(ABC):
    """The data of the rows of a part."""

    @abstractmethod
    def column_blocks(self, count: int) -> Sequence[Columns]:
        """Attributes of the first `count` rows; the last block may reach beyond them."""

    @abstractmethod
    def text_blocks(self, count: int) -> Sequence[InvertedIndex]:
        """Texts of the first `count` rows; the last block may reach beyond them."""

    @property
    @abstractmethod
    def nbytes(self) -> int:
        """Memory or mapped files, as far as it is known."""


@dataclass(frozen=True)
class SealedRows(RowData):
    """The data of rows that never change."""

    columns: Columns
    text: InvertedIndex

    def column_blocks(self, count: int) -> Sequence[Columns]:
        return [self.columns]

    def text_blocks(self, count: int) -> Sequence[InvertedIndex]:
        return [self.text]

    def __len__(self) -> int:
        return len(self.columns)

    def save(self, folder: Path) -> None:
        """Write the files into `folder`, which must not exist."""
        for name, block in ((_COLUMNS, self.columns), (_TEXT, self.text)):
            (folder / name).mkdir(parents=True)
            block.save(folder / name)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """The data that was saved in `folder`, mapped; raises OSError or ValueError."""
        return cls(Columns.load(folder / _COLUMNS), InvertedIndex.load(folder / _TEXT))

    @classmethod
    def merge(cls, parts: Sequence[tuple[RowData, int]], order: Int64) -> Self:
        """The data of the rows `order`, positions in the concatenation of `parts`, each with its number of rows."""
        columns = [rows.column_blocks(count) for rows, count in parts]
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
        self._bytes = 0
        self.append(rows)
        self._columns = _Blocks(lambda rows: Columns.build([row.attributes for row in rows]), Columns.merge)
        self._texts = _Blocks(lambda rows: InvertedIndex.build([row.text for row in rows]), InvertedIndex.merge)

    def append(self, rows: Sequence[Row]) -> None:
        """Add rows behind the others."""
        self._rows += rows
        self._bytes += sum(_ROW_BYTES + len(row.text) + len(row.attributes.metadata) for row in rows)

    def select(self, mask: Mask) -> list[Row]:
        """Those of the first rows for which `mask` is true."""
        return [self._rows[place] for place in np.flatnonzero(mask).tolist()]

    def column_blocks(self, count: int) -> Sequence[Columns]:
        return self._columns.up_to(self._rows, count)

    def text_blocks(self, count: int) -> Sequence[InvertedIndex]:
        return self._texts.up_to(self._rows, count)

    @property
    def nbytes(self) -> int:
        return self._bytes


class _Blocks(Generic[B]):
    """Blocks of rows that follow one another, made when they are first asked for."""

    def __init__(self, build: Callable[[Sequence[Row]], B], merge: Callable[[Sequence[B], Int64], B]) -> None:
        self._build, self._merge = build, merge
        self._lock = threading.Lock()
        self._blocks: tuple[B, ...] = ()
        self._length = 0

    def up_to(self, rows: Sequence[Row], count: int) -> tuple[B, ...]:
        """Blocks of at least the first `count` rows."""
        if self._length < count:
            with self._lock:
                self._grow(rows, count)
        return self._blocks

    def _grow(self, rows: Sequence[Row], count: int) -> None:
        if self._length >= count:
            return
        blocks = [*self._blocks, self._build(rows[self._length : count])]
        while len(blocks) > 1 and len(blocks[-2]) < 2 * len(blocks[-1]):
            last = blocks[-2:]
            blocks[-2:] = [self._merge(last, np.arange(len(last[0]) + len(last[1])))]
        self._blocks, self._length = tuple(blocks), count


def _places(blocks: Sequence[Sequence[_Block]], counts: Sequence[int]) -> Int64:
    """Where the rows of all parts are among those of all blocks, which may reach beyond their part's rows."""
    found, start = [np.empty(0, np.int64)], 0
    for some, count in zip(blocks, counts, strict=True):
        found.append(np.arange(start, start + count))
        start += sum(len(block) for block in some)
    return np.concatenate(found)
