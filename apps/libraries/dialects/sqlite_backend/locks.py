"""Locks by number among the processes that share a database: POSIX locks on bytes of the file <database>-locks.

They end with their process, however it ends. A process holds them all by one descriptor, since closing any other one
of the file would release them; what its threads hold is known here.
"""

import fcntl
import os
import threading
from pathlib import Path

from django.db.backends.base.base import BaseDatabaseWrapper

from apps.ownership import hand_over

_mutex = threading.Lock()
_descriptors: dict[str, int] = {}
_held: set[tuple[str, int]] = set()


def path_of(connection: BaseDatabaseWrapper) -> str:
    """The file of the database of a connection."""
    return f"{connection.settings_dict['NAME']}-locks"


def try_lock(path: str, key: int) -> bool:
    """Lock the number `key`, from 0 to 2^62 + 2, of the file, which is made; return False where it is locked. Raises
    OSError."""
    with _mutex:
        if (path, key) in _held:
            return False
        if path not in _descriptors:
            _descriptors[path] = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
            hand_over(Path(path))
        try:
            fcntl.lockf(_descriptors[path], fcntl.LOCK_EX | fcntl.LOCK_NB, 1, key)
        except (BlockingIOError, PermissionError):
            return False
        _held.add((path, key))
        return True


def unlock(path: str, key: int) -> None:
    """Release a lock that `try_lock` got."""
    with _mutex:
        _held.remove((path, key))
        fcntl.lockf(_descriptors[path], fcntl.LOCK_UN, 1, key)


def _forget() -> None:
    """A forked process has none of the locks, and none of the threads of which one may have the mutex."""
    global _mutex
    _mutex = threading.Lock()
    _held.clear()


os.register_at_fork(after_in_child=_forget)
