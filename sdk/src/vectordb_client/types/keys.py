"""API keys, search tokens, and the audit trail."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from vectordb_client.types.tables import Record


@dataclass(frozen=True, slots=True, repr=False)
class KeyInfo(Record):
    """An API key without its secret."""

    id: str
    name: str
    scopes: tuple[str, ...]
    libraries: tuple[str, ...] | None
    limits: Mapping[str, int | None]
    expires_at: datetime | None
    last_used_at: datetime | None
    previous_until: datetime | None
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True, repr=False)
class NewKey(KeyInfo):
    """An API key just after its secret was made: `key` is shown this once."""

    key: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True, repr=False)
class SearchToken(Record):
    """A token that may query and count."""

    token: str = field(repr=False)
    expires_at: datetime


@dataclass(frozen=True, slots=True, repr=False)
class AuditEntry(Record):
    """A change: who made it, when, of what, and of how many."""

    at: datetime
    key_id: str | None
    name: str
    action: str
    library: str | None
    target: str | None
    count: int | None
    request_id: str
