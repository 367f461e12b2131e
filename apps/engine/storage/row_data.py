"""What the rows of a part of a view hold besides their vectors: attributes, which filters look at, and texts.

Stored content comes from the files of a sealed segment. Loose content keeps the rows as they were read, in order of
arrival, and makes columns and words of them when a query first asks: so rows cost next to nothing until then. Rows may
be appended behind those that a view looks at, which disturbs no view; only the one thread that catches a library up
appends.

Loose columns and words lie in blocks, each at least twice as large as the next: asking after every single row that was
added costs some log2(n) times the making of a row, and a search some log2(n) blocks.
"""

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from itertools import chain
from pathlib import Path
from typing import Generic, NamedTuple, Protocol, Self, TypeVar

import numpy as np

from apps.engine.metadata import Attributes, Columns
from apps.engine.text.inverted_index import InvertedIndex
from apps.engine.vectors import Int64, Mask

_COLUMNS, _WORDS = "columns", "words"
# What Python needs for the objects of a row.
_ROW_BYTES = 500


class _Block(Protocol):
    def __len__(self) -> int: ...


B = TypeVar("B", bound=_Block)


class Row(NamedTuple):
    """A row besides its vector."""

    attributes: Attributes
    text: str


class Content(ABC):
    """Of the first n rows of a part, columns and words: one or several that follow one another, and that may reach
    beyond row n."""

    @abstractmethod
    def columns(self, count: int) -> Sequence[Columns]:
        """Columns of at least the first `count` rows."""

    @abstractmethod
    def words(self, count: int) -> Sequence[InvertedIndex]:
        """Words of at least the first `count` rows."""

    @property
    @abstractmethod
    def nbytes(self) -> int:
        """Memory or mapped files, as far as it is known."""


class StoredContent(Content):
    """The content of a sealed segment."""

    def __init__(self, columns: Columns, words: InvertedIndex) -> None:
        self._columns, self._words = columns, words

    def columns(self, count: int) -> Sequence[Columns]:
        return [self._columns]

    def words(self, count: int) -> Sequence[InvertedIndex]:
        return [self._words]

    def __len__(self) -> int:
        return len(self._columns)

    def save(self, folder: Path) -> None:
        """Write the files of the content into `folder`, which exists."""
        for name, part in ((_COLUMNS, self._columns), (_WORDS, self._words)):
            (folder / name).mkdir()
            part.save(folder / name)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """The content that was saved in `folder`; raises OSError or ValueError."""
        return cls(Columns.load(folder / _COLUMNS), InvertedIndex.load(folder / _WORDS))

    @classmethod
    def merged(cls, parts: Sequence[tuple[Content, int]], order: Int64) -> Self:
        """The content of the rows `order`: positions into the parts one after the other, each with its number of
        rows."""
        columns = [content.columns(count) for content, count in parts]
        words = [content.words(count) for content, count in parts]
        counts = [count for _, count in parts]
        return cls(
            Columns.merge(list(chain.from_iterable(columns)), _places(columns, counts)[order]),
            InvertedIndex.merge(list(chain.from_iterable(words)), _places(words, counts)[order]),
        )

    def has_columns_of(self, other: "StoredContent") -> bool:
        """Whether each row has the same attributes in both."""
        return self._columns.equals(other._columns)

    def has_words_of(self, other: "StoredContent") -> bool:
        """Whether each row has the same words in both."""
        return self._words.equals(other._words)

    @property
    def nbytes(self) -> int:
        return self._columns.nbytes + self._words.nbytes


class LooseContent(Content):
    """The content of rows in memory."""

    def __init__(self, rows: Sequence[Row] = ()) -> None:
        self._rows: list[Row] = []
        self._bytes = 0
        self.append(rows)
        self._columns = _Blocks(lambda rows: Columns.build([row.attributes for row in rows]), Columns.merge)
        self._words = _Blocks(lambda rows: InvertedIndex.build([row.text for row in rows]), InvertedIndex.merge)

    def append(self, rows: Sequence[Row]) -> None:
        """Add rows behind the others."""
        self._rows += rows
        self._bytes += sum(_ROW_BYTES + len(row.text) + len(row.attributes.metadata) for row in rows)

    def rows(self, mask: Mask) -> list[Row]:
        """Those of the first rows for which `mask` is true."""
        return [self._rows[place] for place in np.flatnonzero(mask).tolist()]

    def columns(self, count: int) -> Sequence[Columns]:
        return self._columns.upto(self._rows, count)

    def words(self, count: int) -> Sequence[InvertedIndex]:
        return self._words.upto(self._rows, count)

    @property
    def nbytes(self) -> int:
        return self._bytes


class _Blocks(Generic[B]):
    """What is made of rows that come one after the other."""

    def __init__(self, build: Callable[[Sequence[Row]], B], merge: Callable[[Sequence[B], Int64], B]) -> None:
        self._build, self._merge = build, merge
        self._lock = threading.Lock()
        self._made: tuple[B, ...] = ()
        self._length = 0

    def upto(self, rows: Sequence[Row], count: int) -> tuple[B, ...]:
        """Blocks of at least the first `count` rows."""
        if self._length < count:
            with self._lock:
                self._grow(rows, count)
        return self._made

    def _grow(self, rows: Sequence[Row], count: int) -> None:
        if self._length >= count:
            return
        made = [*self._made, self._build(rows[self._length : count])]
        while len(made) > 1 and len(made[-2]) < 2 * len(made[-1]):
            last = made[-2:]
            made[-2:] = [self._merge(last, np.arange(len(last[0]) + len(last[1])))]
        self._made, self._length = tuple(made), count


def _places(blocks: Sequence[Sequence[_Block]], counts: Sequence[int]) -> Int64:
    """Where the rows of all parts are among those of all blocks, which may reach beyond their part's rows."""
    found, start = [np.empty(0, np.int64)], 0
    for some, count in zip(blocks, counts, strict=True):
        found.append(np.arange(start, start + count))
        start += sum(len(block) for block in some)
    return np.concatenate(found)
