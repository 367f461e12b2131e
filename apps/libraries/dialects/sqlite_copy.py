"""Copies of a SQLite database: made beside writers, checked, and put in its place."""

import contextlib
import errno
import os
import sqlite3
from collections.abc import Callable, Mapping
from pathlib import Path

from django.db.backends.base.base import BaseDatabaseWrapper

from apps.libraries.dialects.base import Failure
from apps.libraries.dialects.damage import DatabaseUnusable
from apps.libraries.dialects.sqlite_backend.files import files_of
from apps.libraries.errors import Conflict

# Pages between two looks at who wants the copying to end.
_PAGES_PER_STEP = 256
# What is written is sent to the disk bit by bit: all at once at the end, it would hold up the syncs of writers.
_BYTES_BETWEEN_SYNCS = 8 << 20
# What is left free on the disk of a copy: the server may write there, too.
_FREE_BYTES = 16 << 20


def copy(connection: BaseDatabaseWrapper, target: Path, advance: Callable[[int, int], None]) -> None:
    """Copy the state that the connection's open read transaction sees to a new file, page by page.

    The transaction keeps writers from changing that state, so the copying never begins again, and writers do not wait.
    Raise OSError for a target that cannot be written, DatabaseUnusable for a database that is damaged."""
    source = connection.connection
    (size,), (pages,) = (source.execute(f"PRAGMA {name}").fetchone() for name in ("page_size", "page_count"))
    disk, synced = os.statvfs(target.parent), 0
    if pages * size + _FREE_BYTES > disk.f_bavail * disk.f_frsize:
        free = disk.f_bavail * disk.f_frsize >> 20
        raise OSError(
            errno.ENOSPC, f"it needs {pages * size + _FREE_BYTES >> 20} MB, and its disk has {free}", str(target)
        )
    with open(target, "xb") as file, contextlib.closing(sqlite3.connect(target, isolation_level=None)) as copied:
        # Until it is whole, nobody needs it.
        copied.execute("PRAGMA journal_mode = OFF")
        copied.execute("PRAGMA synchronous = OFF")

        def step(status: int, remaining: int, total: int) -> None:
            nonlocal synced
            done = (total - remaining) * size
            if done - synced >= _BYTES_BETWEEN_SYNCS:
                os.fsync(file.fileno())
                synced = done
            advance(done, total * size)

        try:
            source.backup(copied, pages=_PAGES_PER_STEP, progress=step)
        except sqlite3.Error as error:
            raise _explain(error, target) from error
        os.fsync(file.fileno())


def _explain(error: sqlite3.Error, target: Path) -> Exception:
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return DatabaseUnusable(Failure.DAMAGED, str(error))
    number = errno.ENOSPC if code == sqlite3.SQLITE_FULL else errno.EIO
    return OSError(number, os.strerror(number), str(target))


def check_copy(file: Path, rows: Mapping[str, int]) -> list[str]:
    """Read a copy as a whole, and compare the numbers of rows of its tables; return what is wrong."""
    with contextlib.closing(sqlite3.connect(f"{file.absolute().as_uri()}?immutable=1", uri=True)) as copied:
        try:
            faults = [fault for (fault,) in copied.execute("PRAGMA integrity_check") if fault != "ok"]
            for table, count in rows.items() if not faults else ():
                (found,) = copied.execute(f'SELECT count(*) FROM "{table}"').fetchone()
                if found != count:
                    faults.append(f"{table} has {found} rows, not {count}")
        except sqlite3.Error as error:
            faults = [str(error)]
    return faults


def has_tables(connection: BaseDatabaseWrapper) -> bool:
    """Whether there is anything in the database; also where that cannot be read."""
    file = _file(connection)
    if not file.exists() or file.stat().st_size == 0:
        return False
    with contextlib.closing(sqlite3.connect(f"{file.as_uri()}?mode=rw", uri=True)) as database:
        try:
            return bool(database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0])
        except sqlite3.Error:
            return True


def is_in_use(connection: BaseDatabaseWrapper) -> bool:
    """Whether another process has the database open. This one must not."""
    files = files_of(connection)
    return Path(files.database).exists() and files.is_held()


def replace(connection: BaseDatabaseWrapper, copied: Path) -> None:
    """Put a copy, which lies beside the database, in its place; a process that dies meanwhile leaves the one or the
    other. Raise Conflict where the database is in use, OSError."""
    file = _file(connection)
    owner = file.parent.stat()
    if os.geteuid() == 0:
        # The server may run as another user than whoever restores.
        os.chown(copied, owner.st_uid, owner.st_gid)
    with open(copied, "rb+") as written:
        os.fsync(written.fileno())
    if file.exists():
        # What the WAL holds goes into the old database: left behind, it would be taken for the new one's.
        with contextlib.closing(sqlite3.connect(file, timeout=1, isolation_level=None)) as old:
            try:
                (mode,) = old.execute("PRAGMA journal_mode = DELETE").fetchone()
            except sqlite3.DatabaseError as error:
                mode = "wal" if getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY else "damaged"
        if mode == "wal":
            raise Conflict(f"The database {file} is in use. Stop what uses it.")
    # There are none now, unless the old database is damaged, or gone.
    for suffix in ("-wal", "-shm", "-journal"):
        Path(f"{file}{suffix}").unlink(missing_ok=True)
    copied.replace(file)
    folder = os.open(file.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _file(connection: BaseDatabaseWrapper) -> Path:
    # A link stays one.
    return Path(os.path.realpath(connection.settings_dict["NAME"]))
