"""Work beside the index files: deleting what has expired, pruning the change log, and the database's own upkeep."""

import contextlib
import logging
from collections.abc import Callable, Iterator

from django.db import DatabaseError, close_old_connections, connection
from django.db.models import Count

from apps.access.audit import delete_old_entries
from apps.access.idempotency import delete_old_requests
from apps.indexing.indexer import TRANSIENT_ERRORS, Indexer
from apps.indexing.policy import DEFAULT_POLICY, IndexingPolicy
from apps.libraries.dialects import database_name, dialect_of, frees_room, note_if_damaged
from apps.libraries.models import Change, Chunk
from apps.libraries.services.expiry import delete_expired
from apps.search import loading
from apps.search.snapshots import open_snapshot
from apps.telemetry import metrics

logger = logging.getLogger(__name__)


@contextlib.contextmanager
def retry_later_on_transient_errors(what: str) -> Iterator[None]:
    """Log transient database, disk and memory errors instead of raising them: the caller retries in its next round."""
    try:
        yield
    except TRANSIENT_ERRORS as error:
        metrics.MAINTENANCE_FAILURES.add(1, what)
        note_if_damaged(error)
        where = f" ({database_name()})" if isinstance(error, DatabaseError) else ""
        logger.warning("%s failed, and is retried later: %s%s", what, error, where)
        close_old_connections()


def run_upkeep(indexer: Indexer, policy: IndexingPolicy = DEFAULT_POLICY, *, is_sweep_due: bool = True) -> bool:
    """Sweep index files, prune the change log, the audit trail and the answers kept for Idempotency-Keys, if
    `is_sweep_due`, then delete what has expired and run the database's own upkeep, which cost next to nothing where
    there is nothing to do. Return True if all succeeded."""
    is_swept = is_database_done = False
    # A full disk stops the database's upkeep; sweeping may make room.
    with retry_later_on_transient_errors("sweeping of index files"):
        if is_sweep_due:
            indexer.sweep()
        is_swept = True
    with retry_later_on_transient_errors("upkeep of the database"):
        if is_sweep_due:
            prune_changes(policy)
            frees_room(delete_old_entries)(limit=policy.audit_batch)
            _delete_in_steps(frees_room(delete_old_requests), policy)
        delete_expired_rows(policy)
        dialect_of(connection).upkeep(connection)
        is_database_done = True
    return is_swept and is_database_done


def delete_expired_rows(policy: IndexingPolicy = DEFAULT_POLICY) -> bool:
    """Delete chunks and documents that have expired. Return True if none is left; the next round goes on."""
    return _delete_in_steps(delete_expired, policy)


def _delete_in_steps(delete: Callable[..., int], policy: IndexingPolicy) -> bool:
    """Delete what has expired in steps between which others write. Return True if none is left."""
    steps = (delete(limit=policy.expired_batch) for _ in range(policy.expired_batches))
    return any(deleted < policy.expired_batch for deleted in steps)


@frees_room
def prune_changes(policy: IndexingPolicy = DEFAULT_POLICY) -> int:
    """Delete the log's entries that no view needs; return their number.

    A library keeps at least `keep_changes`, and all since its newest index files; without such files, as many as it has
    chunks. Each step is a short transaction, so that writers need not wait.
    """
    pruned = 0
    logs = Change.objects.values("library_key").annotate(entries=Count("*")).filter(entries__gt=policy.keep_changes)
    for library_key in logs.values_list("library_key", flat=True):
        with open_snapshot() as snapshot:
            rows = snapshot.library_rows([library_key])
        keep, sealed = policy.keep_changes, loading.sealed_position(rows[0].state()) if rows else None
        if sealed is None:
            keep = max(keep, Chunk.objects.filter(library=library_key).count())
        log = Change.objects.filter(library_key=library_key)
        oldest = log.order_by("-seq").values_list("seq", flat=True)[keep - 1 : keep].first()
        if oldest is None:
            continue  # it is short enough, or the library was deleted just now
        unused = log.filter(seq__lt=oldest if sealed is None else min(oldest, sealed)).order_by("seq").values("seq")
        removed = policy.prune_batch
        while removed == policy.prune_batch:
            removed, _ = Change.objects.filter(seq__in=unused[: policy.prune_batch]).delete()
            pruned += removed
    return pruned
