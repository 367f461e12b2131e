"""What is shown of a chunk: the fields that a request includes, read and no others, and how each of them looks.

A field is one entry of _FIELDS. Queries, lists and reads by id share it, and so does what `include` may name.
"""

import base64
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache, partial
from operator import itemgetter
from typing import Annotated, Any, Literal, TypeAlias

import numpy as np
import orjson
from django.conf import settings
from pydantic import AfterValidator, Field

from apps.engine.metadata.paths import split_path
from apps.engine.vectors import DTYPE
from apps.libraries.dialects.base import Dialect
from apps.libraries.fields import Input, validation_error

VectorFormat = Literal["array", "base64"]
# A row of a statement that reads chunks.
Row: TypeAlias = tuple[Any, ...]
# Makes a field from a row.
Render: TypeAlias = Callable[[Row], Any]
# The keys of objects that are shown, each with those of the object that it leads to; None shows it whole.
Parts: TypeAlias = dict[str, "Parts | None"]

_PART = "metadata."
_MOST_NAMES = 100


@dataclass(frozen=True)
class _Field:
    """A field of a chunk: the columns that hold it, and what shows it of a row in which they begin at a place. Items of
    lists have it `always`; otherwise it is there where `include` names it."""

    columns: tuple[str, ...]
    render: Callable[[int, "Shown"], Render]
    always: bool = False


def vector_array(blob: bytes | memoryview) -> np.ndarray:
    """A stored vector as a float32 array."""
    return np.frombuffer(blob, DTYPE)


def timestamp(moment: datetime) -> str:
    """A time as the API shows it: RFC 3339, UTC, microseconds."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _show_value(at: int, shown: "Shown") -> Render:
    return itemgetter(at)


def _show_time(at: int, shown: "Shown") -> Render:
    return lambda row: stored_timestamp(row[at])


@lru_cache(maxsize=4096)
def stored_timestamp(moment: str | datetime | None) -> str | None:
    """A time of the database, which on SQLite is a text in UTC."""
    if isinstance(moment, str):
        moment = datetime.fromisoformat(moment).replace(tzinfo=UTC)
    return None if moment is None else timestamp(moment)


def _show_metadata(at: int, shown: "Shown") -> Render:
    parts = shown.parts
    if parts is None:
        return lambda row: orjson.Fragment(row[at])
    return lambda row: select_parts(orjson.loads(row[at]), parts)


def _show_vector(at: int, shown: "Shown") -> Render:
    make = _base64 if shown.vectors == "base64" else vector_array
    return lambda row: None if row[at] is None else make(row[at])


def _base64(blob: bytes | memoryview) -> str:
    return base64.b64encode(blob).decode()


def _show_document(at: int, shown: "Shown") -> Render:
    return partial(_document, at)


def _document(at: int, row: Row) -> dict[str, Any] | None:
    if row[2] is None:
        return None
    title, source, metadata = row[at : at + 3]
    return {"id": row[2], "title": title, "source": source, "metadata": orjson.Fragment(metadata)}


_FIELDS = {
    "text": _Field(("chunk.text",), _show_value),
    "embed_text": _Field(("chunk.embed_text",), _show_value),
    "metadata": _Field(("chunk.metadata",), _show_metadata),
    "position": _Field(("chunk.position",), _show_value, always=True),
    "created_at": _Field(("chunk.created_at",), _show_time, always=True),
    "updated_at": _Field(("chunk.updated_at",), _show_time, always=True),
    "expires_at": _Field(("chunk.expires_at",), _show_time, always=True),
    "embedding": _Field(("embedding.vector",), _show_vector),
    "document": _Field(("document.title", "document.source", "document.metadata"), _show_document),
}
_ALWAYS = frozenset(name for name, field in _FIELDS.items() if field.always)
NAMES = tuple(name for name, field in _FIELDS.items() if not field.always)


@dataclass(frozen=True)
class Shown:
    """What is shown of a chunk besides its id and its document's: `fields`, of the metadata only `parts` (None: all of
    it), and vectors in a format."""

    fields: tuple[str, ...]
    parts: Parts | None = None
    vectors: VectorFormat = "array"

    @classmethod
    @lru_cache(maxsize=256)
    def of(cls, include: tuple[str, ...], vectors: VectorFormat = "array", *, is_item: bool = False) -> "Shown":
        """What a request's `include` names, and for an item of a list what that always has."""
        names, parts = set(_ALWAYS if is_item else ()), Parts()
        for name in include:
            if name in _FIELDS:
                names.add(name)
            else:
                _add_part(parts, split_path(name.removeprefix(_PART)))
        is_whole = "metadata" in names or not parts
        if parts:
            names.add("metadata")
        return cls(tuple(name for name in _FIELDS if name in names), None if is_whole else parts, vectors)


