"""Chunks to write, from columns, dicts, dataclasses, DataFrames: each as the JSON that goes into the body.

A row's vector is put into its JSON as text, which costs less than to have the encoder look at each of its characters.
"""

from __future__ import annotations

import os
import time
from binascii import b2a_base64
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from datetime import datetime
from typing import Any, NamedTuple

from vectordb_client._core import to_json
from vectordb_client.errors import InvalidArgument
from vectordb_client.types import Chunk
from vectordb_client.vectors import rows_of, shape_of, to_bytes

_FIELDS = ("id", "document_id", "text", "embed_text", "metadata", "expires_at")
_VECTOR_NAMES = ("embedding", "vector")


class Row(NamedTuple):
    """A chunk as JSON, the id that it has, and whether it brings a vector or says that it has none."""

    id: str | None
    json: bytes
    has_vector: bool


class Columns(NamedTuple):
    """What a write takes beside rows: columns of one length, each of which may be absent."""

    ids: Sequence[str] | None = None
    texts: Sequence[str | None] | None = None
    vectors: Any = None
    metadatas: Sequence[Mapping[str, Any] | None] | None = None
    document_ids: Sequence[str | None] | None = None
    embed_texts: Sequence[str | None] | None = None
    expires_at: datetime | str | None = None


def new_id() -> str:
    """A UUID of version 7, as the server makes: ordered by time, with 74 random bits."""
    random = int.from_bytes(os.urandom(10), "big")
    number = (time.time_ns() // 1_000_000 << 80) | random
    number = number & ~(0xF000 << 64) & ~(0xC000 << 48) | (0x7000 << 64) | (0x8000 << 48)
    text = f"{number:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


class Source(NamedTuple):
    """Rows as they were given, and what makes a chunk of one, or raises InvalidArgument; `total` where it is known."""

    rows: Iterable[Any]
    encode: Callable[[Any], Row]
    total: int | None


def chunk_rows(rows: Any, columns: Columns, *, makes_ids: bool) -> list[Row]:
    """The chunks of a write, as `read_rows` reads them."""
    source = read_rows(rows, columns, makes_ids=makes_ids)
    return [source.encode(row) for row in source.rows]


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
    if hasattr(rows, "columns") and (hasattr(rows, "itertuples") or hasattr(rows, "iter_rows")):
        rows = _of_frame(rows)
    if isinstance(rows, str | bytes) or not isinstance(rows, Iterable):
        raise InvalidArgument(
            f"rows are dicts, a DataFrame or a matrix of vectors, not {type(rows).__name__}; texts= takes texts"
        )
    return Source(rows, lambda row: _of_mapping(row, columns.expires_at, makes_ids), total)


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

    def encode(index: int) -> Row:
        # None in a column is a chunk without; but a chunk can have no document.
        fields = {
            field: column[index] for field, column in columns_of if column[index] is not None or field == "document_id"
        }
        if expires_at is not None:
            fields["expires_at"] = expires_at
        vector = None if vectors is None else vectors[index]
        return _encode(fields, vector, vectors is not None and vector is None, makes_ids)

    total = lengths.popitem()[1]
    return Source(range(total), encode, total)


def _of_mapping(row: Any, expires_at: datetime | str | None, makes_ids: bool) -> Row:
    vector, is_null = None, False
    if isinstance(row, Chunk):
        fields = {name: getattr(row, name) for name in _FIELDS if getattr(row, name) is not None}
        vector = row.embedding
    elif isinstance(row, Mapping):
        fields = dict(row)
        for name in _VECTOR_NAMES:
            if name in fields:
                vector = fields.pop(name)
                is_null = vector is None
    else:
        raise InvalidArgument(f"a row is a dict such as {{'id': ..., 'text': ...}}, not {type(row).__name__}")
    if expires_at is not None:
        fields.setdefault("expires_at", expires_at)
    return _encode(fields, vector, is_null, makes_ids)


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


def _encode(fields: dict[str, Any], vector: Any, is_null: bool, makes_ids: bool) -> Row:
    if makes_ids and "id" not in fields:
        fields["id"] = new_id()
    if isinstance(fields.get("expires_at"), datetime):
        fields["expires_at"] = to_rfc3339(fields["expires_at"])
    if is_null:
        fields["embedding"] = None
    encoded = to_json(fields)
    if vector is not None:
        embedding = vector.encode() if isinstance(vector, str) else b2a_base64(to_bytes(vector), newline=False)
        encoded = b'%b%b"embedding":"%b"}' % (encoded[:-1], b"," if fields else b"", embedding)
    return Row(fields.get("id"), encoded, vector is not None or is_null)


def to_rfc3339(value: datetime | str | None) -> str | None:
    """A time as the server takes it; raise InvalidArgument for a datetime without a time zone."""
    if not isinstance(value, datetime):
        return value
    if value.tzinfo is None:
        raise InvalidArgument(f"{value!r} has no time zone: give it one, as in datetime.now(timezone.utc)")
    return value.isoformat()


def write_body(rows: Iterable[Row], **options: Any) -> bytes:
    """The body of a write of chunks."""
    begin = to_json({name: value for name, value in options.items() if value is not None})
    return b'%b%b"chunks":[%b]}' % (
        begin[:-1],
        b"," if len(begin) > 2 else b"",
        b",".join([row.json for row in rows]),
    )
