"""Puts a backup in the place of the database: the whole of it, or nothing."""

import contextlib
import os
import secrets
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from django.conf import settings
from django.db import connections
from django.utils import timezone

from apps.access.audit import new_entry
from apps.libraries.dialects import Statement, database_name, dialect_of, make_data_folder
from apps.libraries.dialects.damage import forget_damage
from apps.libraries.schema import Schema, list_migrations
from apps.telemetry.slots import try_lock
from apps.transfer.backups.make import Advance, fetch_copy, ignore
from apps.transfer.backups.manifest import Manifest, UnknownBackup
from apps.transfer.backups.stores import list_stored, local_store, split_source
from apps.transfer.errors import TransferError
from apps.transfer.models import Job

_LEFT_OUT = "It ran when the backup was made that this database was restored from."
_PREFIX = ".restore-"
# What becomes of the database that is replaced.
_OLD = {"sqlite": ", and what it has now is kept beside it", "postgresql": ", and what it has now is lost"}


def serving_lock() -> AbstractContextManager[bool]:
    """Keep restores away from the data folder while the block runs, or a process that is forked in it; gives False
    while one is under way."""
    return try_lock(_lock_file(), is_shared=True)


@dataclass(frozen=True)
class Restored:
    """A backup that was restored, and where the database is kept that was there before."""

    backup: Manifest
    kept: Path | None


def restore_backup(*, source: str, force: bool, advance: Advance = ignore) -> Restored:
    """Put the backup `source`, its id, folder or URL, in the place of the database, which must hold nothing unless
    `force` says so. A process that dies meanwhile leaves the old database or the new one. An old one of SQLite is kept
    beside it, also by restores that go on where one died.

    Raise TransferError, LibraryError, OSError, DatabaseError."""
    store, backup_id = split_source(source)
    try:
        manifest = store.read_manifest(backup_id)
    except UnknownBackup as error:
        others = [store] if "/" in source else [local_store(), store]
        raise UnknownBackup(f"{error} {list_stored(*others)}") from error
    connection = connections["default"]
    if manifest.database != connection.vendor:
        raise TransferError(
            f"{source} is a backup of {manifest.database}, and this server's database is {connection.vendor}. Export "
            "and import move libraries between the two."
        )
    unknown = Schema().unknown_of(manifest.migrations)
    if unknown:
        raise TransferError(
            f"{source} was made by a newer version of the server"
            f"{f', {manifest.server}' if manifest.server != settings.VERSION else ''}: this one does not know "
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
        with dialect.exclusive_use(connection) as is_alone:
            if dialect.has_tables(connection) and not force:
                raise TransferError(
                    f"The database {database_name()} is not empty. With --force the backup takes its place"
                    f"{_OLD[connection.vendor]}."
                )
            if not is_alone:
                raise TransferError(f"The database {database_name()} is in use. Stop what uses it, and try again.")
            _delete_copies()
            try:
                file = dialect.copy_folder(connection) / f"{_PREFIX}{secrets.token_hex(8)}"
                fetch_copy(store, manifest, file, advance)
                faults = dialect.check_copy(connection, file, manifest.rows, is_restored=False)
                if faults:
                    raise TransferError(f"{source} is damaged: {faults[0]}")
                dialect.replace(connection, file, list(_changes(manifest)))
            finally:
                _delete_copies()
        forget_damage()
        connections.close_all()
        # Done last: until then, a repeated restore still keeps the database that was there before the first one.
        return Restored(manifest, dialect.finish_replace(connection))


def sweep_restores() -> None:
    """Finish what restores have left that died. Nobody restores meanwhile."""
    _delete_copies()
    dialect_of(connections["default"]).finish_replace(connections["default"])


def _delete_copies() -> None:
    for file in dialect_of(connections["default"]).copy_folder(connections["default"]).glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):
            os.unlink(file)


def _lock_file() -> Path:
    file: Path = settings.DATA_DIR / "serving.lock"
    return file


def _changes(manifest: Manifest) -> Iterator[Statement]:
    """What a database is changed by as it is restored. One of an earlier version may lack a table."""
    connection = connections["default"]
    jobs, state = Job._meta.db_table, Job.State
    if jobs in manifest.rows:
        # Files that they need may not be there.
        yield (
            f"UPDATE {jobs} SET state = %s, error = %s, ended_at = %s WHERE state = %s",
            [
                state.FAILED.value,
                _LEFT_OUT,
                connection.ops.adapt_datetimefield_value(timezone.now()),
                state.RUNNING.value,
            ],
        )
    entry = new_entry("restore_backup", target=manifest.id)
    if entry is not None and entry._meta.db_table in manifest.rows:
        fields = [field for field in entry._meta.concrete_fields if not field.primary_key]
        columns = ", ".join(connection.ops.quote_name(str(field.column)) for field in fields)
        yield (
            f"INSERT INTO {entry._meta.db_table} ({columns}) VALUES ({', '.join(['%s'] * len(fields))})",
            [field.get_db_prep_save(getattr(entry, field.attname), connection) for field in fields],
        )
