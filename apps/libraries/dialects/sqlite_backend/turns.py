"""Writers take turns. SQLite lets whoever asks for its write lock try again and again, at longer and longer intervals:
so one who has waited for long loses to those who have just come, and may wait for seconds beside busy others.

Here one asks at a time, often, and all others queue for that: threads of a process by a lock of its own, processes by
one of `locks`. Programs that do not queue are in nobody's way: what they hold is waited for as before.
"""

import contextlib
import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from functools import cache

from apps.libraries.dialects.sqlite_backend import locks
from apps.libraries.dialects.sqlite_copy import primary_code

# Above those that `locks` has for others. A process that waits for the turn has the door, so that none that comes
# later passes it: one with many writers would take each turn before another one looks.
_TURN, _DOOR = (1 << 62) + 1, (1 << 62) + 2
_SECONDS_BETWEEN_TRIES = 0.001


@contextlib.contextmanager
def turn(path: str, deadline: float) -> Iterator[None]:
    """For the block, nobody else asks for the write lock who queues in the file of locks `path`. It begins at the
    `deadline`, by `time.monotonic`, at the latest; then, and where the file cannot be used, others may ask too."""
    queue = _queue(path)
    with contextlib.ExitStack() as stack:
        if queue.acquire(timeout=max(0.0, deadline - time.monotonic())):
            stack.callback(queue.release)
            if _take_turn(path, deadline):
                stack.callback(locks.unlock, path, _TURN)
        yield


def wait_for_writer(connection: sqlite3.Connection, deadline: float) -> None:
    """Return when nobody writes, or else at the `deadline`. By the driver: each error of Django's would keep a cursor,
    and so the database open, until it is collected."""
    (before,) = connection.execute("PRAGMA busy_timeout").fetchone()
    # SQLite would wait longer and longer between its own tries.
    connection.execute("PRAGMA busy_timeout = 0")
    try:
        while time.monotonic() < deadline and _is_written(connection):
            time.sleep(_SECONDS_BETWEEN_TRIES)
    finally:
        connection.execute(f"PRAGMA busy_timeout = {before}")


def _is_written(connection: sqlite3.Connection) -> bool:
    """Whether somebody has the write lock. What else is wrong with the database, the next statement tells."""
    try:
        connection.execute("BEGIN IMMEDIATE")
    except sqlite3.DatabaseError as error:
        return primary_code(error) == sqlite3.SQLITE_BUSY
    connection.execute("ROLLBACK")
    return False


def _take_turn(path: str, deadline: float) -> bool:
    """Whether this process has the lock of all that queue."""
    with contextlib.suppress(OSError):
        if _lock_until(path, _DOOR, deadline):
            try:
                return _lock_until(path, _TURN, deadline)
            finally:
                locks.unlock(path, _DOOR)
    return False


def _lock_until(path: str, key: int, deadline: float) -> bool:
    while not locks.try_lock(path, key):
        if time.monotonic() >= deadline:
            return False
        time.sleep(_SECONDS_BETWEEN_TRIES)
    return True


@cache
def _queue(path: str) -> threading.Lock:
    """Where the threads of this process queue."""
    return threading.Lock()


# Threads that queued do not come along into a forked process.
os.register_at_fork(after_in_child=_queue.cache_clear)
