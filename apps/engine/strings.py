"""Many byte strings in one array of bytes, so that they can be mapped from a file and are no Python objects."""

from bisect import bisect_left
from itertools import pairwise
from typing import Any, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from apps.engine.vectors import Int64

Starts: TypeAlias = NDArray[np.integer[Any]]


def starts_of(lengths: Int64 | list[int]) -> Starts:
    """Where ranges of these lengths start and, last, where the last one ends; in the smaller of two types."""
    starts = np.zeros(len(lengths) + 1, np.uint64)
    np.cumsum(lengths, out=starts[1:], dtype=np.uint64)
    return starts if starts[-1] > np.iinfo(np.uint32).max else starts.astype(np.uint32)


class Strings:
    """Byte strings that lie one after another in `text`; `starts` has one more than there are strings."""

    def __init__(self, text: NDArray[np.uint8], starts: Starts) -> None:
        self.text, self.starts = text, starts
        # Python's own views: elements of them cost a fifth of numpy's.
        self._text, self._starts = text.data, starts.data

    @classmethod
    def of(cls, strings: list[bytes]) -> Self:
        return cls(np.frombuffer(b"".join(strings), np.uint8), starts_of([len(one) for one in strings]))

    def __len__(self) -> int:
        return len(self._starts) - 1

    def __getitem__(self, i: int) -> bytes:
        return bytes(self._text[self._starts[i] : self._starts[i + 1]])

    def some(self, first: int, last: int) -> list[bytes]:
        """The strings from `first` up to `last`, which is not among them."""
        starts, text = self.starts[first : last + 1].tolist(), self.joined(first, last)
        return [text[a - starts[0] : b - starts[0]] for a, b in pairwise(starts)]

    def find(self, string: bytes, first: int, last: int) -> int | None:
        """The place of `string` among the strings from `first` up to `last`, which ascend; None if it is not there."""
        at = bisect_left(self, string, first, last)
        return at if at < last and self[at] == string else None

    def joined(self, first: int, last: int) -> bytes:
        """The same as one string."""
        return bytes(self._text[self._starts[first] : self._starts[last]])
