"""The arrays of a block of rows, built from rows or merged from other blocks.

Rows are read to values, numbered as they are met, and to pairs of a row and a number; those of other blocks are there
already. Then the values are ranked by column and key, and the rows are grouped by rank. Costs time and memory by
values, whatever the number of columns.
"""

from collections import defaultdict
from collections.abc import Collection, Sequence
from functools import reduce
from itertools import count
from typing import Any, NamedTuple

import numpy as np
import orjson

from apps.engine.metadata.filters import DOCUMENT_ID, ID, OWN_FIELDS
from apps.engine.metadata.layout import Layout, UInt32
from apps.engine.metadata.values import FALSE, NULL, TRUE, key_of
from apps.engine.strings import Starts, Strings, lengths_of, rank, starts_of
from apps.engine.vectors import Int64


class Attributes(NamedTuple):
    """What filters see of a row. `created_at` is in microseconds since the epoch, UTC; `metadata` is JSON text."""

    id: str
    document_id: str | None
    created_at: int
    metadata: str | bytes


_NOTHING = object()


class _Column:
    """A column while rows are read: the numbers of its values, and the columns of the objects that it holds.

    A value is named by itself if it is a string or a number, otherwise by its key, which is of type bytes. So 1 and 1.0
    are one value, as a dict has it, and true is another.
    """

    __slots__ = ("columns", "name", "values")

    def __init__(self, name: str, numbers: "count[int]") -> None:
        self.name = name
        self.values: defaultdict[str | int | float | bytes, int] = defaultdict(numbers.__next__)
        self.columns: dict[str, _Column] = {}


class _Reader:
    """Collects the values of rows."""

    def __init__(self) -> None:
        self._numbers = count()
        self._columns: list[_Column] = []
        # Rows, and the number of the value, or of the member of an array, that each has.
        self._rows: list[int] = []
        self._values: list[int] = []
        self._member_rows: list[int] = []
        self._members: list[int] = []

    def column(self, name: str) -> _Column:
        """A new column."""
        column = _Column(name, self._numbers)
        self._columns.append(column)
        return column

    def add(self, column: _Column, row: int, value: Any) -> None:
        """`row`, which follows those before it, has `value`."""
        kind = type(value)
        self._rows.append(row)
        self._values.append(column.values[value if kind is str or kind is int or kind is float else _name(value)])
        if kind is list:
            self._member_rows += [row] * len(value)
            self._members += [column.values[one if type(one) is str else _name(one)] for one in value]

    def layout(self, rows: Sequence[Attributes]) -> Layout:
        """The arrays of all that was added of `rows`."""
        columns = [column for column in self._columns if column.values]
        numbers = [number for column in columns for number in column.values.values()]
        keys = [_key(name) for column in columns for name in column.values]
        places = np.empty(len(numbers), np.int64)
        places[numbers] = np.arange(len(numbers))
        return _make_layout(
            Strings.of([column.name.encode() for column in columns]),
            Strings.of(keys),
            np.repeat(np.arange(len(columns)), [len(column.values) for column in columns]),
            (np.array(self._rows, np.int64), places[self._values]),
            (np.array(self._member_rows, np.int64), places[self._members]),
            np.array([attributes.created_at for attributes in rows], np.int64),
        )


def build_layout(rows: Sequence[Attributes]) -> Layout:
    """The arrays of `rows`. Metadata that is not the JSON of an object counts as `{}`."""
    reader = _Reader()
    add, ids, document_ids, top = reader.add, reader.column(ID), reader.column(DOCUMENT_ID), dict[str, _Column]()
    for row, attributes in enumerate(rows):
        add(ids, row, attributes.id)
        add(document_ids, row, attributes.document_id)
        pending = [("", top, _object(attributes.metadata))]
        while pending:
            prefix, columns, found = pending.pop()
            for key, value in found.items():
                column = columns.get(key)
                if column is None:
                    if "." in key or (not prefix and key.startswith(("@", "$"))):
                        continue  # no filter's path leads there
                    column = columns[key] = reader.column(prefix + key)
                add(column, row, value)
                if type(value) is dict:
                    pending.append((f"{column.name}.", column.columns, value))
    return reader.layout(rows)


def build_layouts(rows: Sequence[Attributes], paths: Collection[str]) -> list[Layout]:
    """The arrays of `rows` with one column only, for each of `paths`; those of `@created_at` have none."""
    readers = [_Reader() for _ in paths]
    columns = [reader.column(path) for reader, path in zip(readers, paths, strict=True)]
    for reader, column in zip(readers, columns, strict=True):
        if column.name in (ID, DOCUMENT_ID):
            for row, attributes in enumerate(rows):
                reader.add(column, row, attributes.id if column.name == ID else attributes.document_id)
    wanted = [
        (reader, column, column.name.split("."), f'"{column.name.partition(".")[0]}"')
        for reader, column in zip(readers, columns, strict=True)
        if column.name not in OWN_FIELDS
    ]
    for row, attributes in enumerate(rows):
        text, found = attributes.metadata, None
        # A row without a key need not be parsed. A key that needs escapes, or has some for nothing, has a backslash.
        has_no_escapes = isinstance(text, str) and "\\" not in text
        for reader, column, keys, quoted in wanted:
            if has_no_escapes and quoted not in text:
                continue
            found = _object(text) if found is None else found
            value = reduce(lambda one, key: one.get(key, _NOTHING) if isinstance(one, dict) else _NOTHING, keys, found)
            if value is not _NOTHING:
                reader.add(column, row, value)
    return [reader.layout(rows) for reader in readers]


