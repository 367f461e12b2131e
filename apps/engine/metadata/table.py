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
from apps.engine.metadata.layout import NO_COLUMN, Column, Layout
from apps.engine.metadata.ordering import NO_RANK, Ranks
from apps.engine.metadata.paths import CREATED_AT, DOCUMENT, DOCUMENT_ID, EXPIRES_AT, ID, TIMES, instants_of, members_of
from apps.engine.metadata.summaries import ColumnSummary, summarize
from apps.engine.metadata.values import ARRAY, STRING, scalar_of
from apps.engine.strings import Strings
from apps.engine.vectors import Float64, Int64, Mask

# If more than one string in _MANY contains the part, it is quicker to test each string than to map places to strings.
_MANY = 8
_KNOWN_COLUMNS = 64


def evaluate(filter: Filter, keys: Int64, mask_of: Callable[[Condition], Mask], places: Int64 | None = None) -> Mask:
    """bool [n]: which of the rows `keys` [n], or which of those at `places` among them, match; `mask_of` gives a new
    mask for a condition."""
    match filter:
        case And(parts):
            found = np.ones(len(keys if places is None else places), np.bool_)
            for part in parts:
                found &= evaluate(part, keys, mask_of, places)
        case Or(parts):
            found = np.zeros(len(keys if places is None else places), np.bool_)
            for part in parts:
                found |= evaluate(part, keys, mask_of, places)
        case Not(part):
            found = evaluate(part, keys, mask_of, places)
            np.logical_not(found, out=found)
        case Condition():
            found = mask_of(filter)
        case HasKey(wanted):
            found = np.isin(keys if places is None else keys[places], wanted)
        case _:
            raise TypeError(f"{filter!r} is no filter")
    return found


