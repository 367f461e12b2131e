"""Copies of a SQLite database: made beside writers, checked, and put in its place."""

import contextlib
import errno
import logging
import os
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from django.db.backends.base.base import BaseDatabaseWrapper

from apps.libraries.dialects.base import Failure, Statement
from apps.libraries.dialects.damage import DatabaseUnusable
from apps.libraries.dialects.sqlite_backend.files import files_of
from apps.libraries.errors import Conflict
from apps.ownership import hand_over

logger = logging.getLogger(__name__)

# Errors that say that a database is damaged.
DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
# Pages between two looks at who wants the copying to end.
_PAGES_PER_STEP = 256
# What is written is sent to the disk bit by bit: all at once at the end, it would hold up the syncs of writers.
_BYTES_BETWEEN_SYNCS = 8 << 20
# Of a disk that has no links, such as one of FAT.
_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS)
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
            errno.ENOSPC, f"it needs {pages * size + _FREE_BYTES >> 20} MB, and its disk has {free} MB", str(target)
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
    code = primary_code(error)
    if code in DAMAGED:
        return DatabaseUnusable(Failure.DAMAGED, str(error))
    number = errno.ENOSPC if code == sqlite3.SQLITE_FULL else errno.EIO
    return OSError(number, os.strerror(number), str(target))


def primary_code(error: BaseException | None) -> int:
    """SQLite's code of an error, SQLITE_ERROR where it is none of SQLite's."""
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF


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


def change(copied: Path, statements: Sequence[Statement]) -> None:
    """Run statements in a copy, which nobody else has open. Raise Conflict."""
    try:
        with contextlib.closing(sqlite3.connect(copied, isolation_level=None)) as database:
            database.execute("BEGIN IMMEDIATE")
            for sql, params in statements:
                database.execute(sql, params)
            database.execute("COMMIT")
            # All of it into the file, which alone takes the place of another.
            (is_busy, _, _) = database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    except sqlite3.Error as error:
        raise Conflict(f"The copy cannot be changed, so the old database stays: {error}.") from error
    if is_busy:
        raise Conflict("The copy is in use by another program, so the old database stays.")


def has_tables(connection: BaseDatabaseWrapper) -> bool:
    """Whether there is anything in the database; also where that cannot be read."""
    file = _file(connection)
    if not file.exists() or file.stat().st_size == 0:
        return False
    try:
        with contextlib.closing(sqlite3.connect(f"{file.as_uri()}?mode=rw", uri=True)) as database:
            return bool(database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0])
    except sqlite3.Error:
        return True


def is_in_use(connection: BaseDatabaseWrapper) -> bool:
    """Whether another process has the database open. This one must not."""
    files = files_of(connection)
    return Path(files.database).exists() and files.is_held()


def replace(connection: BaseDatabaseWrapper, copied: Path) -> None:
    """Put a copy, which lies beside the database, in its place; a process that dies meanwhile leaves the one or the
    other. The old database is kept, once `finish_replace` is called. Raise Conflict where the database is in use or
    cannot be closed, OSError."""
    file = _file(connection)
    hand_over(copied)
    with open(copied, "rb+") as written:
        os.fsync(written.fileno())
    if file.exists():
        # What the WAL holds goes into the old database: left behind, it would be taken for the new one's.
        try:
            with contextlib.closing(sqlite3.connect(file, timeout=1, isolation_level=None)) as old:
                (mode,) = old.execute("PRAGMA journal_mode = DELETE").fetchone()
        except sqlite3.Error as error:
            if primary_code(error) == sqlite3.SQLITE_BUSY:
                mode = "wal"
            elif primary_code(error) in DAMAGED:
                mode = "damaged"
            else:
                raise Conflict(f"The old database {file} could not be closed, so it stays: {error}.") from error
        if mode == "wal":
            raise Conflict(f"The database {file} is in use. Stop what uses it.")
        _keep(file)
    # There are none now, unless the old database is damaged, or gone.
    for suffix in ("-wal", "-shm", "-journal"):
        Path(f"{file}{suffix}").unlink(missing_ok=True)
    copied.replace(file)
    folder = os.open(file.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _keep(file: Path) -> None:
    """Give a second name to a database that is replaced, and to its WAL, which it has if it is damaged."""
    kept, draft = _kept(file)
    if file.stat().st_size == 0 or (draft.exists() and not draft.samefile(file)):
        # A restore that was killed has put in its place what is there; it is the one before that is kept.
        return
    Path(f"{kept}-wal").unlink(missing_ok=True)
    for suffix in ("-wal", ""):
        source, target = Path(f"{file}{suffix}"), Path(f"{draft}{suffix}")
        if source.exists():
            target.unlink(missing_ok=True)
            try:
                os.link(source, target)
            except OSError as error:
                if error.errno not in _NO_LINKS:
                    raise
                logger.warning("the old database is not kept: the file system of %s has no links", file)
                return


def finish_replace(connection: BaseDatabaseWrapper) -> Path | None:
    """Let what was replaced have the name by which it is kept, and return it; None where nothing was."""
    file = _file(connection)
    kept, draft = _kept(file)
    if not draft.exists():
        return None
    if file.exists() and draft.samefile(file):
        # A restore was killed before it had replaced anything.
        draft.unlink()
        Path(f"{draft}-wal").unlink(missing_ok=True)
        return None
    with contextlib.suppress(FileNotFoundError):
        Path(f"{draft}-wal").replace(f"{kept}-wal")
    draft.replace(kept)
    return kept


def _kept(file: Path) -> tuple[Path, Path]:
    """The name of a database that is kept, and the one that it has until another is in its place."""
    return Path(f"{file}.before-restore"), Path(f"{file}.before-restore.new")


def _file(connection: BaseDatabaseWrapper) -> Path:
    # A link stays one.
    return Path(os.path.realpath(connection.settings_dict["NAME"]))