def merge_layouts(parts: Sequence[Layout], order: Int64) -> Layout:
    """The arrays of the rows `order`, distinct positions into the concatenation of `parts`."""
    moved = np.full(sum(len(part.created_at) for part in parts), -1, np.int64)
    moved[order] = np.arange(len(order))
    columns, whole, members = [np.empty(0, np.int64)], [np.empty((2, 0), np.int64)], [np.empty((2, 0), np.int64)]
    first_row = first_name = first_value = 0
    for part in parts:
        here = moved[first_row : first_row + len(part.created_at)]
        whole.append(_move_pairs(part.first_row, part.rows, here, first_value))
        members.append(_move_pairs(part.first_member, part.member_rows, here, first_value))
        columns.append(np.repeat(np.arange(first_name, first_name + len(part.names)), lengths_of(part.first_value)))
        first_row, first_name = first_row + len(here), first_name + len(part.names)
        first_value += len(part.values)
    values = Strings.concatenate([part.values for part in parts])
    all_whole, all_members = np.concatenate(whole, axis=1), np.concatenate(members, axis=1)
    is_used = np.zeros(len(values), np.bool_)
    is_used[all_whole[1]] = is_used[all_members[1]] = True
    used = np.flatnonzero(is_used)
    numbers = np.cumsum(is_used) - 1
    return _make_layout(
        Strings.concatenate([part.names for part in parts]),
        values.take(used),
        np.concatenate(columns)[used],
        (all_whole[0], numbers[all_whole[1]]),
        (all_members[0], numbers[all_members[1]]),
        np.concatenate([np.empty(0, np.int64), *(part.created_at for part in parts)])[order],
    )


def _object(text: str | bytes) -> dict[str, Any]:
    try:
        found = orjson.loads(text)
    except orjson.JSONDecodeError:
        return {}
    return found if isinstance(found, dict) else {}


def _name(value: Any) -> str | int | float | bytes:
    """What names `value` in a column."""
    if value is None:
        return NULL
    if value is True:
        return TRUE
    if value is False:
        return FALSE
    return value if isinstance(value, str | int | float) else key_of(value)


def _key(name: str | int | float | bytes) -> bytes:
    return name if isinstance(name, bytes) else key_of(name)


def _move_pairs(starts: Starts, rows: UInt32, moved: Int64, first: int) -> Int64:
    """(row, value) pairs [2, n], the rows renumbered by `moved`, where those mapped to -1 are dropped, and the values
    numbered from `first` on."""
    pairs = np.array([moved[rows], np.repeat(np.arange(first, first + len(starts) - 1), lengths_of(starts))])
    return pairs[:, pairs[0] >= 0]


def _make_layout(
    names: Strings,
    values: Strings,
    columns: Int64,
    whole: tuple[Int64, Int64],
    members: tuple[Int64, Int64],
    created_at: Int64,
) -> Layout:
    """The arrays of `values`, the keys of columns whose `names` are numbered by `columns`; names, and values of a
    column, may be there twice. `whole` and `members` are pairs of rows and numbers of values. Names without values are
    left out."""
    name_ranks, name_places = rank(names)
    value_columns = name_ranks[columns]
    ranks, places = rank(values, value_columns)
    counts = np.bincount(value_columns[places], minlength=len(name_places))
    first_row, rows = _group_rows(ranks, len(places), *whole)
    first_member, member_rows = _group_rows(ranks, len(places), *members)
    return Layout(
        names=names.take(name_places[counts > 0]),
        first_value=starts_of(counts[counts > 0]),
        values=values.take(places),
        first_row=first_row,
        rows=rows,
        first_member=first_member,
        member_rows=member_rows,
        created_at=created_at,
    )


def _group_rows(ranks: Int64, count: int, rows: Int64, numbers: Int64) -> tuple[Starts, UInt32]:
    """Where the rows of each of `count` ranks start, and the rows: ascending, each once."""
    # One number for a pair sorts several times as fast as two keys do.
    pairs = (ranks[numbers] << 32) | rows
    pairs.sort()
    if len(pairs):
        pairs = pairs[np.append(True, pairs[1:] != pairs[:-1])]
    return starts_of(np.bincount(pairs >> 32, minlength=count)), pairs.astype(np.uint32)
