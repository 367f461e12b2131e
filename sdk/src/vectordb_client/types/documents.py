"""Documents, and what became of their chunks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from vectordb_client.types.tables import Record


@dataclass(frozen=True, slots=True, repr=False)
class Document(Record):
    """A document. `chunk_ids` are known where it was just created."""

    id: str
    title: str
    source: str
    metadata: Mapping[str, Any]
    chunk_count: int
    expires_at: datetime | None
    created_at: datetime
    updated_at: datetime
    chunk_ids: tuple[str, ...] | None = field(default=None, repr=False)
    profile: Mapping[str, float] | None = field(default=None, compare=False, repr=False)
    etag: str | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Diff:
    """What a put of a document did to its chunks."""

    id: str
    created: int
    updated: int
    unchanged: int
    deleted: int
    chunk_ids: tuple[str, ...] = field(default=(), repr=False)
    profile: Mapping[str, float] | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class FolderReport:
    """What an upload of a folder did: the diffs of its documents, and the files that were not stored, with why."""

    diffs: tuple[Diff, ...]
    errors: Mapping[str, str]

    @property
    def unchanged(self) -> int:
        """The number of documents in which nothing changed."""
        return sum(not (diff.created or diff.updated or diff.deleted) for diff in self.diffs)

    def __repr__(self) -> str:
        return f"FolderReport(documents={len(self.diffs)}, unchanged={self.unchanged}, errors={dict(self.errors)!r})"
