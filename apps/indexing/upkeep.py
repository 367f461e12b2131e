"""What is done beside the queries: pruning the change log, and the database's own upkeep."""

from django.db import connection, transaction

from apps.libraries.dialects import dialect_of
from apps.search import loading
from apps.search.snapshots import open_snapshot

# A view that is further behind than this, or than its library has chunks, loads all rows sooner than it replays.
_KEEP_AT_LEAST = 20_000
_PER_STEP = 10_000


def prune_changes() -> int:
    """Delete the log's entries that no view needs; answers how many.

    A library keeps at least 20,000, and all since its newest index files; without such files, as many as it has chunks.
    Each step is a short transaction, so that writers need not wait.
    """
    pruned = 0
    with connection.cursor() as cursor:
        cursor.execute("SELECT library_key, count(*), max(seq) FROM vectordb_change GROUP BY library_key")
        for library_key, entries, newest in cursor.fetchall():
            if entries <= _KEEP_AT_LEAST:
                continue
            sealed = _sealed_position(library_key)
            keep = _KEEP_AT_LEAST
            if sealed is None:
                cursor.execute("SELECT count(*) FROM vectordb_chunk WHERE library_id = %s", [library_key])
                keep = max(_KEEP_AT_LEAST, cursor.fetchone()[0])
            if entries <= keep:
                continue
            cursor.execute(
                "SELECT seq FROM vectordb_change WHERE library_key = %s ORDER BY seq DESC LIMIT 1 OFFSET %s",
                [library_key, keep - 1],
            )
            found = cursor.fetchone()
            oldest_kept = found[0] if found else newest
            if sealed is not None:
                oldest_kept = min(oldest_kept, sealed)
            pruned += _delete_below(library_key, oldest_kept)
    return pruned


def _sealed_position(library_key: int) -> int | None:
    """The number of the log's entry as of which the library's newest index files are."""
    with open_snapshot() as snapshot:
        state = next((state for state in snapshot.libraries() if state.key == library_key), None)
    return None if state is None else loading.sealed_position(state)


def _delete_below(library_key: int, seq: int) -> int:
    deleted = 0
    while True:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(
                "DELETE FROM vectordb_change WHERE seq IN"
                " (SELECT seq FROM vectordb_change WHERE library_key = %s AND seq < %s ORDER BY seq LIMIT %s)",
                [library_key, seq, _PER_STEP],
            )
            removed: int = cursor.rowcount
        deleted += removed
        if removed < _PER_STEP:
            return deleted


def run(*, prune: bool = True) -> None:
    """One round of everything; without pruning it costs next to nothing."""
    if prune:
        prune_changes()
    dialect_of(connection).upkeep(connection)
