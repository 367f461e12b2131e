"""The arrays of a block of rows, built from rows or merged from other blocks.

Both number the values as they meet them and collect pairs of a row and a number. Then the numbers are ranked by their
keys, and the rows are grouped by rank. Costs time and memory by values, whatever the number of columns.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import count, pairwise
from typing import Any, NamedTuple

import numpy as np
import orjson

from apps.engine.metadata.filters import DOCUMENT_ID, ID
from apps.engine.metadata.layout import Layout, UInt32
from apps.engine.metadata.values import FALSE, NULL, TRUE, key_of
from apps.engine.strings import Starts, Strings, starts_of
from apps.engine.vectors import Int64


class Attributes(NamedTuple):
    """What filters see of a row. `created_at` is in microseconds since the epoch, UTC; `metadata` is JSON text."""

    id: str
    document_id: str | None
    created_at: int
    metadata: bytes


class _Field:
    """A field while rows are read: the numbers of its values, and the fields of the objects that it holds.

    A value is named by itself if it is a string or a number, otherwise by its key, which is of type bytes. So 1 and 1.0
    are one value, as a dict has it, and true is another.
    """

    __slots__ = ("fields", "name", "values")

    def __init__(self, name: str, numbers: Iterator[int]) -> None:
        self.name = name
        self.values: defaultdict[str | int | float | bytes, int] = defaultdict(numbers.__next__)
        self.fields: dict[str, _Field] = {}


def build_layout(rows: Sequence[Attributes]) -> Layout:
    """The arrays of `rows`. Metadata that is not the JSON of an object counts as `{}`."""
    numbers = count()
    ids, document_ids, top = _Field(ID, numbers), _Field(DOCUMENT_ID, numbers), _Field("", numbers)
    columns = [ids, document_ids]
    # Rows, and the number of the value, or of the member of an array, that each has.
    whole: tuple[list[int], list[int]] = [], []
    members: tuple[list[int], list[int]] = [], []
    add_row, add_number = whole[0].append, whole[1].append
    for row, attributes in enumerate(rows):
        add_row(row)
        add_number(ids.values[attributes.id])
        add_row(row)
        add_number(document_ids.values[NULL if attributes.document_id is None else attributes.document_id])
        pending = [("", top.fields, _object(attributes.metadata))]
        while pending:
            prefix, fields, found = pending.pop()
            for key, value in found.items():
                field = fields.get(key)
                if field is None:
                    if _is_out_of_reach(prefix, key):
                        continue
                    field = fields[key] = _Field(prefix + key, numbers)
                    columns.append(field)
                kind = type(value)
                add_row(row)
                if kind is str or kind is int or kind is float:
                    add_number(field.values[value])
                    continue
                add_number(field.values[_name(value)])
                if kind is dict:
                    pending.append((f"{field.name}.", field.fields, value))
                elif kind is list:
                    of = field.values
                    members[0].extend([row] * len(value))
                    members[1].extend([of[one if type(one) is str else _name(one)] for one in value])
    by_key = ((field.name.encode(), {_key(name): number for name, number in field.values.items()}) for field in columns)
    created_at = np.array([attributes.created_at for attributes in rows], np.int64)
    return _make_layout(by_key, _as_arrays(*whole), _as_arrays(*members), created_at)


def merge_layouts(parts: Sequence[Layout], order: Int64) -> Layout:
    """The arrays of the rows `order`, distinct positions into the concatenation of `parts`."""
    ends = np.cumsum([len(part.created_at) for part in parts])
    places = np.full(ends[-1] if parts else 0, -1, np.int64)
    places[order] = np.arange(len(order))
    numbers = count()
    columns: defaultdict[bytes, defaultdict[bytes, int]] = defaultdict(lambda: defaultdict(numbers.__next__))
    whole, members, created_at = [], [], [np.empty(0, np.int64)]
    for part, end in zip(parts, ends.tolist(), strict=True):
        moved = places[end - len(part.created_at) : end]
        part_whole = _move_pairs(part.first_row, part.rows, moved)
        part_members = _move_pairs(part.first_member, part.member_rows, moved)
        used = np.zeros(len(part.values), np.bool_)
        used[part_whole[1]] = True
        used[part_members[1]] = True
        renumbered = _renumber(part, used.tolist(), columns)
        whole.append((part_whole[0], renumbered[part_whole[1]]))
        members.append((part_members[0], renumbered[part_members[1]]))
        created_at.append(part.created_at)
    return _make_layout(columns.items(), _concatenate(whole), _concatenate(members), np.concatenate(created_at)[order])


def _as_arrays(rows: list[int], numbers: list[int]) -> tuple[Int64, Int64]:
    return np.array(rows, np.int64), np.array(numbers, np.int64)


def _object(text: bytes) -> dict[str, Any]:
    try:
        found = orjson.loads(text)
    except orjson.JSONDecodeError:
        return {}
    return found if isinstance(found, dict) else {}


def _is_out_of_reach(prefix: str, key: str) -> bool:
    """Whether no filter's path leads to `key`, which lies within the object of `prefix`."""
    return "." in key or (not prefix and key.startswith(("@", "$")))