class Columns:
    """The attributes of `len(self)` rows."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._by_row = ValuesByRow(layout)
        # Those that were asked for first, by path, also where there is none.
        self._columns: dict[str, Column] = {}

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
            case OneOf(path, (key,)) if path not in TIMES and self._column(members_of(path)) is NO_COLUMN:
                column = self._column(path)
                place = self._layout.values.find(key, column.first, column.last)
                first, last = (0, 0) if place is None else (place, place + 1)
            case _:
                return self.mask_of(condition)[rows]
        values = self._by_row.values_if_kept(path)
        if values is None:
            return self.mask_of(condition)[rows]
        found = values[rows]
        return found == first if last == first + 1 else (found >= first) & (found < last)

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
        sums = count_rows(layout.first_row, layout.rows, allowed)
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
        column = self._column(path)
        return Counts(self._layout.values, column.first, count_rows(column.all_starts, column.rows, allowed))

    def keys_at(self, path: str, rows: Int64) -> list[bytes | None]:
        """The key of the value that each of `rows` has at `path`, which is no time of the chunk's own; None where there
        is none."""
        return self._by_row.keys_at(path, rows)

    def numbers_at(self, path: str, rows: Int64) -> Float64:
        """float64 [n]: the number that each of `rows` has at `path`; infinity where there is none."""
        return self._by_row.numbers_at(path, rows)

    def times_at(self, path: str, rows: Int64) -> Float64:
        """float64 [n]: the date or time that each of `rows` has at `path`, in seconds since the epoch; infinity
        where there is none."""
        if path == CREATED_AT:
            return self._layout.created_at[rows] / 1e6
        if path in TIMES:
            times = self._times(path)[rows]
            return np.where(times == NEVER, np.inf, times / 1e6)
        return self.numbers_at(instants_of(path), rows) / NANOSECONDS

    def ranks(self, path: str) -> Ranks:
        """The order of the rows by the field at `path`."""
        if path in TIMES:
            return Ranks(self._times(path))
        ranks = self._by_row.values(path).astype(np.int64)
        ranks[ranks < 0] = NO_RANK
        column = self._column(path)
        return Ranks(ranks, self._layout.values, column.first, column.last)

    def _column(self, path: str) -> Column:
        """A column; NO_COLUMN if there is none."""
        found = self._columns.get(path)
        if found is None:
            found = self._layout.column(path)
            if len(self._columns) < _KNOWN_COLUMNS:
                self._columns[path] = found
        return found

    def _between(self, path: str, low: bytes, high: bytes) -> Mask:
        """The rows whose value at `path` has a key from `low` up to `high`, without it."""
        return self._side_by_side(self._column(path), *self._places_between(path, low, high))

    def _places_between(self, path: str, low: bytes, high: bytes) -> tuple[int, int]:
        """The range of the values of a column that have such keys."""
        column = self._column(path)
        start = bisect_left(self._layout.values, low, column.first, column.last)
        return start, bisect_left(self._layout.values, high, start, column.last)

    def _side_by_side(self, column: Column, first: int, last: int) -> Mask:
        """The rows whose value in a column is one of those from `first` up to `last`, without it. No row may have two
        values there, as in the columns of members."""
        rows, start, stop = column.rows, column.start(first), column.start(last)
        if len(rows) < len(self) or 2 * (stop - start) <= len(self):
            found = np.zeros(len(self), np.bool_)
            found[rows[start:stop]] = True
        else:
            # All rows have the field, and most of them match: fewer are to be taken out.
            found = np.ones(len(self), np.bool_)
            found[rows[:start]] = False
            found[rows[stop:]] = False
        return found

    def _one_of(self, path: str, keys: tuple[bytes, ...]) -> Mask:
        values, column, members = self._layout.values, self._column(path), self._column(members_of(path))
        hits = values.find_each(keys, column.first, column.last)
        if members is not NO_COLUMN:
            found = self._with_values(column, hits)
            found[members.rows_of(values.find_each(keys, members.first, members.last))] = True
            return found
        return self._side_by_side(column, hits[0], hits[0] + 1) if len(hits) == 1 else self._with_values(column, hits)

    def _has_member(self, path: str, key: bytes) -> Mask:
        column = self._column(members_of(path))
        return self._with_values(column, self._layout.values.find_each([key], column.first, column.last))

    def _with_values(self, column: Column, hits: list[int]) -> Mask:
        """The rows that have one of the values `hits` of a column."""
        found = np.zeros(len(self), np.bool_)
        found[column.rows_of(hits)] = True
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
            column = self._column(path)
            first, strings = self._strings(column)
            places = _with_part(strings, strings.text.tobytes(), key[len(STRING) :])
            found |= self._with_values(column, [first + place for place in places])
        return found

    def _contains_folded(self, path: str, part: str) -> Mask:
        column, members = self._column(path), self._column(members_of(path))
        found = self._with_values(column, self._folded(column, part))
        found[members.rows_of(self._folded(members, part, whole=True))] = True
        return found

    def _folded(self, column: Column, part: str, whole: bool = False) -> list[int]:
        """The numbers of the strings of a column that have `part`, casefolded, in them without regard to case, or that
        are it."""
        first, strings = self._strings(column)
        text = strings.text.tobytes()
        if text.isascii():
            # Then lower case is the folded one, of the same length.
            hits = _with_part(strings, text.lower(), part.encode()) if part else list(range(len(strings)))
            starts, size = strings.starts.data, len(STRING) + len(part)
            return [first + i for i in hits if not whole or starts[i + 1] - starts[i] == size]
        folded = [key[len(STRING) :].decode().casefold() for key in strings.some(0, len(strings))]
        return [i for i, string in enumerate(folded, first) if (string == part if whole else part in string)]

    def _strings(self, column: Column) -> tuple[int, Strings]:
        """The number of the first string of a column, and all its strings."""
        values = self._layout.values
        first = bisect_left(values, STRING, column.first, column.last)
        return first, values.unpack(first, bisect_left(values, ARRAY, first, column.last))


def _with_part(strings: Strings, text: bytes, part: bytes) -> list[int]:
    """The places of those of `strings`, all of them keys of strings, that have `part`, which is not empty. `text` is
    that of the strings, in the one or the other case."""
    starts = strings.starts.data
    if _MANY * text.count(part) > len(strings):
        bounds = pairwise(strings.starts.tolist())
        return [i for i, (start, end) in enumerate(bounds) if text.find(part, start + 1, end) >= 0]
    found: list[int] = []
    at = text.find(part)
    while at >= 0:
        place = bisect_right(starts, at, 0, len(strings)) - 1
        end = starts[place + 1]
        # Not so for a part with the byte of the type, or with one from the next string.
        if at > starts[place] and at + len(part) <= end:
            found.append(place)
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
