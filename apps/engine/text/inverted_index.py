"""The index of one part: for each word the rows that hold it, and for each row its words in order.

An index never changes after it was built. Words are numbered in the order of their UTF-8 bytes and looked up by
bisection in the file's bytes, so opening an index makes no table of them. The arrays, and the files of a saved index,
are:

words.npy        uint8, the words' UTF-8 bytes, one after the other
ends.npy         int64 [2, w + 1]: where each word begins in `words`, and its rows in `rows`; the last is the end
rows.npy         int32 [p], for each word the rows that hold it, ascending
frequencies.npy  uint8, or wider where it must be [p]: how often
tokens.npy       int32, the words of each row in order, by number, row after row
lengths.npy      int32 [n], the number of words of each row

The first four find rows by words. The last two serve phrases, the length of a row in its score, and merging, which
renumbers words and reads no text again. Costs some 10 bytes for each word of a row; while building or merging, some 70.
"""

from array import array
from collections import defaultdict
from collections.abc import Sequence
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from apps.engine.array_files import map_array, save_array
from apps.engine.strings import Strings, ranges, rank
from apps.engine.text.analyzer import tokenize
from apps.engine.vectors import Int64, equal_arrays

Int32 = NDArray[np.int32]

_TYPES = {"words": np.uint8, "ends": np.int64, "rows": np.int32, "tokens": np.int32, "lengths": np.int32}
# Where fewer than one row in this many has a word, rows are looked at one by one.
_SPARSE = 16


class Postings(NamedTuple):
    """The arrays of an index; see the head of this module."""

    words: NDArray[np.uint8]
    ends: Int64
    rows: Int32
    frequencies: NDArray[np.unsignedinteger[Any]]
    tokens: Int32
    lengths: Int32


class InvertedIndex:
    """The words of `len(self)` rows; rows are named by their position in the texts it was built from.

    rows         int32 [p], the rows that hold each word, ascending, word after word
    frequencies  unsigned [p], how often each of `rows` has its word
    lengths      int32 [n], the number of words of each row
    tokens       the number of words of all rows together
    """

    def __init__(self, arrays: Postings) -> None:
        self._arrays = arrays
        self.rows, self.frequencies, self.lengths = arrays.rows, arrays.frequencies, arrays.lengths
        self.tokens = len(arrays.tokens)
        self._words = Strings(arrays.words, arrays.ends[0])

    @classmethod
    def build(cls, texts: Sequence[str]) -> Self:
        """Index `texts`, row by row. A text may be empty, and no string is invalid."""
        numbers: defaultdict[str, int] = defaultdict(count().__next__)
        tokens, lengths = array("i"), array("i")
        for text in texts:
            found = tokenize(text)
            lengths.append(len(found))
            tokens.extend(map(numbers.__getitem__, found))
        words = Strings.of([word.encode() for word in numbers])
        return cls(_index_tokens(words, np.array(tokens, np.int32), np.array(lengths, np.int32)))

    @classmethod
    def merge(cls, parts: Sequence["InvertedIndex"], order: Int64) -> Self:
        """The index of the rows `order`, which are positions in the concatenation of `parts`."""
        words = Strings.concatenate([part._words for part in parts])
        tokens, lengths, start = [np.empty(0, np.int32)], [np.empty(0, np.int32)], 0
        for part in parts:
            tokens.append(part._arrays.tokens + np.int32(start))
            lengths.append(part.lengths)
            start += len(part._words)
        all_lengths = np.concatenate(lengths)
        places = ranges(_starts(all_lengths)[order], all_lengths[order])
        return cls(_index_tokens(words, np.concatenate(tokens)[places], all_lengths[order]))

    def equals(self, other: "InvertedIndex") -> bool:
        """Whether each row has the same words in both."""
        return equal_arrays(self._arrays._asdict(), other._arrays._asdict())

    def save(self, folder: Path) -> None:
        """Write the files of the index into `folder`, which exists."""
        for name, values in self._arrays._asdict().items():
            save_array(folder / f"{name}.npy", values)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """The index in `folder`, mapped. Raises OSError or ValueError for files that make none; checks the types and
        lengths of the arrays, not what they hold."""
        arrays = Postings(*(map_array(folder / f"{name}.npy") for name in Postings._fields))
        for name, values in arrays._asdict().items():
            is_typed = values.dtype == _TYPES[name] if name in _TYPES else values.dtype.kind == "u"
            if not is_typed or values.ndim != (2 if name == "ends" else 1) or not values.flags.c_contiguous:
                raise ValueError(f"{name}.npy holds an array of another type or shape")
        if arrays.ends.shape[0] != 2 or not arrays.ends.shape[1]:
            raise ValueError("ends.npy holds an array of another shape")
        if arrays.ends[:, 0].any() or arrays.ends[:, -1].tolist() != [len(arrays.words), len(arrays.rows)]:
            raise ValueError("words.npy or rows.npy is not as long as ends.npy says")
        if len(arrays.frequencies) != len(arrays.rows) or int(arrays.lengths.sum(dtype=np.int64)) != len(arrays.tokens):
            raise ValueError("frequencies.npy or tokens.npy is of another length")
        return cls(arrays)

    def __len__(self) -> int:
        return len(self._arrays.lengths)

    @cached_property
    def nbytes(self) -> int:
        """Memory or mapped files."""
        return sum(values.nbytes for values in self._arrays)

    def locate(self, encoded: Sequence[bytes]) -> list[int]:
        """The numbers of words, given as UTF-8; -1 for a word that no row has."""
        found = (self._words.find(word, 0, len(self._words)) for word in encoded)
        return [-1 if number is None else number for number in found]

    def spans(self, numbers: Sequence[int]) -> Int64:
        """int64 [words, 2]: from where to where the rows of each of the words `numbers`, as `locate` gives them, lie in
        `rows` and `frequencies`; an empty span for -1."""
        located = np.array(numbers, np.int64)
        found: Int64 = self._arrays.ends[1][located[:, None] + [0, 1]]
        found[located < 0] = 0
        return found

    def rows_with(self, phrase: Sequence[int]) -> Int64:
        """The rows, ascending, that have the words `phrase` side by side; none if one of these numbers is -1."""
        if min(phrase) < 0:
            return np.empty(0, np.int64)
        tokens, starts, size = self._arrays.tokens, self._starts, len(phrase)
        holders = sorted((self._holders(number) for number in set(phrase)), key=len)
        # The rarest word first: it leaves the fewest places to look at for the others.
        offsets = sorted(range(size), key=lambda offset: len(self._holders(phrase[offset])))
        if len(holders[0]) * _SPARSE < len(self):
            rows = _in_all(holders)
            rows = rows[self.lengths[rows] >= size]
            places = ranges(starts[rows], self.lengths[rows] - (size - 1))
        else:
            # Reading all words one after the other is cheaper than those of many rows here and there.
            first = offsets.pop(0)
            places = np.flatnonzero(tokens[first : max(len(tokens) - size + 1, 0) + first] == phrase[first])
        for offset in offsets:
            places = places[tokens[places + offset] == phrase[offset]]
        # A row without words begins where the next does; the last of those that begin there is meant.
        owners = np.searchsorted(starts, places, side="right") - 1
        owners = owners[places + size <= starts[owners] + self.lengths[owners]]
        distinct: Int64 = owners[np.diff(owners, prepend=-1) != 0]
        return distinct

    @cached_property
    def _starts(self) -> Int64:
        return _starts(self._arrays.lengths)

    def _holders(self, number: int) -> Int32:
        """The rows that hold a word."""
        first, end = self._arrays.ends[1, number : number + 2].tolist()
        return self.rows[first:end]


