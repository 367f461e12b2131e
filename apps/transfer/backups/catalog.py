"""The backups that there are, those that are asked for, and those that are due."""

import contextlib
import logging
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.db import connection
from django.utils import timezone

from apps.access.audit import record_change
from apps.access.transactions import write_transaction
from apps.libraries.dialects import dialect_of, frees_room
from apps.libraries.errors import NotFound
from apps.libraries.selectors import Page, PageKey
from apps.transfer.backups.identity import database_id
from apps.transfer.backups.manifest import Manifest, Reason, UnknownBackup, is_backup_id, page_number
from apps.transfer.backups.stores import Store, open_store
from apps.transfer.errors import TransferError
from apps.transfer.jobs import create_job, waiting_jobs
from apps.transfer.models import Job

logger = logging.getLogger(__name__)

KIND = "backup"
# A backup of the schedule that failed is tried again after so long, or after the interval where that is shorter.
_RETRY_AFTER = timedelta(hours=1)
# Those made before migrations; older ones are deleted.
_KEEP_BEFORE_MIGRATIONS = 2
# Key of a lock that no library has.
_SCHEDULE_LOCK = 0


def request_backup(*, is_tested: bool, reason: Reason = "request") -> Job:
    """Return a job that makes a backup as of now or later: a new one, unless one of the same kind waits to be begun."""
    params = {"reason": reason, "test_restore": is_tested}
    waiting = [job for job in waiting_jobs().filter(kind=KIND, attempts=0) if job.params == params]
    return waiting[0] if waiting else create_job(kind=KIND, params=params)


def list_backups(*, limit: int, after: PageKey) -> Page:
    """Return backups behind `after`, in order of creation, without those of other versions. Raise TransferError."""
    store = open_store()
    ids = [one for one in store.ids() if not after or page_number(one) > after[0]]
    own = database_id()
    return Page(
        [one.data(own) for one in _known(store, ids[:limit])],
        (page_number(ids[limit - 1]),) if len(ids) > limit else None,
    )


def find_backup(backup_id: str) -> dict[str, Any]:
    """Return a backup. Raise NotFound, TransferError."""
    store = open_store()
    _check_exists(store, backup_id)
    return store.read_manifest(backup_id).data(database_id())


def delete_backup(*, backup_id: str) -> None:
    """Delete a backup. Raise NotFound, TransferError."""
    store = open_store()
    _check_exists(store, backup_id)
    # Committed first: other writers do not wait for an object store.
    _record_deletion(backup_id)
    store.delete(backup_id)


@frees_room
@write_transaction()
def _record_deletion(backup_id: str) -> None:
    record_change("delete_backup", target=backup_id)


def _check_exists(store: Store, backup_id: str) -> None:
    if not is_backup_id(backup_id) or backup_id not in store.ids():
        raise NotFound(f"There is no backup {backup_id!r}. GET /api/v1/backups lists those there are.")


def _known(store: Store, ids: list[str]) -> Iterator[Manifest]:
    """The manifests of backups; those of other versions are left out, and told."""
    for backup_id in ids:
        try:
            yield store.read_manifest(backup_id)
        except UnknownBackup as error:
            logger.warning("%s", error)


def request_backup_if_due() -> None:
    """Make a job for the next backup of the schedule, if there is a schedule and it is time."""
    interval = timedelta(hours=settings.BACKUP_INTERVAL_HOURS)
    if not interval or not _is_due(interval):
        return
    dialect = dialect_of(connection)
    # Hosts that share a database have one schedule.
    if dialect.try_lock(connection, _SCHEDULE_LOCK):
        try:
            if _is_due(interval):
                request_backup(is_tested=settings.BACKUP_TEST_RESTORE, reason="schedule")
        finally:
            dialect.unlock(connection, _SCHEDULE_LOCK)


def _is_due(interval: timedelta) -> bool:
    """Whether no backup was made within `interval`, none is being made, and none has failed a short while ago."""
    now = timezone.now()
    # Those of commands may be anywhere.
    recent = Job.objects.filter(kind=KIND).exclude(folder="")
    made = recent.filter(state__in=[Job.State.RUNNING, Job.State.DONE], created_at__gt=now - interval)
    tried = recent.filter(ended_at__gt=now - min(interval, _RETRY_AFTER))
    return not made.exists() and not tried.exists()


def delete_surplus(store: Store, made: Manifest) -> None:
    """Delete the oldest of the backups of the same database that were made for the same reason as `made`, as far as the
    settings keep fewer. Those of other databases and versions are left. Those that cannot be deleted stay until the
    next time, and are told."""
    keep = settings.BACKUP_KEEP if made.reason == "schedule" else _KEEP_BEFORE_MIGRATIONS
    with _telling_what_stays():
        known = _known(store, store.ids())
        found = [one.id for one in known if one.reason == made.reason and one.is_of(made.database_id)]
        for backup_id in found[:-keep] if keep else ():
            with _telling_what_stays():
                store.delete(backup_id)


@contextlib.contextmanager
def _telling_what_stays() -> Iterator[None]:
    """Who may add backups may still not delete any: what was made is a backup all the same."""
    try:
        yield
    except (TransferError, OSError) as error:
        logger.warning("an old backup stays: %s", error)
