"""Rows of another database as chunks. docs/migrate.md has the rules."""

import base64
import hashlib
import math
import uuid
from collections.abc import Mapping, Set
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any, Final

import numpy as np

from apps.libraries.ids import is_id, is_visible
from apps.transfer.rows import ChunkData
from apps.transfer.sources.base import Row

# Where the metadata of a chunk has its id in the source, where that cannot be one here.
ORIGINAL_ID: Final = "original_id"


def chunk_of(row: Row) -> ChunkData:
    """The chunk that a row becomes."""
    metadata = {str(name): json_value(value) for name, value in row.metadata.items()}
    chunk_id = chunk_id_of(row.key)
    if chunk_id != row.key:
        metadata[ORIGINAL_ID] = row.key
    return {"id": chunk_id, "text": row.text or "", "metadata": metadata, "embedding": row.vector}


def chunk_id_of(key: str) -> str:
    """The id of the chunk of a row with this key: the key itself, or where that cannot be an id, a digest of it."""
    if is_id(key) and is_visible(key):
        return key
    return f"id-{hashlib.sha256(key.encode('utf-8', 'surrogatepass')).hexdigest()[:32]}"


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