def _index_tokens(words: Strings, tokens: Int32, lengths: Int32) -> Postings:
    """The arrays of rows of `lengths` [n], whose words, row after row, are `tokens`: places in `words`, which may have
    words twice, and words that no row has."""
    ranks, places = rank(words)
    tokens = ranks.astype(np.int32)[tokens]
    rows = max(len(lengths), 1)
    # One sort brings equal words together with their rows ascending, which a sort by word alone would have to be
    # stable for.
    pairs = tokens * np.int64(rows) + np.repeat(np.arange(len(lengths)), lengths)
    pairs.sort()
    firsts = np.flatnonzero(np.diff(pairs, prepend=-1))
    frequencies = np.diff(firsts, append=len(pairs))
    words_of_pairs, rows_of_pairs = np.divmod(pairs[firsts], rows)
    counts = np.bincount(words_of_pairs, minlength=len(places))
    is_used = counts > 0
    if not is_used.all():
        places, counts = places[is_used], counts[is_used]
        tokens = (np.cumsum(is_used, dtype=np.int32) - 1)[tokens]
    used = words.take(places)
    return Postings(
        words=used.text,
        ends=np.array([used.starts, np.append(0, np.cumsum(counts))], np.int64),
        rows=rows_of_pairs.astype(np.int32),
        frequencies=frequencies.astype(np.min_scalar_type(int(frequencies.max(initial=0)))),
        tokens=np.ascontiguousarray(tokens, np.int32),
        lengths=np.ascontiguousarray(lengths, np.int32),
    )


def _in_all(ascending: Sequence[Int32]) -> Int32:
    """The numbers that are in all of several arrays; each ascends without repetition, and the first is the shortest."""
    common = ascending[0]
    for other in ascending[1:]:
        near = np.minimum(np.searchsorted(other, common), len(other) - 1)
        common = common[other[near] == common]
    return common


def _starts(lengths: Int32) -> Int64:
    """int64 [n]: where each row begins; rows of `lengths` lie one after the other."""
    ends = np.cumsum(lengths, dtype=np.int64)
    return ends - lengths
