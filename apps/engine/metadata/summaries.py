"""What values a field has: how many rows have one of each type, and the least and the greatest of those with an order.

Rows lie in parts; each is looked at once, by the distinct values that its column has.
"""

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from apps.engine.metadata.facets import Counts, count_distinct
from apps.engine.metadata.values import ARRAY, FALSE, NULL, NUMBER, OBJECT, STRING, key_of, numbers_of
from apps.engine.strings import PackedStrings
from apps.engine.vectors import Int64, Mask

INTEGER, DECIMAL, TEXT = "integer", "number", "string"
ORDERED_TYPES = (INTEGER, DECIMAL, TEXT)
TYPES = (*ORDERED_TYPES, "boolean", "null", "array", "object")
# The types whose keys begin with the same byte, or with that of the next types.
_FIRST_KEYS = (
    ("null", NULL),
    ("boolean", FALSE),
    (DECIMAL, NUMBER),
    (TEXT, STRING),
    ("array", ARRAY),
    ("object", OBJECT),
)


class TypeSummary(NamedTuple):
    """The number of rows whose value is of a type, and the keys of the least and the greatest of these values, which
    mean something for ORDERED_TYPES."""

    rows: int
    least: bytes
    greatest: bytes


@dataclass(frozen=True)
class ColumnSummary:
    """A field in some rows: its types, and how many rows have each of its scalars, also within arrays."""

    types: dict[str, TypeSummary]
    counts: Sequence[Counts]


class FieldSummary(NamedTuple):
    """A field: the number of rows that have it, that of its different scalars, those within arrays too, and its types.
    Whole numbers within 64 bits are of type integer, however they were written; other numbers are of type number."""

    rows: int
    distinct: int
    types: dict[str, TypeSummary]


def summarize(column: Counts) -> dict[str, TypeSummary]:
    """The types of the values of a column, by the number of rows that have each; there may be more values."""
    first, end = column.first, column.first + len(column.counts)
    bounds = [bisect_left(column.keys, key, first, end) for _, key in _FIRST_KEYS]
    found = {}
    for (name, _), start, stop in zip(_FIRST_KEYS, bounds, [*bounds[1:], end], strict=True):
        present = start + np.flatnonzero(column.counts[start - first : stop - first])
        if name == DECIMAL and len(present):
            is_whole = _are_whole(column.keys, present)
            groups = {INTEGER: present[is_whole], DECIMAL: present[~is_whole]}
        else:
            groups = {name: present}
        for kind, places in groups.items():
            if len(places):
                count = int(column.counts[places - first].sum())
                found[kind] = TypeSummary(count, column.keys[int(places[0])], column.keys[int(places[-1])])
    return found


def _are_whole(keys: PackedStrings, places: Int64) -> Mask:
    """bool [n]: which of the numbers that have the keys at `places` [n], which ascend, are whole and of 64 bits."""
    numbers = numbers_of(keys.take(places))
    least, beyond = (bisect_left(keys, key_of(bound), places[0], places[-1] + 1) for bound in (-(2.0**63), 2.0**64))
    is_whole: Mask = (np.floor(numbers) == numbers) & (places >= least) & (places < beyond)
    return is_whole


def combine(columns: Sequence[ColumnSummary]) -> FieldSummary:
    """The summary of a field whose rows lie in several parts."""
    types = {}
    for name in TYPES:
        some = [column.types[name] for column in columns if name in column.types]
        if some:
            counts, least, greatest = zip(*some, strict=True)
            types[name] = TypeSummary(sum(counts), min(least), max(greatest))
    distinct = count_distinct([counts for column in columns for counts in column.counts])
    return FieldSummary(sum(one.rows for one in types.values()), distinct, types)


def most_rows(counts: Iterable[tuple[str, int]], limit: int) -> tuple[list[str], int]:
    """The `limit` names with the highest counts, equal ones in order, and how many names there are."""
    totals: dict[str, int] = {}
    for name, count in counts:
        totals[name] = totals.get(name, 0) + count
    return sorted(totals, key=lambda name: (-totals[name], name))[:limit], len(totals)
