"""Many byte strings in one array of bytes, so that they can be mapped from a file and are no Python objects."""

from abc import ABC, abstractmethod
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
# Of packed strings: those of a block, and the longest beginning that they have once.
_BLOCK = 16
_LONGEST_PREFIX = 255


def starts_of(lengths: Int64 | list[int]) -> Starts:
    """Where ranges of these lengths start and, last, where the last one ends; in the smaller of two types."""
    starts = np.zeros(len(lengths) + 1, np.uint64)
    np.cumsum(lengths, out=starts[1:], dtype=np.uint64)
    return _narrow(starts)


def _narrow(starts: NDArray[np.uint64]) -> Starts:
    return starts if starts[-1] >= 1 << 32 else starts.astype(np.uint32)


def lengths_of(starts: Starts) -> Int64:
    """int64 [n]: how long ranges are that start there, one after the other."""
    places = starts.astype(np.int64)
    return places[1:] - places[:-1]


def ranges(starts: Int64, lengths: NDArray[np.integer[Any]]) -> Int64:
    """The numbers of all ranges, one after the other; range i has `lengths[i]` numbers from `starts[i]` on."""
    ends = np.cumsum(lengths, dtype=np.int64)
    return np.repeat(starts - (ends - lengths), lengths) + np.arange(ends[-1] if len(ends) else 0)


