"""Chunks to write, from columns, dicts, dataclasses, DataFrames: each as the JSON that goes into the body.

A row's vector is put into its JSON as text, which costs less than to have the encoder look at each of its characters.
Rows that stay as they are while they are read are encoded several at once, as starting the encoder takes longer than
most rows; what a generator yields may be changed by it afterwards, so each row of one is encoded before the next.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass, field
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
# What comes before a vector, the last field of its chunk.
_VECTOR = b'"embedding":"'
# Stands for a field that a row lacks.
_ABSENT: Any = object()


@dataclass(slots=True)
class Rows:
    """Chunks, as lists of one length: their ids; their JSON, up to the vector where they bring one, else up to its end;
    the vectors in base64; whether each brings one or says that it has none.

    An object for each row would be one that the garbage collector looks at again and again, as long as it waits.
    """

    ids: list[str | None] = field(default_factory=list)
    heads: list[bytes] = field(default_factory=list)
    vectors: list[bytes | None] = field(default_factory=list)
    have_vectors: list[bool] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.ids)

    def part(self, first: int, last: int) -> Rows:
        """The rows from `first` up to `last`, which is not among them."""
        some = slice(first, last)
        return Rows(self.ids[some], self.heads[some], self.vectors[some], self.have_vectors[some])

    def extend(self, other: Rows) -> None:
        self.ids += other.ids
        self.heads += other.heads
        self.vectors += other.vectors
        self.have_vectors += other.have_vectors

    @property
    def bytes(self) -> int:
        """As many as the JSON of all has, or a few less."""
        return sum(map(len, self.heads)) + sum(map(len, filter(None, self.vectors)))


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
    """Rows as they were given, in groups, and what makes chunks of a group, or raises InvalidArgument; `total` where it
    is known."""

    groups: Iterable[Sequence[Any]]
    encode: Callable[[Sequence[Any]], Rows]
    total: int | None


def chunk_rows(rows: Any, columns: Columns, *, makes_ids: bool) -> Rows:
    """The chunks of a write, as `read_rows` reads them."""
    source, found = read_rows(rows, columns, makes_ids=makes_ids), Rows()
    for group in source.groups:
        found.extend(_encode_group(source, group, len(found)))
    return found


def _encode_group(source: Source, group: Sequence[Any], number: int) -> Rows:
    """The chunks of a group, whose first row has this number, which an error names."""
    try:
        return source.encode(group)
    except InvalidArgument as error:
        if len(group) == 1:
            raise InvalidArgument(f"row {number}: {error}") from error
    found = Rows()
    for place, one in enumerate(group):
        found.extend(_encode_group(source, (one,), number + place))
    return found


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
    read: Callable[[Any], dict[str, Any]] = _of_mapping
    if hasattr(rows, "columns") and (hasattr(rows, "itertuples") or hasattr(rows, "iter_rows")):
        (rows, read), at_once = _of_frame(rows), _AT_ONCE
    if isinstance(rows, str | bytes) or not isinstance(rows, Iterable):
        raise InvalidArgument(
            f"rows are dicts, a DataFrame or a matrix of vectors, not {type(rows).__name__}; texts= takes texts, and "
            "import_ a file"
        )

    def encode(group: Sequence[Any]) -> Rows:
        rows = [read(row) for row in group]
        names = dict.fromkeys(name for row in rows for name in row)
        fields: dict[str, Sequence[Any]] = {name: [row.get(name, _ABSENT) for row in rows] for name in names}
        if columns.expires_at is not None:
            given = fields.get("expires_at", [_ABSENT] * len(rows))
            fields["expires_at"] = [columns.expires_at if one is _ABSENT else one for one in given]
        if "embedding" in fields:
            fields["embedding"] = [one if one is _ABSENT else to_base64(one) for one in fields["embedding"]]
        return _encode(fields, len(rows), makes_ids)

    return Source(_groups(rows, at_once), encode, total)


def _of_columns(columns: Columns, makes_ids: bool) -> Source:
    names = {"ids": "id", "texts": "text", "metadatas": "metadata"}
    lists: dict[str, Sequence[Any]] = {}
    for name, column in columns._asdict().items():
        if column is None or name in ("vectors", "expires_at"):
            continue
        if isinstance(column, str | bytes | Mapping):
            raise InvalidArgument(f"{name}: takes a list with one for each chunk, not {type(column).__name__}")
        # None in a column is a chunk without; but a chunk can have no document.
        values = list(column) if name == "document_ids" else [_ABSENT if one is None else one for one in column]
        lists[names.get(name, name.removesuffix("s"))] = values
    vectors = None if columns.vectors is None else rows_of(columns.vectors)
    lengths = {field: len(column) for field, column in lists.items()}
    if vectors is not None:
        lengths["embedding"] = len(vectors)
    if not lengths:
        raise InvalidArgument("nothing to write: give rows, or texts= or vectors=")
    if len(set(lengths.values())) > 1:
        raise InvalidArgument(f"columns must have one value for each chunk, and have {lengths}")
    total = lengths.popitem()[1]
    if columns.expires_at is not None:
        lists["expires_at"] = [columns.expires_at] * total

    def encode(group: Sequence[int]) -> Rows:
        some = slice(group[0], group[-1] + 1)
        fields = {field: column[some] for field, column in lists.items()}
        if vectors is not None:
            fields["embedding"] = vectors.base64(some)
        return _encode(fields, len(group), makes_ids)

    return Source(_groups(range(total), _AT_ONCE), encode, total)


def _groups(rows: Iterable[Any], size: int) -> Iterator[Sequence[Any]]:
    if size == 1:
        return ((row,) for row in rows)
    given = iter(rows)
    return iter(lambda: tuple(islice(given, size)), ())


def _of_mapping(row: Any) -> dict[str, Any]:
    """The fields of a row, its vector as `embedding`."""
    if isinstance(row, (dict, Mapping)):
        fields = dict(row)
        if "vector" in fields:
            fields["embedding"] = fields.pop("vector")
    elif isinstance(row, Chunk):
        fields = {name: getattr(row, name) for name in (*_FIELDS, "embedding") if getattr(row, name) is not None}
    else:
        raise InvalidArgument(f"a row is a dict such as {{'id': ..., 'text': ...}}, not {type(row).__name__}")
    if isinstance(fields.get("id"), (list, tuple)):
        raise InvalidArgument("a dict is one row; columns go by ids=, texts=, vectors= and metadatas=")
    return fields


def _of_frame(frame: Any) -> tuple[Iterable[Sequence[Any]], Callable[[Sequence[Any]], dict[str, Any]]]:
    """The rows of a DataFrame, and what makes fields of one: columns that are no fields of chunks are metadata, and
    what is missing is left out."""
    names, own = [str(name) for name in frame.columns], {*_FIELDS, *_VECTOR_NAMES}
    for name, times in Counter(names).items():
        if times > 1:
            raise InvalidArgument(f"the DataFrame has {times} columns {name!r}: give each a name of its own")

    def read(record: Sequence[Any]) -> dict[str, Any]:
        values = {name: value for name, value in zip(names, record, strict=True) if not _is_missing(value)}
        row = {name: value for name, value in values.items() if name in own}
        metadata = {name: value for name, value in values.items() if name not in own}
        if metadata:
            if not isinstance(row.get("metadata", {}), Mapping):
                raise InvalidArgument(f"metadata is a dict, not {type(row['metadata']).__name__}")
            row["metadata"] = {**row.get("metadata", {}), **metadata}
        return _of_mapping(row)

    if hasattr(frame, "iter_rows"):
        return frame.iter_rows(), read
    return zip(*(frame[name] for name in frame.columns), strict=True), read


def _is_missing(value: Any) -> bool:
    return (
        value is None or (isinstance(value, float) and value != value) or type(value).__name__ in ("NAType", "NaTType")
    )


def _encode(columns: dict[str, Sequence[Any]], count: int, makes_ids: bool) -> Rows:
    """The chunks whose fields are `columns` of `count` values, or _ABSENT; vectors in base64."""
    fields, absent = dict(columns), [_ABSENT] * count
    given, ids = fields.pop("embedding", absent), fields.pop("id", absent)
    if makes_ids:
        ids = [new_id() if one is _ABSENT else one for one in ids]
    if "expires_at" in fields:
        fields["expires_at"] = [to_rfc3339(one) for one in fields["expires_at"]]
    members = [_encode_column(name, column) for name, column in {"id": ids, **fields}.items()]
    members.append([b"" if one is _ABSENT else b'"embedding":null' if one is None else _VECTOR for one in given])
    return Rows(
        [None if one is _ABSENT else one for one in ids],
        [b"{" + b",".join(filter(None, row)) for row in zip(*members, strict=True)],
        [None if one is _ABSENT else one for one in given],
        [one is not _ABSENT for one in given],
    )


def _encode_column(name: str, column: Sequence[Any]) -> Sequence[bytes]:
    """Each value as a member of a JSON object; nothing for _ABSENT."""
    key, given = to_json(str(name)) + b":", [one for one in column if one is not _ABSENT]
    members = [key + value for value in to_json_each(given)] if given else []
    if len(given) == len(column):
        return members
    rest = iter(members)
    return [b"" if one is _ABSENT else next(rest) for one in column]


def to_rfc3339(value: datetime | str | None) -> str | None:
    """A time as the server takes it; raise InvalidArgument for a datetime without a time zone."""
    if not isinstance(value, datetime):
        return value
    if value.tzinfo is None:
        raise InvalidArgument(f"{value!r} has no time zone: give it one, as in datetime.now(timezone.utc)")
    return value.isoformat()


def write_body(rows: Rows, **options: Any) -> bytes:
    """The body of a write of chunks."""
    return with_chunks(to_json({name: value for name, value in options.items() if value is not None}), rows)


def with_chunks(head: bytes, rows: Rows) -> bytes:
    """The JSON object `head` with the rows as its chunks; what is long is copied once."""
    parts = [head[:-1], b',"chunks":[' if len(head) > 2 else b'"chunks":[']
    for row, vector in zip(rows.heads, rows.vectors, strict=True):
        parts += (row, b"},") if vector is None else (row, vector, b'"},')
    if rows.ids:
        parts[-1] = parts[-1].removesuffix(b",")
    parts.append(b"]}")
    return b"".join(parts)
