"""What is said of a library."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from vectordb_client.types.tables import Record


@dataclass(frozen=True, slots=True, repr=False)
class LibraryInfo(Record):
    """A library, as the server describes it. `dimension` is None until the first vector fixes it."""

    id: str
    name: str
    description: str
    dimension: int | None
    metric: str
    index_type: str
    index_params: Mapping[str, Any]
    embedding: Mapping[str, str] | None
    unindexed: tuple[str, ...]
    metadata: Mapping[str, Any]
    created_at: datetime
    updated_at: datetime
    # For `if_match`; None where it was not sent, as in lists.
    etag: str | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True, repr=False)
class IndexState(Record):
    """The index of a library. `state` is ready, building or failed."""

    kind: str
    state: str
    rows_indexed: int
    rows_pending: int
    rows_tail: int
    rows_dead: int
    bytes: int
    built_at: datetime | None = None
    error: str | None = None
    warning: str | None = None
    segments: tuple[Mapping[str, Any], ...] = field(default=(), repr=False)
    memory: Mapping[str, Any] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True, repr=False)
class Stats(Record):
    """The size and state of a library."""

    documents: int
    chunks: int
    chunks_without_vector: int
    revision: int
    index: IndexState
    recall: Mapping[str, Any] | None = None
    reembedding: Mapping[str, Any] | None = None
