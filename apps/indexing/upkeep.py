"""Work beside the index files: pruning the change log, and the database's own upkeep."""

import contextlib
import logging
from collections.abc import Iterator

from django.db import close_old_connections, connection, transaction

from apps.indexing.indexer import TRANSIENT_ERRORS, Indexer
from apps.indexing.policy import DEFAULT_POLICY, IndexingPolicy
from apps.libraries.dialects import dialect_of, note_if_damaged
from apps.search import loading
from apps.search.snapshots import open_snapshot

logger = logging.getLogger(__name__)


@contextlib.contextmanager
def retry_later_on_transient_errors(what: str) -> Iterator[None]:
    """Log transient database, disk and memory errors instead of raising them: the caller retries in its next round."""
    try:
        yield
    except TRANSIENT_ERRORS as error:
        note_if_damaged(error)
        logger.warning("%s failed, and is retried later: %s", what, error)
        close_old_connections()


def run_upkeep(indexer: Indexer, policy: IndexingPolicy = DEFAULT_POLICY, *, is_sweep_due: bool = True) -> bool:
    """Sweep index files and prune the change log, if `is_sweep_due`, then run the database's own upkeep, which costs
    next to nothing. Return True if all of it succeeded."""
    is_swept = is_database_done = False
    # A full disk stops the database's upkeep; sweeping may make room.
    with retry_later_on_transient_errors("sweeping of index files"):
        if is_sweep_due:
            indexer.sweep()
        is_swept = True
    with retry_later_on_transient_errors("upkeep of the database"):
        if is_sweep_due:
            prune_changes(policy)
        dialect_of(connection).upkeep(connection)
        is_database_done = True
    return is_swept and is_database_done


def prune_changes(policy: IndexingPolicy = DEFAULT_POLICY) -> int:
    """Delete the log's entries that no view needs; return their number.

    A library keeps at least `keep_changes`, and all since its newest index files; without such files, as many as it has
    chunks. Each step is a short transaction, so that writers need not wait.
    """
    pruned = 0
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT library_key FROM vectordb_change GROUP BY library_key HAVING count(*) > %s", [policy.keep_changes]
        )
        for (library_key,) in cursor.fetchall():
            keep, sealed = policy.keep_changes, _sealed_seq(library_key)
            if sealed is None:
                cursor.execute("SELECT count(*) FROM vectordb_chunk WHERE library_id = %s", [library_key])
                keep = max(keep, cursor.fetchone()[0])
            cursor.execute(
                "SELECT min(seq) FROM"
                " (SELECT seq FROM vectordb_change WHERE library_key = %s ORDER BY seq DESC LIMIT %s) AS kept",
                [library_key, keep],
            )
            (oldest,) = cursor.fetchone()
            if oldest is not None:  # the library was not deleted just now
                pruned += _delete_below(library_key, oldest if sealed is None else min(oldest, sealed), policy)
    return pruned


def _sealed_seq(library_key: int) -> int | None:
    """The number of the log's entry as of which the library's newest index files are."""
    with open_snapshot() as snapshot:
        states = snapshot.libraries([library_key])
    return loading.sealed_position(states[0]) if states else None


def _delete_below(library_key: int, seq: int, policy: IndexingPolicy) -> int:
    deleted, removed = 0, policy.prune_batch
    while removed == policy.prune_batch:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(
                "DELETE FROM vectordb_change WHERE seq IN"
                " (SELECT seq FROM vectordb_change WHERE library_key = %s AND seq < %s ORDER BY seq LIMIT %s)",
                [library_key, seq, policy.prune_batch],
            )
            removed = cursor.rowcount
        deleted += removed
    return deleted
