"""Makes a backup: copies one state of the database, checks the copy, and hands it over whole."""

import hashlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias, cast

from django.conf import settings
from django.db import DatabaseError, connections

from apps.libraries.dialects import (
    SNAPSHOT_ALIAS,
    Failure,
    database_name,
    dialect_of,
    failure_of,
    is_damaged,
    own_tables,
)
from apps.libraries.dialects.damage import DatabaseUnusable
from apps.libraries.errors import LibraryError
from apps.libraries.schema import Schema
from apps.search.snapshots import Snapshot, open_snapshot
from apps.transfer.backups.catalog import delete_surplus
from apps.transfer.backups.identity import database_id
from apps.transfer.backups.manifest import FILE_NAME, Database, Manifest, Reason, count_of, created_at, new_backup_id
from apps.transfer.backups.stores import Store, local_store, open_store
from apps.transfer.errors import TransferError, name_file
from apps.transfer.job_context import JobContext

logger = logging.getLogger(__name__)


# Called with the bytes done and those there are; may raise.
Advance: TypeAlias = Callable[[int, int], None]


def ignore(done: int, total: int) -> None:
    """Show nobody how far it is."""


def run_backup_job(job: JobContext) -> dict[str, Any]:
    """Make a backup as a job; delete those of the schedule that are too many."""
    store, reason = open_store(), job.params["reason"]
    made = make_backup(store=store, reason=reason, advance=job.advance, is_tested=job.params["test_restore"])
    if reason == "schedule":
        delete_surplus(store, made)
    return {"backup": made.id}


def make_backup(
    *,
    store: Store,
    reason: Reason,
    advance: Advance = ignore,
    is_tested: bool = False,
) -> Manifest:
    """Make a backup of the database as it is now, while others write. `advance` is called with the bytes done and those
    there are, and may raise. With `is_tested`, it is read back from the store and restored elsewhere.

    Nothing is kept of one that is not whole. Raise TransferError, LibraryError, OSError, DatabaseError."""
    if is_damaged():
        raise _damaged()
    check_database_exists()
    backup_id = new_backup_id()
    with store.new_folder(backup_id) as folder:
        try:
            manifest = _copy_database(backup_id, folder, reason, advance)
        except DatabaseError as error:
            if failure_of(error) is not Failure.DAMAGED:
                raise
            raise _damaged(str(error)) from error
        folder.joinpath(FILE_NAME).write_bytes(manifest.encode())
        advance(manifest.size, manifest.size)
        store.add(backup_id, folder)
    if is_tested:
        _test_restore(store, manifest, advance)
    logger.info("backup %s is made: %d bytes, in %s", backup_id, manifest.size, store.shown)
    return manifest


def check_database_exists() -> None:
    """Raise TransferError where there is nothing to back up."""
    default = connections["default"]
    if not dialect_of(default).has_tables(default):
        raise TransferError(f"There is nothing to back up: the database {database_name()} is not there, or is empty.")


def back_up_before_migration() -> Path | None:
    """Make a backup in the data folder, if the setting says so, and return its folder; keep few of them. Raise as
    `make_backup`."""
    is_wanted = {"on": True, "off": False}.get(
        settings.BACKUP_BEFORE_MIGRATE, connections["default"].vendor == "sqlite"
    )
    if not is_wanted:
        return None
    store = local_store()
    try:
        made = make_backup(store=store, reason="migration")
    except (TransferError, LibraryError, OSError) as error:
        raise TransferError(
            f"No backup could be made before the migration: {error}. VECTORDB_BACKUP_BEFORE_MIGRATE=off migrates "
            "without one."
        ) from error
    delete_surplus(store, made)
    return store.folder / made.id


def _copy_database(backup_id: str, folder: Path, reason: Reason, advance: Advance) -> Manifest:
    connection = connections[SNAPSHOT_ALIAS]
    dialect = dialect_of(connection)
    file = folder / dialect.copy_name
    with open_snapshot() as snapshot:
        at = created_at(snapshot.time)
        migrations, rows = Schema(connection).applied, _count_rows(snapshot)
        dialect.copy(connection, file, advance)
    faults = dialect.check_copy(connections["default"], file, rows, is_restored=False)
    if faults:
        with connection.cursor() as cursor:
            damage = dialect.check(cursor)
        if damage:
            raise DatabaseUnusable(Failure.DAMAGED, damage[0])
        raise TransferError(
            f"The copy of the database is damaged, and the database is not: {faults[0]}. Check the disk."
        )
    with file.open("rb") as copied:
        digest = hashlib.file_digest(copied, "sha256").hexdigest()
    return Manifest(
        format=1,
        id=backup_id,
        created_at=at,
        reason=reason,
        server=settings.VERSION,
        database=cast(Database, connection.vendor),
        database_id=database_id(),
        migrations=migrations,
        libraries=count_of("library", rows),
        rows=rows,
        size=file.stat().st_size,
        sha256=digest,
    )


def _damaged(what: str = "") -> DatabaseUnusable:
    return DatabaseUnusable(Failure.DAMAGED, f"it is damaged, so no backup is made{what and f': {what}'}")


def _count_rows(snapshot: Snapshot) -> dict[str, int]:
    """The number of rows of each table."""
    tables = own_tables(connections[SNAPSHOT_ALIAS])
    return {table: snapshot.rows(f"SELECT count(*) FROM {table}")[0][0] for table in tables}


def _test_restore(store: Store, manifest: Manifest, advance: Advance) -> None:
    """Read a backup back and restore it elsewhere; delete it if that fails. Raise as `make_backup`."""
    connection = connections["default"]
    dialect = dialect_of(connection)
    try:
        with local_store().new_folder(f"{manifest.id}-test") as folder:
            file = folder / dialect.copy_name
            fetch_copy(store, manifest, file, advance)
            faults = dialect.check_copy(connection, file, manifest.rows, is_restored=True)
    except TransferError as error:
        faults = [str(error)]
    except BaseException:
        # There is no room, or it was cancelled: untested, it would stay for nobody.
        store.delete(manifest.id)
        raise
    if faults:
        store.delete(manifest.id)
        raise TransferError(f"The backup could not be restored for a test, and is deleted: {faults[0]}")


def fetch_copy(store: Store, manifest: Manifest, target: Path, advance: Advance) -> None:
    """Write a backup's copy of the database to a new file. Raise TransferError where it is not as the manifest says,
    OSError."""
    name = dialect_of(connections["default"]).copy_name
    done, digest = 0, hashlib.sha256()
    shown = f"The file {name} of {manifest.id}"
    try:
        with name_file(target.parent), target.open("xb") as file:
            target.chmod(0o600)
            for block in store.blocks(manifest.id, name):
                file.write(block)
                digest.update(block)
                done += len(block)
                advance(done, manifest.size)
    except FileNotFoundError:
        raise TransferError(f"{shown} is not there.") from None
    if done != manifest.size:
        raise TransferError(f"{shown} has {done} bytes, not {manifest.size}: it is cut, or another one.")
    if digest.hexdigest() != manifest.sha256:
        raise TransferError(f"{shown} is damaged: its SHA-256 is not that of {FILE_NAME}.")
