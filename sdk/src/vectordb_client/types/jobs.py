"""Jobs and backups."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from vectordb_client.types.tables import Record


@dataclass(frozen=True, slots=True, repr=False)
class JobInfo(Record):
    """A job of the server. `state` is running, done, failed or cancelled; `done` of `total` is its progress."""

    id: str
    kind: str
    library: str | None
    state: str
    done: int | None = None
    total: int | None = None
    error: str | None = None
    result: Mapping[str, Any] = field(default_factory=dict)
    created_at: datetime | None = None
    ended_at: datetime | None = None


@dataclass(frozen=True, slots=True, repr=False)
class BackupInfo(Record):
    """A backup: of when, of how much, why it was made, and the SHA-256 of its copy of the database. `own`: whether
    it is of this server's database."""

    id: str
    created_at: datetime
    reason: str
    server: str
    database: str
    libraries: int
    rows: Mapping[str, int]
    size: int
    sha256: str = field(repr=False)
    own: bool | None = None
