"""The columns of a block, read from its rows: values, numbered as they are met, and pairs of a row and a number, which
`assembly` makes arrays of."""

from collections import defaultdict
from collections.abc import Collection, Sequence
from itertools import count
from typing import Any, NamedTuple

import numpy as np
import orjson

from apps.engine.expiry import NEVER, compact
from apps.engine.metadata.assembly import make_layout
from apps.engine.metadata.instants import instant_of
from apps.engine.metadata.layout import Layout
from apps.engine.metadata.paths import (
    DOCUMENT,
    DOCUMENT_ID,
    ID,
    escape_first_key,
    escape_key,
    instants_of,
    members_of,
    split_path,
)
from apps.engine.metadata.values import FALSE, NULL, TRUE, key_of
from apps.engine.strings import Strings
from apps.engine.vectors import Int64


class Attributes(NamedTuple):
    """What filters see of a row. `created_at` is in microseconds since the epoch, UTC; `metadata` is JSON text, and so
    is `document`, the metadata of its document, empty where it has none. The row is dead from `expires_at` on
    (`expiry.py`)."""

    id: str
    document_id: str | None
    created_at: int
    metadata: str | bytes
    document: str | bytes = ""
    expires_at: int = NEVER


_NOTHING = object()


class _Column:
    """A column while rows are read: the numbers of its values, the column of the members of its arrays, and those of
    the objects that it holds.

    A value is named by itself if it is a string or a number, otherwise by its key, which is of type bytes. So 1 and 1.0
    are one value, as a dict has it, and true is another.
    """

    __slots__ = ("columns", "members", "name", "values")

    def __init__(self, name: str, numbers: "count[int]") -> None:
        self.name = name
        self.values: defaultdict[str | int | float | bytes, int] = defaultdict(numbers.__next__)
        self.members: _Column | None = None
        self.columns: dict[str, _Column] = {}


class _Reader:
    """Collects the values of rows."""

    def __init__(self) -> None:
        self._numbers = count()
        self._columns: list[_Column] = []
        # Rows, and the number of a value that each has.
        self._rows: list[int] = []
        self._values: list[int] = []

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
        if kind is list and value:
            if column.members is None:
                column.members = self.column(members_of(column.name))
            members = column.members.values
            self._rows += [row] * len(value)
            self._values += [members[one if type(one) is str else _name(one)] for one in value]

    def add_object(self, prefix: str, columns: dict[str, _Column], row: int, found: dict[str, Any]) -> None:
        """`row` has the object `found` as its metadata, or that of its document: `columns` are those of its keys, and
        `prefix` begins their names."""
        pending = [(prefix, columns, found)]
        while pending:
            before, columns, found = pending.pop()
            for key, value in found.items():
                column = columns.get(key)
                if column is None:
                    column = columns[key] = self.column(before + escape_key(key) if before else escape_first_key(key))
                self.add(column, row, value)
                if type(value) is dict:
                    pending.append((f"{column.name}.", column.columns, value))

    def mark(self) -> int:
        """How much was added so far."""
        return len(self._values)

    def values_since(self, mark: int) -> list[int]:
        """The numbers of the values that were added since, of one row."""
        return self._values[mark:]

    def repeat(self, row: int, values: list[int]) -> None:
        """`row` has the same values as another."""
        self._rows += [row] * len(values)
        self._values += values

    def layout(self, rows: Sequence[Attributes]) -> Layout:
        """The arrays of all that was added of `rows`."""
        instants = self._number_instants()
        columns = [column for column in self._columns if column.values]
        numbers = [number for column in columns for number in column.values.values()]
        keys = [_key(name) for column in columns for name in column.values]
        places = np.empty(len(numbers), np.int64)
        places[numbers] = np.arange(len(numbers))
        pairs = np.array([self._rows, self._values], np.int64)
        if instants:
            pairs = _add_instants(pairs, instants, len(numbers))
        return make_layout(
            Strings.of([column.name.encode() for column in columns]),
            Strings.of(keys),
            np.repeat(np.arange(len(columns)), [len(column.values) for column in columns]),
            (pairs[0], places[pairs[1]]),
            np.array([attributes.created_at for attributes in rows], np.int64),
            compact(np.array([attributes.expires_at for attributes in rows], np.int64)),
        )

    def _number_instants(self) -> dict[int, int]:
        """The numbers of instants by those of the strings that name them; they are values of columns of their own."""
        instants: dict[int, int] = {}
        for column in list(self._columns):
            found = [
                (number, instant)
                for value, number in column.values.items()
                if type(value) is str and (instant := instant_of(value)) is not None
            ]
            if found:
                values = self.column(instants_of(column.name)).values
                instants |= {number: values[instant] for number, instant in found}
        return instants


