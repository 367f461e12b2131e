"""Rows as they travel between a library and a file, or another database.

A row is what the API takes: a dictionary of JSON values, times as RFC 3339. Only vectors may be arrays, and times such
of Python, with a zone. What is left out has its default; an unknown field refuses the row.
"""

import base64
import math
import uuid
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass, field
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any, Final, Required, TypedDict

import numpy as np

from apps.engine.vectors import Float32

# What one transaction takes: other writers wait for no more than that.
ROWS_PER_BATCH: Final = 2000
BYTES_PER_BATCH: Final = 8 << 20


class LibraryData(TypedDict, total=False):
    """A library's own fields, as POST /libraries takes them."""

    id: str
    name: str
    description: str
    dimension: int | None
    metric: str
    index_type: str
    index_params: dict[str, Any]
    embedding: dict[str, str] | None
    metadata: dict[str, Any]
    unindexed: list[str]


class DocumentData(TypedDict, total=False):
    """A document's own fields."""

    id: Required[str]
    title: str
    source: str
    metadata: dict[str, Any]
    expires_at: str | datetime | None
    created_at: str | datetime
    updated_at: str | datetime


class ChunkData(TypedDict, total=False):
    """A chunk with its vector: float32 [dimension], base64 or numbers; null for none, left out to have the library's
    model make it. Without an id it gets one, without a position it comes last in its document."""

    id: str
    text: str
    embed_text: str | None
    metadata: dict[str, Any]
    document_id: str | None
    position: int | None
    expires_at: str | datetime | None
    created_at: str | datetime
    updated_at: str | datetime
    embedding: Float32 | str | list[float] | None


@dataclass(frozen=True)
class Batch:
    """Rows that are stored together, by where they are in their source, such as "line 17".

    Documents are stored before the chunks, which may name them. `refused` says of what is no row why. `next` is JSON:
    given to the source again, it goes on after this batch. `done` is how much of the source's `total` has been read.
    """

    documents: Mapping[str, DocumentData] = field(default_factory=dict)
    chunks: Mapping[str, ChunkData] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)
    next: Any = None
    done: int = 0

    @property
    def row_count(self) -> int:
        """How many rows there are, with those that are none."""
        return len(self.documents) + len(self.chunks) + len(self.refused)


@dataclass(frozen=True)
class Source:
    """What is read: the library's own fields, where they are known, and the rows. `total` is how much there is to be
    read, in whatever `Batch.done` counts, None where nobody knows; `unit` is the name of one of these. Where it
    `runs_in_threads`, the next batch is read while one is stored."""

    library: LibraryData
    batches: Iterator[Batch]
    total: int | None = None
    unit: str = "row"
    runs_in_threads: bool = False


class Gathering:
    """Rows on their way to a batch."""

    def __init__(self) -> None:
        self._clear()

    def _clear(self) -> None:
        self.documents: dict[str, DocumentData] = {}
        self.chunks: dict[str, ChunkData] = {}
        self.refused: dict[str, str] = {}
        self.bytes = 0

    @property
    def is_full(self) -> bool:
        """Whether a transaction should not take more."""
        rows = len(self.documents) + len(self.chunks) + len(self.refused)
        return rows >= ROWS_PER_BATCH or self.bytes >= BYTES_PER_BATCH

    def take(self, next: Any, done: int) -> Batch:
        """The batch of what is here; it goes on with nothing."""
        batch = Batch(self.documents, self.chunks, self.refused, next, done)
        self._clear()
        return batch


def json_value(value: Any) -> Any:
    """A value as JSON has it: times as RFC 3339, bytes as base64, numbers that are none as null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, Mapping):
        return {str(name): json_value(one) for name, one in value.items()}
    if isinstance(value, list | tuple | Set):
        return [json_value(one) for one in value]
    if isinstance(value, np.ndarray | np.generic):
        return json_value(value.tolist())
    if isinstance(value, Decimal):
        return int(value) if value.is_finite() and value == value.to_integral_value() else json_value(float(value))
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, bytes | bytearray | memoryview):
        return base64.b64encode(bytes(value)).decode()
    if isinstance(value, uuid.UUID):
        return str(value)
    return str(value)
