"""The attributes of n rows, column by column: which rows match a filter, and how many rows have each value.

Immutable; the arrays are those of `layout.py`. A field of metadata, by its name (`paths.py`), is a column, and so are
`@id` and `@document_id`. A value is found by bisection in its column; ranges and prefixes are two places between
values; and the rows of values that lie side by side lie side by side too. So a condition costs a search, some
microseconds, and a write to as many places of a mask as rows match, or as do not where that is most of them. The
members of a field's arrays are a column of their own, which `$eq` looks into besides.
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
from apps.engine.metadata.layout import NO_COLUMN, Layout, RowNumbers
from apps.engine.metadata.ordering import NO_RANK, Ranks
from apps.engine.metadata.paths import CREATED_AT, DOCUMENT, DOCUMENT_ID, EXPIRES_AT, ID, TIMES, instants_of, members_of
from apps.engine.metadata.summaries import ColumnSummary, summarize
from apps.engine.metadata.values import ARRAY, STRING, scalar_of
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
                return _between_times(self._times(path), low, high) if path in TIMES else self._between(path, low, high)
            case HasMember(path, key):
                return self._has_member(path, key)
            case Contains(path, key):
                return self._contains(path, key)
            case ContainsFolded(path, text):
                return self._contains_folded(path, text)
        raise TypeError(f"{condition!r} is no condition")

    def matches_at(self, condition: Condition, rows: Int64) -> Mask:
        """bool [m]: which of `rows` [m] match a condition. Of few rows it costs less than `mask_of` where an array by
        row is kept of the field, or may be."""
        match condition:
            case Between(path, low, high) if path in TIMES:
                return _between_times(self._times(path)[rows], low, high)
            case Between(path, low, high):
                first, last = self._places_between(path, low, high)
            case OneOf(path, (key,)) if path not in TIMES and self._column(members_of(path)) == NO_COLUMN:
                first, last = self._places_between(path, key, key + b"\0")
            case _:
                return self.mask_of(condition)[rows]
        values = self._by_row.values_if_kept(path)
        if values is None:
            return self.mask_of(condition)[rows]
        found = values[rows]
        return (found >= first) & (found < last)

    def counts(self, path: str, allowed: Mask | None = None) -> list[Counts]:
        """The number of the rows `allowed` [n] (None: all) that have each value of a field, and of those that have it
        in an array.

        Values are scalars, null among them; a row counts once for each value that it has, however often. Numbers are
        integers where they are whole and within 64 bits. `path` is the name of a field of metadata, the document's too,
        `@id` or `@document_id`; raises ValueError for another of that kind.
        """
        if path.startswith(("@", "$")) and path not in (ID, DOCUMENT_ID) and not path.startswith(DOCUMENT):
            raise ValueError(f"{path} is no field whose values are counted")
        found = [self._count(path, allowed), self._count(members_of(path), allowed)]
        return [one.scalars() for one in found if len(one.counts)]

    def summary(self, path: str, allowed: Mask | None = None) -> ColumnSummary:
        """The types of the values that the rows `allowed` [n] (None: all) have at `path`, and the counts of these."""
        return ColumnSummary(summarize(self._count(path, allowed)), self.counts(path, allowed))

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

    def _count(self, path: str, allowed: Mask | None) -> Counts:
        """The number of allowed rows that have each value of a column, of whatever type."""
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
        if path == CREATED_AT:
            return self._layout.created_at[rows] / 1e6
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
        return self._side_by_side(self._column(path), *self._places_between(path, low, high))

    def _places_between(self, path: str, low: bytes, high: bytes) -> tuple[int, int]:
        """The range of the values of a column that have such keys."""
        first, last = self._column(path)
        start = bisect_left(self._layout.values, low, first, last)
        return start, bisect_left(self._layout.values, high, start, last)

    def _side_by_side(self, column: tuple[int, int], first: int, last: int) -> Mask:
        """The rows whose value in a column is one of those from `first` up to `last`, without it. No row may have two
        values there, as in the columns of members."""
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
        values, column, members = self._layout.values, self._column(path), self._column(members_of(path))
        hits = values.find_each(keys, *column)
        if members != NO_COLUMN:
            hits += values.find_each(keys, *members)
        elif len(hits) == 1:
            return self._side_by_side(column, hits[0], hits[0] + 1)
        return self._with_values(hits)

    def _has_member(self, path: str, key: bytes) -> Mask:
        return self._with_values(self._layout.values.find_each([key], *self._column(members_of(path))))

    def _with_values(self, hits: list[int]) -> Mask:
        """The rows that have one of the values `hits`."""
        found = np.zeros(len(self), np.bool_)
        found[_rows_of(hits, self._layout.first_row, self._layout.rows)] = True
        return found

    def _times(self, path: str) -> Int64:
        """The times of one of TIMES, of each row; NEVER where it has none."""
        if path == EXPIRES_AT and not len(self._layout.expires_at):
            return np.full(len(self), NEVER)
        return self._layout.created_at if path == CREATED_AT else self._layout.expires_at

    def _one_of_times(self, path: str, keys: tuple[bytes, ...]) -> Mask:
        return np.isin(self._times(path), np.array([scalar_of(key) for key in keys], np.int64))

    def _contains(self, path: str, key: bytes) -> Mask:
        found = self._has_member(path, key)
        if key == STRING:
            found |= self._between(path, STRING, ARRAY)
        elif key.startswith(STRING):
            first, last = self._strings(path)
            text = self._layout.values.joined(first, last)
            found |= self._with_values(self._with_part(text, key[len(STRING) :], first, last))
        return found

    def _contains_folded(self, path: str, part: str) -> Mask:
        return self._with_values([*self._folded(path, part), *self._folded(members_of(path), part, whole=True)])

    def _folded(self, path: str, part: str, whole: bool = False) -> list[int]:
        """The numbers of the strings of a column that have `part`, casefolded, in them without regard to case, or that
        are it."""
        values, (first, last) = self._layout.values, self._strings(path)
        text = values.joined(first, last)
        if text.isascii():
            # Then lower case is the folded one, of the same length.
            hits = self._with_part(text.lower(), part.encode(), first, last) if part else list(range(first, last))
            starts = values.starts.data
            size = len(STRING) + len(part)
            return [i for i in hits if starts[i + 1] - starts[i] == size] if whole else hits
        folded = [key[len(STRING) :].decode().casefold() for key in values.some(first, last)]
        return [i for i, string in enumerate(folded, first) if (string == part if whole else part in string)]

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


def _between_times(times: Int64, low: bytes, high: bytes) -> Mask:
    """As `Columns._between`, for the `times` of rows. Of a bound without a number all times are on the right side."""
    found: Mask = times != NEVER
    if len(low) > 1:
        found &= times >= _first_time(low)
    if len(high) > 1:
        found &= times < _first_time(high)
    return found


def _first_time(bound: bytes) -> int:
    """The first whole number whose key is not before `bound`, which is a number's key or one with a byte behind it."""
    key = bound.removesuffix(b"\0")
    return int(scalar_of(key) or 0) + (len(bound) > len(key))


def _rows_of(hits: list[int], starts: Starts, rows: RowNumbers) -> RowNumbers:
    """The rows of the values `hits`."""
    if not hits or not len(rows):
        return rows[:0]
    if len(hits) == 1:
        return rows[int(starts[hits[0]]) : int(starts[hits[0] + 1])]
    which = np.array(hits, np.int64)
    begins = starts[which].astype(np.int64)
    return rows[ranges(begins, starts[which + 1].astype(np.int64) - begins)]
