"""Chunks, and what a write of them did."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from vectordb_client.errors import Fault
from vectordb_client.types.parsing import parse, parse_time
from vectordb_client.types.tables import Table, short_repr
from vectordb_client.vectors import decode

if TYPE_CHECKING:
    from vectordb_client.vectors import Vector


@dataclass(frozen=True, slots=True)
class DocumentRef:
    """The document of a chunk, where `include` names it."""

    id: str
    title: str
    source: str
    metadata: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Chunk:
    """A stored chunk. What `include` did not name is None."""

    id: str
    document_id: str | None = None
    text: str | None = None
    metadata: Mapping[str, Any] | None = None
    embedding: Vector | None = field(default=None, compare=False, repr=False)
    embed_text: str | None = None
    document: DocumentRef | None = None
    position: int | None = None
    expires_at: datetime | None = None
    created_at: datetime | None = None
    updated_at: datetime | None = None
    etag: str | None = field(default=None, compare=False, repr=False)

    def __repr__(self) -> str:
        return short_repr(self, ("document_id", "text", "metadata"))


@dataclass(frozen=True, slots=True, repr=False)
class Chunks(Table[Chunk]):
    """Chunks by their ids, in the order asked for, without those that are `missing`."""

    items: tuple[Chunk, ...]
    missing: tuple[str, ...]

    def _items(self) -> Sequence[Chunk]:
        return self.items

    def _caption(self) -> str:
        return f"{len(self.items)} chunks" + (f", {len(self.missing)} missing" if self.missing else "")

    def __repr__(self) -> str:
        return f"Chunks({list(self.items)!r}, missing={list(self.missing)!r})"


@dataclass(frozen=True, slots=True)
class Skipped:
    """A chunk that was not stored: its place in the request, and why."""

    index: int
    errors: tuple[Fault, ...]


@dataclass(frozen=True, slots=True)
class WriteResult:
    """What a write of chunks did. `skipped` are those that `on_invalid="skip"` left out."""

    ids: tuple[str, ...]
    created: int
    updated: int
    skipped: tuple[Skipped, ...] = ()
    profile: Mapping[str, float] | None = None

    def __repr__(self) -> str:
        skipped = f", skipped={len(self.skipped)}" if self.skipped else ""
        return f"WriteResult(created={self.created}, updated={self.updated}{skipped})"


def parse_chunk(item: dict[str, Any], etag: str | None = None) -> Chunk:
    """A chunk of an answer."""
    get, document = item.get, item.get("document")
    return Chunk(
        item["id"],
        get("document_id"),
        get("text"),
        get("metadata"),
        decode(get("embedding")),
        get("embed_text"),
        None if document is None else parse(DocumentRef, document),
        get("position"),
        parse_time(get("expires_at")),
        parse_time(get("created_at")),
        parse_time(get("updated_at")),
        etag,
    )


def parse_written(answer: dict[str, Any]) -> WriteResult:
    """The answer to a write of chunks."""
    skipped = tuple(Skipped(one["index"], parse_faults(one["errors"])) for one in answer.get("skipped", ()))
    return WriteResult(tuple(answer["ids"]), answer["created"], answer["updated"], skipped, answer.get("profile"))


def parse_faults(errors: list[dict[str, str]]) -> tuple[Fault, ...]:
    """What is wrong, of an answer."""
    return tuple(Fault(one["pointer"], one["detail"]) for one in errors)