def build_layout(rows: Sequence[Attributes]) -> Layout:
    """The arrays of `rows`. Metadata that is not the JSON of an object counts as `{}`."""
    reader = _Reader()
    ids, document_ids = reader.column(ID), reader.column(DOCUMENT_ID)
    top, document_top = dict[str, _Column](), dict[str, _Column]()
    # By the metadata of documents: the rows of one have the same values.
    documents: dict[str | bytes, list[int]] = {}
    for row, attributes in enumerate(rows):
        reader.add(ids, row, attributes.id)
        reader.add(document_ids, row, attributes.document_id)
        reader.add_object("", top, row, _object(attributes.metadata))
        text = attributes.document
        if text:
            known = documents.get(text)
            if known is None:
                start = reader.mark()
                reader.add_object(DOCUMENT, document_top, row, _object(text))
                documents[text] = reader.values_since(start)
            else:
                reader.repeat(row, known)
    return reader.layout(rows)


def build_layouts(rows: Sequence[Attributes], paths: Collection[str]) -> list[Layout]:
    """For each of `paths`, names of fields, the arrays of `rows` with its column only, and that of its instants; those
    of `@created_at` have none."""
    readers = {path: _Reader() for path in paths}
    own: list[_Wanted] = []
    documents: list[_Wanted] = []
    for path, reader in readers.items():
        column = reader.column(path)
        if path.startswith(DOCUMENT):
            documents.append(_Wanted(reader, column, split_path(path[len(DOCUMENT) :])))
        elif not path.startswith("@"):
            own.append(_Wanted(reader, column, split_path(path)))
        elif path in (ID, DOCUMENT_ID):
            for row, attributes in enumerate(rows):
                reader.add(column, row, attributes.id if path == ID else attributes.document_id)
    for row, attributes in enumerate(rows) if own else ():
        _add_wanted(own, row, attributes.metadata)
    known: dict[str | bytes, list[tuple[_Reader, list[int]]]] = {}
    for row, attributes in enumerate(rows) if documents else ():
        text = attributes.document
        if text in known:
            for reader, values in known[text]:
                reader.repeat(row, values)
        elif text:
            starts = [wanted.reader.mark() for wanted in documents]
            _add_wanted(documents, row, text)
            found = [(one.reader, one.reader.values_since(start)) for one, start in zip(documents, starts, strict=True)]
            known[text] = [(reader, values) for reader, values in found if values]
    return [reader.layout(rows) for reader in readers.values()]


class _Wanted:
    """A field to read of metadata: its keys, and the column that it goes to."""

    __slots__ = ("column", "keys", "quoted", "reader")

    def __init__(self, reader: _Reader, column: _Column, keys: list[str]) -> None:
        self.reader, self.column, self.keys, self.quoted = reader, column, keys, f'"{keys[0]}"'


def _add_wanted(fields: list[_Wanted], row: int, text: str | bytes) -> None:
    """Add what `row`, with metadata `text`, has of some fields."""
    found = None
    # A row without a key need not be parsed. A key that needs escapes, or has some for nothing, has a backslash.
    has_no_escapes = isinstance(text, str) and "\\" not in text
    for field in fields:
        if has_no_escapes and field.quoted not in text:
            continue
        found = _object(text) if found is None else found
        value: Any = found
        for key in field.keys:
            value = value.get(key, _NOTHING) if isinstance(value, dict) else _NOTHING
        if value is not _NOTHING:
            field.reader.add(field.column, row, value)


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


def _add_instants(pairs: Int64, instants: dict[int, int], count: int) -> Int64:
    """(row, value) pairs [2, n], of values numbered below `count`, and behind them those of rows and instants."""
    numbers = np.full(count, -1, np.int64)
    numbers[list(instants)] = list(instants.values())
    added = np.array([pairs[0], numbers[pairs[1]]])
    return np.concatenate([pairs, added[:, added[1] >= 0]], axis=1)
