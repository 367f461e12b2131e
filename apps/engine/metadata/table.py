"""The attributes of n rows, column by column: which rows match a filter, and how many rows have each value.

Immutable; the arrays are those of `layout.py`. A field of metadata, by its name (`paths.py`), is a column, and so are
`@id` and `@document_id`. A value is found by bisection in its column; ranges and prefixes are two places between
values; and the rows of values that lie side by side lie side by side too. So a condition costs a search, some
microseconds, and a write to as many places of a mask as rows match, or as do not where that is most of them.
`$contains` of a string looks at each distinct string of the column, `@created_at` at each row. A column's strings that
are dates are there once more, as instants in a column of their own. Nothing is computed ahead: many threads may read.

The other way round, from a row to its value, is `by_row.py`.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Self

import numpy as np

from apps.engine.expiry import NEVER, NONE_EXPIRING, Expiring
from apps.engine.metadata.assembly import merge_layouts
from apps.engine.metadata.building import Attributes, build_layout, build_layouts
from apps.engine.metadata.by_row import ValuesByRow
from apps.engine.metadata.facets import Counts, count_rows
from apps.engine.metadata.filters import (
    And,
    Between,
    Condition,
    Contains,
    ContainsFolded,
    Filter,
    HasKey,
    HasMember,
    Not,
    OneOf,
    Or,
)
from apps.engine.metadata.instants import NANOSECONDS
from apps.engine.metadata.layout import Layout, UInt32
from apps.engine.metadata.ordering import NO_RANK, Ranks
from apps.engine.metadata.paths import CREATED_AT, DOCUMENT, DOCUMENT_ID, EXPIRES_AT, ID, TIMES, instants_of
from apps.engine.metadata.summaries import ColumnSummary, summarize
from apps.engine.metadata.values import ARRAY, NUMBER_BYTES, STRING, scalar_of
from apps.engine.strings import Starts, ranges
from apps.engine.vectors import Float64, Int64, Mask

# If more than one string in _MANY contains the part, it is quicker to test each string than to map places to strings.
_MANY = 8


def evaluate(filter: Filter, keys: Int64, mask_of: Callable[[Condition], Mask]) -> Mask:
    """bool [n]: which of the rows `keys` [n] match; `mask_of` gives a new mask for a condition."""
    match filter:
        case And(parts):
            found = np.ones(len(keys), np.bool_)
            for part in parts:
                found &= evaluate(part, keys, mask_of)
        case Or(parts):
            found = np.zeros(len(keys), np.bool_)
            for part in parts:
                found |= evaluate(part, keys, mask_of)
        case Not(part):
            found = evaluate(part, keys, mask_of)
            np.logical_not(found, out=found)
        case Condition():
            found = mask_of(filter)
        case HasKey(wanted):
            found = np.isin(keys, wanted)
        case _:
            raise TypeError(f"{filter!r} is no filter")
    return found


class Columns:
    """The attributes of `len(self)` rows."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._by_row = ValuesByRow(layout)

    @classmethod
    def build(cls, rows: Sequence[Attributes]) -> Self:
        """The columns of `rows`. Metadata that is not the JSON of an object counts as `{}`."""
        return cls(build_layout(rows))

    @classmethod
    def build_each(cls, rows: Sequence[Attributes], paths: Collection[str]) -> list[Self]:
        """For each of `paths` its column alone. Reads each row once, and no row that lacks them."""
        return [cls(layout) for layout in build_layouts(rows, paths)]

    @classmethod
    def merge(cls, parts: Sequence["Columns"], order: Int64) -> Self:
        """The columns of the rows `order` [n], distinct positions into the concatenation of `parts`."""
        return cls(merge_layouts([part._layout for part in parts], order))

    def equals(self, other: "Columns") -> bool:
        """Whether each row has the same attributes in both, as far as a filter can tell."""
        return self._layout.equals(other._layout)

    def save(self, folder: Path) -> None:
        """Write two files into `folder`, which exists."""
        self._layout.save(folder)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """What `save` wrote, mapped; raises ValueError or OSError for files that do not fit each other."""
        return cls(Layout.load(folder))

    def __len__(self) -> int:
        return len(self._layout.created_at)

    @cached_property
    def expiring(self) -> Expiring:
        """The rows that expire."""
        times = self._layout.expires_at
        places = np.flatnonzero(times != NEVER)
        return Expiring.of(times[places], places) if len(places) else NONE_EXPIRING

    @cached_property
    def nbytes(self) -> int:
        """Memory or mapped files."""
        return self._layout.nbytes

    def mask(self, filter: Filter) -> Mask:
        """bool [n]: which rows match. The rows have no keys here."""
        return evaluate(filter, np.full(len(self), -1), self.mask_of)

    def mask_of(self, condition: Condition) -> Mask:
        """bool [n]: which rows match a condition."""
        match condition:
            case OneOf(path, keys):
                return self._one_of_times(path, keys) if path in TIMES else self._one_of(path, keys)
            case Between(path, low, high):
                return self._between_times(path, low, high) if path in TIMES else self._between(path, low, high)
            case HasMember(path, key):
                return self._has_member(path, key)
            case Contains(path, key):
                return self._contains(path, key)
            case ContainsFolded(path, text):
                return self._contains_folded(path, text)
        raise TypeError(f"{condition!r} is no condition")

    def counts(self, path: str, allowed: Mask | None = None) -> Counts:
        """The number of the rows `allowed` [n] (None: all) that have each value of a field.

        Values are scalars, null among them, and the scalar members of arrays; a row counts once for each value that
        it has, however often. Numbers are integers where they are whole and within 64 bits. `path` is the name of a
        field of metadata, the document's too, `@id` or `@document_id`; raises ValueError for another of that kind.
        """
        if path.startswith(("@", "$")) and path not in (ID, DOCUMENT_ID) and not path.startswith(DOCUMENT):
            raise ValueError(f"{path} is no field whose values are counted")
        layout, whole = self._layout, self._count_whole(path, allowed)
        first = whole.first
        last = bisect_left(layout.values, ARRAY, first, first + len(whole.counts))
        members = count_rows(layout.first_member[first : last + 1], layout.member_rows, allowed)
        return Counts(layout.values, first, whole.counts[: last - first] + members)

    def summary(self, path: str, allowed: Mask | None = None) -> ColumnSummary:
        """The types of the values that the rows `allowed` [n] (None: all) have at `path`, and the counts of these."""
        return ColumnSummary(summarize(self._count_whole(path, allowed)), self.counts(path, allowed))

    def row_counts(self, allowed: Mask | None = None) -> Iterator[tuple[str, int]]:
        """The names of all fields of metadata, and the number of the rows `allowed` [n] (None: all) that have each;
        only those that some have."""
        layout = self._layout
        sums = count_rows(layout.first_row[layout.first_value], layout.rows, allowed)
        for i in np.flatnonzero(sums).tolist():
            name = layout.names[i].decode()
            if not name.startswith(("@", "$")) or name.startswith(DOCUMENT):
                yield name, int(sums[i])

    @property
    def field_count(self) -> int:
        """The number of columns."""
        return len(self._layout.names)

    def _count_whole(self, path: str, allowed: Mask | None) -> Counts:
        """The number of allowed rows whose value at `path` is this one, of whatever type; not those within arrays."""
        first, last = self._column(path)
        layout = self._layout
        return Counts(layout.values, first, count_rows(layout.first_row[first : last + 1], layout.rows, allowed))

    def keys_at(self, path: str, rows: Int64) -> list[bytes | None]:
        """The key of the value that each of `rows` has at `path`, which is no time of the chunk's own; None where there
        is none."""
        return self._by_row.keys_at(path, rows)

    def numbers_at(self, path: str, rows: Int64) -> Float64:
        """float64 [n]: the number that each of `rows` has at `path`; NaN where there is none."""
        return self._by_row.numbers_at(path, rows)

    def times_at(self, path: str, rows: Int64) -> Float64:
        """float64 [n]: the date or time that each of `rows` has at `path`, in seconds since the epoch; NaN where there
        is none."""
        if path in TIMES:
            times = self._times(path)[rows]
            return np.where(times == NEVER, np.nan, times / 1e6)
        return self.numbers_at(instants_of(path), rows) / NANOSECONDS

    def ranks(self, path: str) -> Ranks:
        """The order of the rows by the field at `path`."""
        if path in TIMES:
            return Ranks(self._times(path))
        ranks = self._by_row.values(path).astype(np.int64)
        ranks[ranks < 0] = NO_RANK
        return Ranks(ranks, self._layout.values, *self._column(path))

    def _column(self, path: str) -> tuple[int, int]:
        """The range of the values of a column; empty if there is none."""
        return self._layout.column(path)

    def _between(self, path: str, low: bytes, high: bytes) -> Mask:
        """The rows whose value at `path` has a key from `low` up to `high`, without it."""
        first, last = column = self._column(path)
        start = bisect_left(self._layout.values, low, first, last)
        return self._side_by_side(column, start, bisect_left(self._layout.values, high, start, last))

    def _side_by_side(self, column: tuple[int, int], first: int, last: int) -> Mask:
        """The rows whose value in a column is one of those from `first` up to `last`, without it."""
        layout = self._layout
        begin, start, stop, end = (int(layout.first_row[i]) for i in (column[0], first, last, column[1]))
        if end - begin < len(self) or 2 * (stop - start) <= len(self):
            found = np.zeros(len(self), np.bool_)
            found[layout.rows[start:stop]] = True
        else:
            # All rows have the field, and most of them match: fewer are to be taken out.
            found = np.ones(len(self), np.bool_)
            found[layout.rows[begin:start]] = False
            found[layout.rows[stop:end]] = False
        return found

    def _one_of(self, path: str, keys: tuple[bytes, ...]) -> Mask:
        layout, column = self._layout, self._column(path)
        hits = layout.values.find_each(keys, *column)
        if len(hits) == 1:
            found = self._side_by_side(column, hits[0], hits[0] + 1)
        else:
            found = np.zeros(len(self), np.bool_)
            found[_rows_of(hits, layout.first_row, layout.rows)] = True
        found[_rows_of(hits, layout.first_member, layout.member_rows)] = True
        return found

    def _times(self, path: str) -> Int64:
        """The times of one of TIMES, of each row; NEVER where it has none."""
        if path == EXPIRES_AT and not len(self._layout.expires_at):
            return np.full(len(self), NEVER)
        return self._layout.created_at if path == CREATED_AT else self._layout.expires_at

    def _one_of_times(self, path: str, keys: tuple[bytes, ...]) -> Mask:
        return np.isin(self._times(path), np.array([scalar_of(key) for key in keys], np.int64))

    def _between_times(self, path: str, low: bytes, high: bytes) -> Mask:
        """As `_between`, for one of TIMES. Of a bound without a number all times are on the right side."""
        times = self._times(path)
        found: Mask = times != NEVER
        if len(low) > 1:
            found &= times >= _first_time(low)
        if len(high) > 1:
            found &= times < _first_time(high)
        return found

    def _has_member(self, path: str, key: bytes) -> Mask:
        layout, found = self._layout, np.zeros(len(self), np.bool_)
        hit = layout.values.find(key, *self._column(path))
        if hit is not None:
            found[_rows_of([hit], layout.first_member, layout.member_rows)] = True
        return found

    def _contains(self, path: str, key: bytes) -> Mask:
        found = self._has_member(path, key)
        if key == STRING:
            found |= self._between(path, STRING, ARRAY)
        elif key.startswith(STRING):
            layout, (first, last) = self._layout, self._strings(path)
            if layout.first_row[first] < layout.first_row[last]:  # Otherwise all of them are members of arrays only.
                text = layout.values.joined(first, last)
                hits = self._with_part(text, key[len(STRING) :], first, last)
                found[_rows_of(hits, layout.first_row, layout.rows)] = True
        return found

    def _contains_folded(self, path: str, part: str) -> Mask:
        layout, (first, last) = self._layout, self._strings(path)
        found = np.zeros(len(self), np.bool_)
        text = layout.values.joined(first, last)
        if text.isascii():
            # Then lower case is the folded one, of the same length.
            text = text.lower()
            hits = self._with_part(text, part.encode(), first, last) if part else list(range(first, last))
            bounds = (layout.values.starts[first : last + 1] - layout.values.starts[first]).tolist()
            equal = [i for i in hits if text[bounds[i - first] + 1 : bounds[i - first + 1]] == part.encode()]
        else:
            folded = [key[len(STRING) :].decode().casefold() for key in layout.values.some(first, last)]
            hits = [i for i, string in enumerate(folded, first) if part in string]
            equal = [i for i in hits if folded[i - first] == part]
        found[_rows_of(hits, layout.first_row, layout.rows)] = True
        found[_rows_of(equal, layout.first_member, layout.member_rows)] = True
        return found

    def _strings(self, path: str) -> tuple[int, int]:
        """The range of the strings of a column."""
        first, end = self._column(path)
        first = bisect_left(self._layout.values, STRING, first, end)
        return first, bisect_left(self._layout.values, ARRAY, first, end)

    def _with_part(self, text: bytes, part: bytes, first: int, last: int) -> list[int]:
        """Those of the values from `first` up to `last`, all strings, that have `part`, which is not empty. `text` is
        these values one after another, in the one or the other case."""
        starts = self._layout.values.starts.data
        base = starts[first]
        if _MANY * text.count(part) > last - first:
            bounds = pairwise((self._layout.values.starts[first : last + 1] - base).tolist())
            return [first + i for i, (start, end) in enumerate(bounds) if text.find(part, start + 1, end) >= 0]
        found: list[int] = []
        at = text.find(part)
        while at >= 0:
            value = bisect_right(starts, base + at, first, last) - 1
            end = starts[value + 1] - base
            # Not so for a part with the byte of the type, or with one from the next value.
            if base + at > starts[value] and at + len(part) <= end:
                found.append(value)
                at = text.find(part, end)
            else:
                at = text.find(part, at + 1)
        return found


def _first_time(bound: bytes) -> int:
    """The first whole number whose key is not before `bound`, which is a number's key or one with a byte behind it."""
    key = bound[:NUMBER_BYTES]
    return int(scalar_of(key) or 0) + (len(bound) > len(key))


def _rows_of(hits: list[int], starts: Starts, rows: UInt32) -> UInt32:
    """The rows of the values `hits`."""
    if not hits or not len(rows):
        return rows[:0]
    if len(hits) == 1:
        return rows[int(starts[hits[0]]) : int(starts[hits[0] + 1])]
    which = np.array(hits, np.int64)
    begins = starts[which].astype(np.int64)
    return rows[ranges(begins, starts[which + 1].astype(np.int64) - begins)]
