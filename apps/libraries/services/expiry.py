"""The deletion of what has expired. Nobody waits for it: answers are without it from its time on."""

from collections import defaultdict
from typing import Final

from django.db import connection, transaction
from django.utils import timezone

from apps.libraries.dialects import frees_room
from apps.libraries.errors import NotFound
from apps.libraries.expiry import EXPIRED_DOCUMENTS, parameter
from apps.libraries.services import sql

# Library and key of what is to be deleted, and the deletion. Documents come after their chunks, so that no step deletes
# more rows than it is to. Each statement takes the time once.
_STEPS: Final = (
    (
        "SELECT library_id, id FROM vectordb_chunk WHERE expires_at <= %s",
        "DELETE FROM vectordb_chunk WHERE expires_at <= %s AND id",
    ),
    (
        "SELECT chunk.library_id, chunk.id FROM vectordb_document AS document"
        " JOIN vectordb_chunk AS chunk ON chunk.document_id = document.id WHERE document.expires_at <= %s",
        f"DELETE FROM vectordb_chunk WHERE document_id IN ({EXPIRED_DOCUMENTS}) AND id",
    ),
    (
        "SELECT library_id, id FROM vectordb_document WHERE expires_at <= %s",
        "DELETE FROM vectordb_document WHERE expires_at <= %s AND id",
    ),
)


@frees_room
def delete_expired(*, limit: int) -> int:
    """Delete some `limit` chunks and documents that have expired, in a short transaction for each library; return their
    number. What has is all deleted where that is less than `limit`."""
    now, deleted = parameter(timezone.now()), 0
    for select, delete in _STEPS:
        with connection.cursor() as cursor:
            cursor.execute(f"{select} LIMIT %s", [now, limit - deleted])
            found = cursor.fetchall()
        by_library: defaultdict[int, list[int]] = defaultdict(list)
        for library_key, key in found:
            by_library[library_key].append(key)
        for library_key, keys in by_library.items():
            _delete(library_key, delete, keys, now)
        deleted += len(found)
        if deleted >= limit:
            break
    return deleted


def _delete(library_key: int, statement: str, keys: list[int], now: object) -> None:
    with transaction.atomic():
        try:
            sql.lock_library(key=library_key)
        except NotFound:
            return  # it was deleted just now
        sql.execute(statement, keys, now)
