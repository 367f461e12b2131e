"""Chunks to write, from columns, dicts, dataclasses, DataFrames: each as the JSON that goes into the body.

A row's vector is put into its JSON as text, which costs less than to have the encoder look at each of its characters.
Rows that stay as they are while they are read are encoded several at once, as starting the encoder takes longer than
most rows; what a generator yields may be changed by it afterwards, so each row of one is encoded before the next.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from datetime import datetime
from itertools import islice
from typing import Any, NamedTuple

from vectordb_client._core import to_json, to_json_each
from vectordb_client.errors import InvalidArgument
from vectordb_client.types import Chunk
from vectordb_client.vectors import rows_of, shape_of, to_base64

_FIELDS = ("id", "document_id", "text", "embed_text", "metadata", "expires_at")
_VECTOR_NAMES = ("embedding", "vector")

# As many take little memory even where they are large.
_AT_ONCE = 32
# What follows a vector, the last field of its chunk.
_TAIL = b'"}'


class Row(NamedTuple):
    """A chunk: its id; its JSON, up to the vector if it brings one; the vector in base64; whether it brings one or says
    that it has none."""

    id: str | None
    head: bytes
    vector: bytes | None
    has_vector: bool

    @property
    def size(self) -> int:
        """As many bytes as the JSON has, or a few less."""
        return len(self.head) + len(self.vector or b"")


class Columns(NamedTuple):
    """What a write takes beside rows: columns of one length, each of which may be absent."""

    ids: Sequence[str] | None = None
    texts: Sequence[str | None] | None = None
    vectors: Any = None
    metadatas: Sequence[Mapping[str, Any] | None] | None = None
    document_ids: Sequence[str | None] | None = None
    embed_texts: Sequence[str | None] | None = None
    expires_at: datetime | str | None = None


# The fields of a row without its vector, the vector, and whether there is one, be it None.
_Given = tuple[dict[str, Any], Any, bool]


def new_id() -> str:
    """A UUID of version 7, as the server makes: ordered by time, with 74 random bits."""
    random = int.from_bytes(os.urandom(10), "big")
    number = (time.time_ns() // 1_000_000 << 80) | random
    number = number & ~(0xF000 << 64) & ~(0xC000 << 48) | (0x7000 << 64) | (0x8000 << 48)
    text = f"{number:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


class Source(NamedTuple):
    """Rows as they were given, in groups, and what makes chunks of a group, or raises InvalidArgument; `total` where it
    is known."""

    groups: Iterable[Sequence[Any]]
    encode: Callable[[Sequence[Any]], list[Row]]
    total: int | None


def chunk_rows(rows: Any, columns: Columns, *, makes_ids: bool) -> list[Row]:
    """The chunks of a write, as `read_rows` reads them."""
    source = read_rows(rows, columns, makes_ids=makes_ids)
    return [row for group in source.groups for row in source.encode(group)]


def read_rows(rows: Any, columns: Columns, *, makes_ids: bool) -> Source:
    """Where chunks come from: `rows`, or columns. With `makes_ids`, one without an id is given one here, so that a
    request that is sent twice writes once. Raise InvalidArgument where rows or columns cannot be used."""
    given = [name for name, column in zip(Columns._fields, columns, strict=True) if column is not None]
    if rows is not None and given not in ([], ["expires_at"]):
        raise InvalidArgument(f"takes rows, or columns such as {given[0]}, not both")
    if rows is not None and shape_of(rows) is not None and not hasattr(rows, "columns"):
        columns, rows = Columns(vectors=rows, expires_at=columns.expires_at), None
    if rows is None:
        return _of_columns(columns, makes_ids)
    if isinstance(rows, Mapping | Chunk):
        rows = [rows]
    total = len(rows) if isinstance(rows, Sized) else None
    at_once = _AT_ONCE if isinstance(rows, (list, tuple)) else 1
    if hasattr(rows, "columns") and (hasattr(rows, "itertuples") or hasattr(rows, "iter_rows")):
        rows, at_once = _of_frame(rows), _AT_ONCE
    if isinstance(rows, str | bytes) or not isinstance(rows, Iterable):
        raise InvalidArgument(
            f"rows are dicts, a DataFrame or a matrix of vectors, not {type(rows).__name__}; texts= takes texts, and "
            "import_ a file"
        )

    def encode(group: Sequence[Any]) -> list[Row]:
        return _encode([_of_mapping(row, columns.expires_at) for row in group], makes_ids)

    return Source(_groups(rows, at_once), encode, total)


def _of_columns(columns: Columns, makes_ids: bool) -> Source:
    names = {"ids": "id", "texts": "text", "metadatas": "metadata"}
    lists: dict[str, Sequence[Any]] = {}
    for name, column in columns._asdict().items():
        if column is None or name in ("vectors", "expires_at"):
            continue
        if isinstance(column, str | bytes | Mapping):
            raise InvalidArgument(f"{name}: takes a list with one for each chunk, not {type(column).__name__}")
        lists[names.get(name, name.removesuffix("s"))] = list(column)
    vectors = None if columns.vectors is None else rows_of(columns.vectors)
    lengths = {field: len(column) for field, column in lists.items()}
    if vectors is not None:
        lengths["embedding"] = len(vectors)
    if not lengths:
        raise InvalidArgument("nothing to write: give rows, or texts= or vectors=")
    if len(set(lengths.values())) > 1:
        raise InvalidArgument(f"columns must have one value for each chunk, and have {lengths}")
    expires_at, columns_of = columns.expires_at, list(lists.items())

    def encode(group: Sequence[int]) -> list[Row]:
        return _encode([row_at(index) for index in group], makes_ids)

    def row_at(index: int) -> _Given:
        # None in a column is a chunk without; but a chunk can have no document.
        fields = {
            field: column[index] for field, column in columns_of if column[index] is not None or field == "document_id"
        }
        if expires_at is not None:
            fields["expires_at"] = expires_at
        return fields, None if vectors is None else vectors[index], vectors is not None

    total = lengths.popitem()[1]
    return Source(_groups(range(total), _AT_ONCE), encode, total)


def _groups(rows: Iterable[Any], size: int) -> Iterator[Sequence[Any]]:
    if size == 1:
        return ((row,) for row in rows)
    given = iter(rows)
    return iter(lambda: tuple(islice(given, size)), ())


def _of_mapping(row: Any, expires_at: datetime | str | None) -> _Given:
    vector, has_vector = None, False
    if isinstance(row, (dict, Mapping)):
        fields = dict(row)
        for name in _VECTOR_NAMES:
            if name in fields:
                vector, has_vector = fields.pop(name), True
    elif isinstance(row, Chunk):
        fields = {name: getattr(row, name) for name in _FIELDS if getattr(row, name) is not None}
        vector, has_vector = row.embedding, row.embedding is not None
    else:
        raise InvalidArgument(f"a row is a dict such as {{'id': ..., 'text': ...}}, not {type(row).__name__}")
    if expires_at is not None:
        fields.setdefault("expires_at", expires_at)
    return fields, vector, has_vector


def _of_frame(frame: Any) -> Iterator[dict[str, Any]]:
    """Rows of a DataFrame: columns that are no fields of chunks are metadata, and what is missing is left out."""
    names = [str(name) for name in frame.columns]
    own = {*_FIELDS, *_VECTOR_NAMES}
    records = (
        frame.iter_rows() if hasattr(frame, "iter_rows") else zip(*(frame[name] for name in frame.columns), strict=True)
    )
    for record in records:
        values = {name: value for name, value in zip(names, record, strict=True) if not _is_missing(value)}
        row = {name: value for name, value in values.items() if name in own}
        metadata = {name: value for name, value in values.items() if name not in own}
        if metadata:
            row["metadata"] = {**row.get("metadata", {}), **metadata}
        yield row


def _is_missing(value: Any) -> bool:
    return (
        value is None or (isinstance(value, float) and value != value) or type(value).__name__ in ("NAType", "NaTType")
    )


def _encode(given: Sequence[_Given], makes_ids: bool) -> list[Row]:
    for fields, vector, has_vector in given:
        if makes_ids and "id" not in fields:
            fields["id"] = new_id()
        if isinstance(fields.get("expires_at"), datetime):
            fields["expires_at"] = to_rfc3339(fields["expires_at"])
        if has_vector:
            fields["embedding"] = None if vector is None else ""
    rows = []
    for (fields, vector, has_vector), encoded in zip(given, to_json_each([one[0] for one in given]), strict=True):
        if vector is None:
            rows.append(Row(fields.get("id"), encoded, None, has_vector))
        else:
            rows.append(Row(fields.get("id"), encoded[: -len(_TAIL)], to_base64(vector), True))
    return rows


def to_rfc3339(value: datetime | str | None) -> str | None:
    """A time as the server takes it; raise InvalidArgument for a datetime without a time zone."""
    if not isinstance(value, datetime):
        return value
    if value.tzinfo is None:
        raise InvalidArgument(f"{value!r} has no time zone: give it one, as in datetime.now(timezone.utc)")
    return value.isoformat()


def write_body(rows: Sequence[Row], **options: Any) -> bytes:
    """The body of a write of chunks."""
    return with_chunks(to_json({name: value for name, value in options.items() if value is not None}), rows)


def with_chunks(head: bytes, rows: Sequence[Row]) -> bytes:
    """The JSON object `head` with the rows as its chunks; what is long is copied once."""
    parts = [head[:-1], b',"chunks":[' if len(head) > 2 else b'"chunks":[']
    for row in rows:
        parts += (row.head, b",") if row.vector is None else (row.head, row.vector, _TAIL, b",")
    if rows:
        parts.pop()
    parts.append(b"]}")
    return b"".join(parts)
