"""Keys: made, changed, rotated and revoked, and search tokens made of them. A key is shown once, when it is made."""

import contextlib
import os
import tempfile
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

from django.db import transaction
from django.utils import timezone

from apps.access.audit import record_change
from apps.access.authorization import KEY_SCOPES, check_pattern
from apps.access.credentials import hash_key, new_key, new_key_id
from apps.access.models import Key
from apps.access.search_tokens import encode_claims, sign
from apps.access.transactions import key_transaction, write_transaction

# In the data folder.
ADMIN_KEY_FILE = "admin_key"


class NewKey(NamedTuple):
    """A key's row, and the key itself, which is not stored."""

    row: Key
    key: str


def create_key(
    *,
    name: str,
    scopes: Iterable[str],
    libraries: Iterable[str] | None = None,
    expires_at: datetime | None = None,
    reads_per_minute: int | None = None,
    writes_per_minute: int | None = None,
) -> NewKey:
    """Make a key; without `libraries` it is for all. Raise ValueError for a pattern that is none."""
    key_id = new_key_id()
    key = new_key(key_id)
    with write_transaction():
        row = Key.objects.create(
            public_id=key_id,
            name=name,
            scopes=join_scopes(scopes),
            libraries=join_libraries(libraries),
            secret_hash=hash_key(key),
            expires_at=expires_at,
            reads_per_minute=reads_per_minute,
            writes_per_minute=writes_per_minute,
        )
        record_change("create_key", target=key_id)
    return NewKey(row, key)


def rotate_key(*, key_id: str, overlap_seconds: float) -> NewKey | None:
    """Give a key another secret. The one before is good for `overlap_seconds` more, the one before that no longer.
    None where there is no such key."""
    with key_transaction(key_id):
        row = find_key(key_id, lock=True)
        if row is None:
            return None
        key = new_key(key_id)
        row.previous_hash, row.previous_until = "", None
        if overlap_seconds > 0:
            row.previous_hash = row.secret_hash
            row.previous_until = timezone.now() + timedelta(seconds=overlap_seconds)
        row.secret_hash = hash_key(key)
        row.save()
        record_change("rotate_key", target=key_id)
    return NewKey(row, key)


def update_key(*, key_id: str, changes: dict[str, Any]) -> Key | None:
    """Set columns of a key. None where there is no such key."""
    with key_transaction(key_id):
        row = find_key(key_id, lock=True)
        if row is not None:
            for column, value in changes.items():
                setattr(row, column, value)
            row.save()
            record_change("update_key", target=key_id)
    return row


def revoke_key(*, key_id: str) -> bool:
    """Delete a key, which is dead from the commit on, once its writes under way are over; return whether there was
    one."""
    with key_transaction(key_id):
        deleted, _ = Key.objects.filter(public_id=key_id).delete()
        if deleted:
            record_change("revoke_key", target=key_id)
    return bool(deleted)


def find_key(key_id: str, *, lock: bool = False) -> Key | None:
    """Return the row of a key; with `lock`, no other transaction changes it until this one ends."""
    rows = Key.objects.select_for_update() if lock else Key.objects.all()
    return rows.filter(public_id=key_id).first()


def make_search_token(
    row: Key,
    *,
    libraries: Sequence[str],
    filter: dict[str, Any] | None,
    include: Sequence[str] | None,
    expires_at: datetime,
) -> str | None:
    """Return a search token of a key; None if what it allows is too long for one."""
    claims = encode_claims(
        tuple(libraries), filter, None if include is None else tuple(include), expires_at.timestamp()
    )
    return None if claims is None else f"vst_{row.public_id}_{claims}.{sign(claims, row.secret_hash)}"


def join_scopes(scopes: Iterable[str]) -> str:
    """Return scopes as a row has them, each once."""
    given = set(scopes)
    return " ".join(scope for scope in KEY_SCOPES if scope in given)


def join_libraries(libraries: Iterable[str] | None) -> str:
    """Return patterns of libraries as a row has them. Raise ValueError as `check_pattern` does."""
    return "" if libraries is None else " ".join(check_pattern(pattern) for pattern in dict.fromkeys(libraries))


def make_admin_key(folder: Path) -> NewKey | None:
    """Make a key for everything, unless there is any key already, and leave it in a file of `folder` that its owner
    alone may read. Raises OSError."""
    with transaction.atomic():
        if Key.objects.exists():
            return None
        made = create_key(name="admin", scopes=["admin"])
        # Complete before it has its name, and before the row is committed.
        with tempfile.NamedTemporaryFile("w", dir=folder, prefix=f".{ADMIN_KEY_FILE}.", delete=False) as draft:
            try:
                draft.write(f"{made.key}\n")
                draft.flush()
                os.fsync(draft.fileno())
                os.replace(draft.name, folder / ADMIN_KEY_FILE)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.unlink(draft.name)
                raise
    return made
