"""Rows of another database as chunks. docs/migrate.md has the rules."""

import hashlib
from typing import Final

from apps.libraries.ids import is_id, is_visible
from apps.transfer.rows import ChunkData, json_value
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