class _Searched(ABC):
    """Byte strings, which may be looked for where they ascend."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, i: int) -> bytes: ...

    def find(self, string: bytes, first: int, last: int) -> int | None:
        """The place of `string` among the strings from `first` up to `last`, which ascend; None if it is not there."""
        at = bisect_left(self, string, first, last)
        return at if at < last and self[at] == string else None


class Strings(_Searched):
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
        text = _copy_ranges(self.text, self.starts[places].astype(np.int64), lengths)
        return type(self)(text, starts_of(lengths))

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
        starts = self.starts[first : last + 1].tolist()
        text = bytes(self._text[starts[0] : starts[-1]])
        return [text[a - starts[0] : b - starts[0]] for a, b in pairwise(starts)]


class PackedStrings(_Searched):
    """Byte strings in less memory where neighbours begin alike, as sorted ones do. Of each sixteen, a block, the
    beginning that all of them share is kept once, and behind it what is left of each, one after another.

    text      uint8, block after block
    blocks    uint64 [blocks + 1], where each block starts in `text`
    prefixes  uint8 [blocks], the length of its shared beginning
    ends      uint16, or uint32 where it must be [n], where each string ends, counted from the start of its block
    """

    def __init__(
        self,
        text: NDArray[np.uint8],
        blocks: NDArray[np.uint64],
        prefixes: NDArray[np.uint8],
        ends: NDArray[np.unsignedinteger[Any]],
    ) -> None:
        self.text, self.blocks, self.prefixes, self.ends = self._arrays = text, blocks, prefixes, ends
        self._text, self._blocks, self._prefixes, self._ends = text.data, blocks.data, prefixes.data, ends.data

    @classmethod
    def pack(cls, strings: Strings) -> Self:
        """The same strings, packed."""
        count, lengths, begins = len(strings), strings.lengths, strings.starts[:-1].astype(np.int64)
        firsts = np.arange(0, count, _BLOCK)
        prefixes = _shared_prefixes(strings.text, begins, lengths)
        of_each = np.repeat(prefixes, np.diff(firsts, append=count))
        # The pieces of the text: the shared beginning of a block before the rests of its strings.
        pieces = np.insert(begins + of_each, firsts, begins[firsts])
        sizes = np.insert(lengths - of_each, firsts, prefixes)
        ends = np.cumsum(sizes)
        starts = np.append(0, ends)[:: _BLOCK + 1]
        blocks = np.append(starts[: len(firsts)], ends[-1:] if count else 0)
        is_rest = np.ones(len(sizes), np.bool_)
        is_rest[:: _BLOCK + 1] = False
        ends = ends[is_rest] - np.repeat(blocks[:-1], np.diff(firsts, append=count))
        return cls(
            _copy_ranges(strings.text, pieces, sizes),
            blocks.astype(np.uint64),
            prefixes.astype(np.uint8),
            ends.astype(np.uint16 if ends.max(initial=0) < 1 << 16 else np.uint32),
        )

    def check(self) -> None:
        """Raise ValueError where the arrays do not fit each other by their types, lengths and ends."""
        count = -(-len(self.ends) // _BLOCK)
        types = [array.dtype.name for array in self._arrays]
        if types[:3] != ["uint8", "uint64", "uint8"] or types[3] not in ("uint16", "uint32"):
            raise ValueError("packed strings are of other types")
        if (len(self.blocks), len(self.prefixes)) != (count + 1, count):
            raise ValueError("the blocks of packed strings are not as many as these need")
        if self.blocks[0] != 0 or self.blocks[-1] != len(self.text):
            raise ValueError("packed strings are not as long as their blocks say")

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, i: int) -> bytes:
        block, text, ends = i // _BLOCK, self._text, self._ends
        start, prefix = self._blocks[block], self._prefixes[block]
        rest = ends[i - 1] if i % _BLOCK else prefix
        return b"".join((text[start : start + prefix], text[start + rest : start + ends[i]]))

    def take(self, places: Int64) -> Strings:
        """The strings at `places`."""
        kernel = kernels.get("string_search")
        if kernel is not None:
            text, found = kernel.take(*self._arrays, places)
            return Strings(text, _narrow(found))
        which = places // _BLOCK
        starts, prefixes = self.blocks[which].astype(np.int64), self.prefixes[which].astype(np.int64)
        rests = np.where(places % _BLOCK, self.ends[places - 1], prefixes) if len(places) else prefixes
        # Each string is two pieces of the text.
        pieces = np.stack([starts, starts + rests], axis=1)
        sizes = np.stack([prefixes, self.ends[places] - rests], axis=1)
        return Strings(_copy_ranges(self.text, pieces.ravel(), sizes.ravel()), starts_of(sizes.sum(axis=1)))

    def unpack(self, first: int, last: int) -> Strings:
        """The strings from `first` up to `last`, which is not among them."""
        return self.take(np.arange(first, last))

    def some(self, first: int, last: int) -> list[bytes]:
        """The same as a list."""
        if last - first < _FEW:
            return [self[i] for i in range(first, last)]
        return self.unpack(first, last).some(0, last - first)

    def find_each(self, strings: Sequence[bytes], first: int, last: int) -> list[int]:
        """The places of `strings`, where they are among the strings from `first` up to `last`, which ascend."""
        kernel = kernels.get("string_search") if len(strings) > 1 else None
        if kernel is None:
            return [at for string in strings if (at := self.find(string, first, last)) is not None]
        wanted = np.frombuffer(b"".join(strings), np.uint8)
        starts = starts_of(list(map(len, strings))).astype(np.uint64)
        places = kernel.find_each(*self._arrays, first, last, wanted, starts)
        found: list[int] = places[places >= 0].tolist()
        return found


def _shared_prefixes(text: NDArray[np.uint8], begins: Int64, lengths: Int64) -> Int64:
    """int64 [blocks]: how many bytes all strings of each block begin with. String i is at `begins[i]`."""
    count = -(-len(begins) // _BLOCK)
    padding = (0, count * _BLOCK - len(begins))
    begins = np.pad(begins, padding, "edge").reshape(count, _BLOCK) if count else begins.reshape(0, _BLOCK)
    shortest = np.minimum.reduceat(lengths, np.arange(0, len(lengths), _BLOCK)) if count else lengths
    limits, prefixes = np.minimum(shortest, _LONGEST_PREFIX), np.zeros(count, np.int64)
    left = np.flatnonzero(limits)
    while len(left):
        digits = text[begins[left] + prefixes[left, np.newaxis]]
        left = left[(digits == digits[:, :1]).all(axis=1)]
        prefixes[left] += 1
        left = left[prefixes[left] < limits[left]]
    return prefixes


def _copy_ranges(text: NDArray[np.uint8], starts: Int64, lengths: Int64) -> NDArray[np.uint8]:
    """The ranges of `text` that start at `starts` [n] and have `lengths` [n], one after another."""
    ends = starts_of(lengths)
    found = np.empty(ends[-1], np.uint8)
    kernel = kernels.get("string_search")
    if kernel is not None:
        kernel.copy_ranges(text, starts, lengths, found)
        return found
    # In steps: the numbers of the bytes take eight times the memory of the bytes.
    for first in range(0, len(starts), _STRINGS_PER_STEP):
        end = min(first + _STRINGS_PER_STEP, len(starts))
        found[ends[first] : ends[end]] = text[ranges(starts[first:end], lengths[first:end])]
    return found


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
