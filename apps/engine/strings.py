"""Many byte strings in one array of bytes, so that they can be mapped from a file and are no Python objects."""

from bisect import bisect_left
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from apps.engine import kernels
from apps.engine.vectors import Int64

Starts: TypeAlias = NDArray[np.integer[Any]]


# Of a string that are compared at a time, when there are not few strings.
_ROUND_BYTES = 7
_FEW = 256
_STRINGS_PER_STEP = 1 << 16


def starts_of(lengths: Int64 | list[int]) -> Starts:
    """Where ranges of these lengths start and, last, where the last one ends; in the smaller of two types."""
    starts = np.zeros(len(lengths) + 1, np.uint64)
    np.cumsum(lengths, out=starts[1:], dtype=np.uint64)
    return starts if starts[-1] >= 1 << 32 else starts.astype(np.uint32)


def lengths_of(starts: Starts) -> Int64:
    """int64 [n]: how long ranges are that start there, one after the other."""
    places = starts.astype(np.int64)
    return places[1:] - places[:-1]


def ranges(starts: Int64, lengths: NDArray[np.integer[Any]]) -> Int64:
    """The numbers of all ranges, one after the other; range i has `lengths[i]` numbers from `starts[i]` on."""
    ends = np.cumsum(lengths, dtype=np.int64)
    return np.repeat(starts - (ends - lengths), lengths) + np.arange(ends[-1] if len(ends) else 0)


class Strings:
    """Byte strings that lie one after another in `text`; `starts` has one more than there are strings."""

    def __init__(self, text: NDArray[np.uint8], starts: Starts) -> None:
        self.text, self.starts = text, starts
        # Python's own views: elements of them cost a fifth of numpy's.
        self._text, self._starts = text.data, starts.data

    @classmethod
    def of(cls, strings: list[bytes]) -> Self:
        return cls(np.frombuffer(b"".join(strings), np.uint8), starts_of(list(map(len, strings))))

    @classmethod
    def concatenate(cls, some: Sequence["Strings"]) -> Self:
        """All strings of several."""
        lengths = [np.empty(0, np.int64), *(one.lengths for one in some)]
        text = [np.empty(0, np.uint8), *(one.text for one in some)]
        return cls(np.concatenate(text), starts_of(np.concatenate(lengths)))

    def take(self, places: Int64) -> Self:
        """The strings at `places`."""
        lengths = self.lengths[places]
        starts = starts_of(lengths)
        text = np.empty(starts[-1], np.uint8)
        # In steps: the numbers of the bytes take eight times the memory of the bytes.
        for first in range(0, len(places), _STRINGS_PER_STEP):
            end = min(first + _STRINGS_PER_STEP, len(places))
            begins = self.starts[places[first:end]].astype(np.int64)
            text[starts[first] : starts[end]] = self.text[ranges(begins, lengths[first:end])]
        return type(self)(text, starts)

    @property
    def lengths(self) -> Int64:
        """int64 [n]: the number of bytes of each."""
        return lengths_of(self.starts)

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

    def find_each(self, strings: Sequence[bytes], first: int, last: int) -> list[int]:
        """The places of `strings`, where they are among the strings from `first` up to `last`, which ascend."""
        kernel = kernels.get("string_search") if len(strings) > 1 else None
        if kernel is None:
            return [at for string in strings if (at := self.find(string, first, last)) is not None]
        wanted = np.frombuffer(b"".join(strings), np.uint8)
        starts = starts_of(list(map(len, strings))).astype(np.uint64)
        places = kernel.find_each(self.text, self.starts, first, last, wanted, starts)
        found: list[int] = places[places >= 0].tolist()
        return found

    def joined(self, first: int, last: int) -> bytes:
        """The same as one string."""
        return bytes(self._text[self._starts[first] : self._starts[last]])


def rank(strings: Strings, groups: Int64 | None = None) -> tuple[Int64, Int64]:
    """int64 [n]: the rank of each string among the distinct ones; and for each of these the number of one that is
    equal. With `groups` [n], small numbers, of each pair of a group and a string.

    A radix sort from the front, seven bytes a round, that goes on with those that are equal so far. Costs some 0.3
    microseconds a string, where few share long beginnings, and 100 bytes.
    """
    count = len(strings)
    if 0 < count < _FEW:
        # Calls of numpy would cost more.
        pairs = list(zip([0] * count if groups is None else groups.tolist(), strings.some(0, count), strict=True))
        numbers = {pair: i for i, pair in enumerate(pairs)}
        distinct = sorted(numbers)
        places = {pair: i for i, pair in enumerate(distinct)}
        return np.array([places[one] for one in pairs], np.int64), np.array(
            [numbers[one] for one in distinct], np.int64
        )
    text = np.append(strings.text, np.zeros(_ROUND_BYTES, np.uint8))
    begins, left = strings.starts[:-1].astype(np.int64), strings.lengths
    # How many strings come before each, as far as is known: those with equal numbers are tied.
    before = np.zeros(count, np.int64)
    if groups is not None:
        sizes = np.bincount(groups)
        before = (np.cumsum(sizes) - sizes)[groups]
    tied = np.arange(count)
    while len(tied):
        digits = _digits(text, begins[tied], left[tied])
        order = np.lexsort((digits, before[tied])) if before.any() else np.argsort(digits)
        tied, digits = tied[order], digits[order]
        known = before[tied]
        is_group = np.diff(known, prepend=-1) != 0
        is_tie = is_group.copy()
        is_tie[1:] |= digits[1:] != digits[:-1]
        group_starts, starts = np.flatnonzero(is_group), np.flatnonzero(is_tie)
        sizes = np.diff(starts, append=len(tied))
        within = np.repeat(starts, sizes) - np.repeat(group_starts, np.diff(group_starts, append=len(tied)))
        before[tied] = known + within
        tied = tied[np.repeat(sizes > 1, sizes) & (digits & np.uint64(255) > _ROUND_BYTES)]
        begins[tied] += _ROUND_BYTES
        left[tied] -= _ROUND_BYTES
    is_first = np.zeros(count, np.bool_)
    is_first[before] = True
    ranks = (np.cumsum(is_first) - 1)[before]
    equal = np.empty(np.count_nonzero(is_first), np.int64)
    equal[ranks] = np.arange(count)
    return ranks, equal


def _digits(text: NDArray[np.uint8], begins: Int64, left: Int64) -> NDArray[np.uint64]:
    """A number for the next bytes of each string, whose order is that of the bytes; a string that ends is before all
    that go on."""
    found = np.minimum(left, _ROUND_BYTES + 1).astype(np.uint64)
    for i in range(_ROUND_BYTES):
        byte = np.where(i < left, text[begins + i], np.uint8(0)).astype(np.uint64)
        found |= byte << np.uint64(8 * (_ROUND_BYTES - i))
    return found
