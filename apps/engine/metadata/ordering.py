"""Rows in the order of their values: by type (null, false, true, numbers, strings, arrays, objects), then by value, as
keys are (`values.py`). A row without a value comes last in both directions. Ties are in the order of the rows' keys.

Columns give each row a rank, which orders it among the rows of the same column. So each column finds its first rows by
arrays of numbers, and only these are compared with those of other columns by their values.
"""

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

import numpy as np

from apps.engine.expiry import NEVER
from apps.engine.metadata.values import key_of, scalar_of
from apps.engine.strings import PackedStrings
from apps.engine.vectors import Int64, Mask

# The rank of a row without a value; as a time, it is that of a row which never expires.
NO_RANK: Final = NEVER


class OrderBy(NamedTuple):
    """A field that rows are ordered by."""

    field: str
    descending: bool = False


class OrderedRow(NamedTuple):
    """A row, and the keys of the values that it is ordered by; None for one that it lacks."""

    values: tuple[bytes | None, ...]
    key: int


@dataclass(frozen=True)
class Ranks:
    """The order of some rows by a field: `ranks` int64 [n]. They are places in `values`, whose part from `first` up to
    `last` ascends, or times where there are no `values`."""

    ranks: Int64
    values: PackedStrings | None = None
    first: int = 0
    last: int = 0

    def cut(self, start: int, end: int) -> "Ranks":
        """Those of the rows from `start` up to `end`."""
        return replace(self, ranks=self.ranks[start:end])

    def span(self, key: bytes) -> tuple[int, int]:
        """The rank that a value has, or would have, and the first one behind it. The key of a time is that of a whole
        number."""
        if self.values is None:
            time = scalar_of(key)
            assert isinstance(time, int)
            return time, time + 1
        at = bisect_left(self.values, key, self.first, self.last)
        return at, at + (at < self.last and self.values[at] == key)

    def key(self, row: int) -> bytes | None:
        """The key of the value of a row."""
        rank = int(self.ranks[row])
        if rank == NO_RANK:
            return None
        return key_of(rank) if self.values is None else self.values[rank]


def first_rows(
    keys: Int64, allowed: Mask, columns: Sequence[Ranks], order: Sequence[OrderBy], after: OrderedRow | None, limit: int
) -> list[OrderedRow]:
    """Of the allowed rows `keys` [n] that come behind `after`, the first `limit` in the order that `columns` say."""
    rows = np.flatnonzero(allowed)
    if after is not None:
        rows = rows[_are_behind(after, keys[rows], rows, columns, order)]
    ranks = [_directed(column.ranks[rows], by.descending) for column, by in zip(columns, order, strict=True)]
    if len(rows) > limit:
        # Most rows are out by the first field; a sort of the others is quick.
        few = np.flatnonzero(ranks[0] <= np.partition(ranks[0], limit)[limit])
        rows, ranks = rows[few], [one[few] for one in ranks]
    chosen = rows[np.lexsort((keys[rows], *reversed(ranks)))[:limit]].tolist()
    return [OrderedRow(tuple(column.key(row) for column in columns), int(keys[row])) for row in chosen]


def merge_rows(rows: Iterable[OrderedRow], order: Sequence[OrderBy], limit: int) -> list[OrderedRow]:
    """The first `limit` of `rows`, in order."""
    found = sorted(rows, key=lambda row: row.key)
    for i, by in reversed(list(enumerate(order))):
        # Stable sorts, the first field last. In reverse too, equal ones stay as they are.
        having = [row for row in found if row.values[i] is not None]
        having.sort(key=lambda row: row.values[i] or b"", reverse=by.descending)
        found = having + [row for row in found if row.values[i] is None]
    return found[:limit]


def _directed(ranks: Int64, descending: bool) -> Int64:
    return np.where(ranks == NO_RANK, NO_RANK, -ranks) if descending else ranks


def _are_behind(
    after: OrderedRow, keys: Int64, rows: Int64, columns: Sequence[Ranks], order: Sequence[OrderBy]
) -> Mask:
    """bool [m]: which of `rows` [m], whose keys are `keys` [m], come behind `after`."""
    behind, tied = np.zeros(len(rows), np.bool_), np.ones(len(rows), np.bool_)
    for column, by, value in zip(columns, order, after.values, strict=True):
        ranks = column.ranks[rows]
        is_missing = ranks == NO_RANK
        if value is None:
            tied &= is_missing
            continue
        start, end = column.span(value)
        behind |= tied & (is_missing | (ranks < start if by.descending else ranks >= end))
        tied &= (ranks >= start) & (ranks < end)
    return behind | (tied & (keys > after.key))
