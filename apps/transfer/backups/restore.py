"""Puts a backup in the place of the database: the whole of it, or nothing."""

import contextlib
import os
import secrets
from contextlib import AbstractContextManager
from pathlib import Path

from django.conf import settings
from django.db import connections
from django.utils import timezone

from apps.libraries.dialects import database_name, dialect_of, make_data_folder
from apps.libraries.dialects.damage import forget_damage
from apps.libraries.schema import Schema, list_migrations
from apps.telemetry.slots import try_lock
from apps.transfer.backups.make import Advance, fetch_copy, ignore
from apps.transfer.backups.manifest import Manifest
from apps.transfer.backups.stores import split_source
from apps.transfer.errors import TransferError
from apps.transfer.models import Job

_LEFT_OUT = "It ran when the backup was made that this database was restored from."
_PREFIX = ".restore-"


def serving_lock() -> AbstractContextManager[bool]:
    """Keep restores away from the data folder while the block runs, or a process that is forked in it; gives False
    while one is under way."""
    return try_lock(_lock_file(), is_shared=True)


def restore_backup(*, source: str, force: bool, advance: Advance = ignore) -> Manifest:
    """Put the backup `source`, its id, folder or URL, in the place of the database, which must hold nothing unless
    `force` says so. A process that dies meanwhile leaves the old database or the new one.

    Raise TransferError, LibraryError, OSError, DatabaseError."""
    store, backup_id = split_source(source)
    manifest = store.read_manifest(backup_id)
    connection = connections["default"]
    if manifest.database != connection.vendor:
        raise TransferError(
            f"{source} is a backup of {manifest.database}, and this server's database is {connection.vendor}. Export "
            "and import move libraries between the two."
        )
    unknown = Schema().unknown_of(manifest.migrations)
    if unknown:
        raise TransferError(
            f"{source} was made by a newer version of the server, {manifest.server}: {settings.VERSION} does not know "
            f"{list_migrations(unknown)}. Restore it by that version or a later one."
        )
    dialect = dialect_of(connection)
    make_data_folder()
    connections.close_all()
    with try_lock(_lock_file()) as is_locked:
        if not is_locked:
            raise TransferError(
                f"A server or another restore uses the data folder {settings.DATA_DIR}. Stop it, and try again."
            )
        sweep_restores()
        if dialect.has_tables(connection) and not force:
            raise TransferError(
                f"The database {database_name()} is not empty. With --force the backup takes its place, and what it "
                "has now is lost."
            )
        if dialect.is_in_use(connection):
            raise TransferError(f"The database {database_name()} is in use. Stop what uses it, and try again.")
        file = dialect.copy_folder(connection) / f"{_PREFIX}{secrets.token_hex(8)}"
        try:
            fetch_copy(store, manifest, file, advance)
            faults = dialect.check_copy(connection, file, manifest.rows, is_restored=False)
            if faults:
                raise TransferError(f"{source} is damaged: {faults[0]}")
            dialect.replace(connection, file)
        finally:
            file.unlink(missing_ok=True)
        forget_damage()
        _end_jobs()
        connections.close_all()
    return manifest


def sweep_restores() -> None:
    """Delete what restores have left that died. Nobody restores meanwhile."""
    for file in dialect_of(connections["default"]).copy_folder(connections["default"]).glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):
            os.unlink(file)


def _lock_file() -> Path:
    file: Path = settings.DATA_DIR / "serving.lock"
    return file


def _end_jobs() -> None:
    """Jobs that ran when the backup was made are not to go on: files that they need may not be there."""
    if Job._meta.db_table in connections["default"].introspection.table_names():
        Job.objects.filter(state=Job.State.RUNNING).update(
            state=Job.State.FAILED, error=_LEFT_OUT, ended_at=timezone.now()
        )