def _add_part(parts: Parts, keys: Sequence[str]) -> None:
    *within, last = keys
    for key in within:
        below = parts.setdefault(key, {})
        if below is None:
            return
        parts = below
    parts[last] = None


def select_parts(value: Mapping[str, Any], parts: Parts) -> dict[str, Any]:
    """Of an object those parts that are there."""
    found = {}
    for key, below in parts.items():
        if key in value:
            part = value[key]
            if below is None:
                found[key] = part
            elif isinstance(part, dict) and (some := select_parts(part, below)):
                found[key] = some
    return found


def _check_name(name: str) -> str:
    if name in NAMES:
        return name
    if not name.startswith(_PART):
        known = ", ".join(NAMES)
        raise validation_error(f"must be one of {known}, or a part of the metadata such as metadata.topic")
    try:
        keys = split_path(name.removeprefix(_PART))
    except ValueError:
        raise validation_error("must not end in a backslash that makes nothing literal") from None
    if len(keys) > settings.LIMITS.metadata_depth:
        limit = f"{settings.LIMITS.metadata_depth} (limit VECTORDB_MAX_METADATA_DEPTH)"
        raise validation_error(f"must not reach deeper than {limit}")
    return name


ABOUT_INCLUDE = (
    f"What to show of each chunk: {', '.join(f'`{name}`' for name in NAMES)}, and parts of the metadata such as "
    "`metadata.topic`."
)
_PATTERN = rf"^({'|'.join(map(re.escape, NAMES))}|metadata\.([^\\]|\\.)*)$"
Include = Annotated[
    tuple[Annotated[str, AfterValidator(_check_name), Field(json_schema_extra={"pattern": _PATTERN})], ...],
    Field(description=ABOUT_INCLUDE, max_length=_MOST_NAMES, fail_fast=True),
]
DEFAULT_INCLUDE = ("text", "metadata")
DEFAULT_ITEM = Shown.of(DEFAULT_INCLUDE, is_item=True)
Vectors = Annotated[
    VectorFormat,
    Field(description="How vectors look: an array of numbers, or a base64 string of little-endian float32."),
]


class ShowingInput(Input):
    """What to show of each chunk."""

    include: Include = DEFAULT_INCLUDE
    vectors: Vectors = "array"

    @property
    def shown_item(self) -> Shown:
        """What an item of a list shows."""
        return Shown.of(self.include, self.vectors, is_item=True)


@dataclass(frozen=True)
class ChunkStatement:
    """A statement that reads chunks, without its condition. The first columns are the chunk's key, its id and its
    document's id; `places` says where each field begins."""

    sql: str
    places: Mapping[str, int]

    def renderers(self, shown: Shown) -> list[tuple[str, Render]]:
        """What makes each field that is shown."""
        return [(name, _FIELDS[name].render(self.places[name], shown)) for name in shown.fields]

    def items(self, rows: Iterable[Row], shown: Shown) -> Iterator[tuple[int, dict[str, Any]]]:
        """Keys of chunks, and the chunks as lists show them."""
        renderers = self.renderers(shown)
        for row in rows:
            yield row[0], {"id": row[1], "document_id": row[2]} | {name: render(row) for name, render in renderers}


@lru_cache(maxsize=64)
def chunk_statement(fields: frozenset[str], dialect: Dialect) -> ChunkStatement:
    """The statement that reads these fields of chunks and no others."""
    columns = ["chunk.id", "chunk.public_id", "document.public_id"]
    places = {}
    for name in sorted(fields):
        places[name] = len(columns)
        some = _FIELDS[name].columns
        columns += [dialect.json_text(column) if column.endswith(".metadata") else column for column in some]
    joins = "LEFT JOIN vectordb_document AS document ON document.id = chunk.document_id"
    if "embedding" in fields:
        joins += (
            " JOIN vectordb_library AS library ON library.id = chunk.library_id"
            " LEFT JOIN vectordb_embedding AS embedding"
            " ON embedding.chunk_id = chunk.id AND embedding.generation = library.generation"
        )
    return ChunkStatement(f"SELECT {', '.join(columns)} FROM vectordb_chunk AS chunk {joins} WHERE ", places)
