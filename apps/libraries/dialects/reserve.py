"""Room on the disk of a SQLite database that only deletes may take, so that there is a way out of a full disk.

The file <database>-reserve takes that room. A delete that finds the disk full empties the file; from then on only
deletes are written, until maintenance has had the room to fill it again. Nor is anything else written while the disk
has less room than the reserve and twice the WAL: before the WAL's room can be used again the database may have to grow
by as much, and by what requests and index files under way have yet to write.
"""

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path

from django.db.backends.base.base import BaseDatabaseWrapper

_MAX_BYTES = 32 << 20
_SHARE_OF_DISK = 32

_thread = threading.local()


@contextlib.contextmanager
def using_reserve() -> Iterator[None]:
    """Let this thread write also while the reserve is empty."""
    before, _thread.may_use = may_use(), True
    try:
        yield
    finally:
        _thread.may_use = before


def may_use() -> bool:
    """Whether this thread runs in `using_reserve`."""
    return getattr(_thread, "may_use", False)


def is_full(connection: BaseDatabaseWrapper) -> bool:
    """Whether nothing but deletes may be written; not where no reserve was ever made."""
    reserve = _path(connection)
    try:
        size = os.stat(reserve).st_size
        if size == 0:
            return True
        disk = os.statvfs(reserve)
        wal = os.stat(f"{connection.settings_dict['NAME']}-wal").st_size
        return disk.f_bavail * disk.f_frsize < size + 2 * wal
    except OSError:
        return False


def empty(connection: BaseDatabaseWrapper) -> None:
    """Make room of the reserve, if there is one."""
    with contextlib.suppress(OSError):
        os.truncate(_path(connection), 0)


def fill(connection: BaseDatabaseWrapper) -> None:
    """Take the reserve's room, if it is not taken and there is twice as much."""
    path = Path(_path(connection))
    is_made = path.exists() and path.stat().st_size > 0
    if is_made or not hasattr(os, "posix_fallocate"):
        return
    disk = os.statvfs(path.parent)
    size = min(_MAX_BYTES, disk.f_blocks * disk.f_frsize // _SHARE_OF_DISK)
    if disk.f_bavail * disk.f_frsize < 2 * size:
        return
    # Complete before it has its name: an empty one stops writes.
    draft = path.with_name(f"{path.name}.new")
    try:
        with draft.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, size)
        draft.replace(path)
    except OSError:
        draft.unlink(missing_ok=True)


def _path(connection: BaseDatabaseWrapper) -> str:
    return f"{connection.settings_dict['NAME']}-reserve"