def _name(value: Any) -> str | int | float | bytes:
    """What names `value` in a field."""
    if value is True:
        return TRUE
    if value is False:
        return FALSE
    return value if isinstance(value, str | int | float) else key_of(value)


def _key(name: str | int | float | bytes) -> bytes:
    return name if isinstance(name, bytes) else key_of(name)


def _move_pairs(starts: Starts, rows: UInt32, moved: Int64) -> tuple[Int64, Int64]:
    """(row, value) pairs renumbered by `moved`; rows mapped to -1 are dropped."""
    places = starts.astype(np.int64)
    numbers = np.repeat(np.arange(len(places) - 1), places[1:] - places[:-1])
    rows_moved = moved[rows]
    live = rows_moved >= 0
    return rows_moved[live], numbers[live]


def _renumber(part: Layout, used: list[bool], columns: defaultdict[bytes, defaultdict[bytes, int]]) -> Int64:
    """The numbers in `columns` of the `used` values of `part`; zero for the others."""
    renumbered = [0] * len(used)
    keys, first_value = part.values.some(0, len(used)), part.first_value.tolist()
    names = part.names.some(0, len(part.names))
    for name, (first, last) in zip(names, pairwise(first_value), strict=True):
        numbers = columns[name]
        for i in range(first, last):
            if used[i]:
                renumbered[i] = numbers[keys[i]]
    return np.array(renumbered, np.int64)


def _concatenate(pairs: list[tuple[Int64, Int64]]) -> tuple[Int64, Int64]:
    empty = np.empty((2, 0), np.int64)
    rows, numbers = np.concatenate([empty, *pairs], axis=1)
    return rows, numbers


def _make_layout(
    columns: Iterable[tuple[bytes, dict[bytes, int]]],
    whole: tuple[Int64, Int64],
    members: tuple[Int64, Int64],
    created_at: Int64,
) -> Layout:
    """The arrays of `columns`: each is a name, and the numbers of its values by their keys. Numbers count from zero
    without a gap. `whole` and `members` are pairs of rows and numbers."""
    names: list[bytes] = []
    counts: list[int] = []
    keys: list[bytes] = []
    numbers: list[int] = []
    for name, values in sorted(columns):
        if values:
            ordered = sorted(values)
            names.append(name)
            counts.append(len(ordered))
            keys += ordered
            numbers += map(values.__getitem__, ordered)
    ranks = np.empty(len(numbers), np.int64)
    ranks[np.array(numbers, np.int64)] = np.arange(len(numbers))
    first_row, rows = _group_rows(ranks, *whole)
    first_member, member_rows = _group_rows(ranks, *members)
    return Layout(
        names=Strings.of(names),
        first_value=starts_of(counts),
        values=Strings.of(keys),
        first_row=first_row,
        rows=rows,
        first_member=first_member,
        member_rows=member_rows,
        created_at=created_at,
    )


def _group_rows(ranks: Int64, rows: Int64, numbers: Int64) -> tuple[Starts, UInt32]:
    """Where the rows of each value start, and the rows: ascending, each once."""
    # One number for a pair sorts several times as fast as two keys do.
    pairs = (ranks[numbers] << 32) | rows
    pairs.sort()
    if len(pairs):
        pairs = pairs[np.append(True, pairs[1:] != pairs[:-1])]
    return starts_of(np.bincount(pairs >> 32, minlength=len(ranks))), pairs.astype(np.uint32)
