"""One change of metadata for many chunks, in steps of a bounded size within one transaction."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, TypeAlias, assert_never

import orjson
from pydantic_core import PydanticCustomError

from apps.access.audit import record_change
from apps.libraries.errors import Fault, Invalid, pointer
from apps.libraries.fields import check_metadata
from apps.libraries.services import sql

MetadataMode: TypeAlias = Literal["set", "merge", "replace"]
# Each may have all the metadata that a chunk may have.
_CHUNKS_PER_STEP = 500


@dataclass(frozen=True)
class MetadataChange:
    """What to make of the metadata of chunks: `set` replaces the top-level keys named, `merge` merges by RFC 7396,
    `replace` replaces the whole; None changes none. And when they expire, if `sets_expiry`."""

    metadata: dict[str, Any] | None
    mode: MetadataMode
    sets_expiry: bool = False
    expires_at: datetime | None = None

    def apply(self, before: dict[str, Any]) -> dict[str, Any]:
        """The metadata of a chunk after the change; `before` may be changed."""
        if self.metadata is None:
            return before
        match self.mode:
            case "set":
                return before | self.metadata
            case "merge":
                merged: dict[str, Any] = merge_patch(before, self.metadata)
                return merged
            case "replace":
                return self.metadata
            case other:
                assert_never(other)


def merge_patch(target: Any, patch: Any) -> Any:
    """`target` after a JSON merge patch (RFC 7396): objects are merged, null deletes, all else replaces. Changes
    `target`."""
    if not isinstance(patch, dict):
        return patch
    merged = target if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = merge_patch(merged.get(key), value)
    return merged


@sql.write_transaction()
def update_chunks_by_id(*, library_id: str, ids: Sequence[str], change: MetadataChange) -> int:
    """Change the metadata of those of the chunks that exist, and return their number. Raises NotFound for the library,
    and as `update_chunks_by_key`."""
    library = sql.lock_library(library_id)
    updated = update_chunks_by_key(list(sql.chunk_keys(library, list(dict.fromkeys(ids))).values()), change)
    record_change("update_chunks", library=library_id, count=updated)
    return updated


def update_chunks_by_key(keys: Sequence[int], change: MetadataChange) -> int:
    """Change the metadata of chunks of a library that the caller has locked, and return their number. Raises Invalid
    where a chunk's metadata would be past a limit."""
    if change.metadata is not None:
        for start in range(0, len(keys), _CHUNKS_PER_STEP):
            sql.update_metadata(list(_changed(keys[start : start + _CHUNKS_PER_STEP], change)))
    if change.sets_expiry:
        sql.update_expiry(keys, change.expires_at)
    return len(keys)


def _changed(keys: Sequence[int], change: MetadataChange) -> Iterator[tuple[int, str]]:
    """The keys of the chunks whose metadata are other ones after the change, with these as JSON. Raises Invalid."""
    for key, public_id, text in sql.metadata_of(keys):
        after = change.apply(orjson.loads(text))
        try:
            check_metadata(after)
        except PydanticCustomError as error:
            raise _refusal(public_id, error) from None
        changed = sql.json_text(after)
        if changed != text:
            yield key, changed


def _refusal(public_id: str, error: PydanticCustomError) -> Invalid:
    context = error.context or {}
    place = pointer(["metadata", *context["path"]])
    detail = f"cannot be written: that of the chunk {public_id!r} {context['detail']}"
    return Invalid("No metadata was changed.", [Fault(place, detail)])
