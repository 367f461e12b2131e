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

# Above those that `locks` has for others.
_KEY = (1 << 62) + 1
_SECONDS_BETWEEN_TRIES = 0.001


@contextlib.contextmanager
def turn(path: str, deadline: float) -> Iterator[None]:
    """For the block, nobody else asks for the write lock who queues in the file of locks `path`. It begins at the
    `deadline`, by `time.monotonic`, at the latest; then, and where the file cannot be used, others may ask too."""
    queue = _queue(path)
    with contextlib.ExitStack() as stack:
        if queue.acquire(timeout=max(0.0, deadline - time.monotonic())):
            stack.callback(queue.release)
            if _try_until(path, deadline):
                stack.callback(locks.unlock, path, _KEY)
        yield


def wait_for_writer(connection: sqlite3.Connection, deadline: float) -> None:
    """Return when nobody writes, or else at the `deadline`. By the driver: each error of Django's would keep a cursor,
    and so the database open, until it is collected."""
    while time.monotonic() < deadline:
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.DatabaseError as error:
            if primary_code(error) != sqlite3.SQLITE_BUSY:
                return
        else:
            connection.execute("ROLLBACK")
            return
        time.sleep(_SECONDS_BETWEEN_TRIES)


def _try_until(path: str, deadline: float) -> bool:
    """Whether this process has the lock of all that queue."""
    with contextlib.suppress(OSError):
        while not locks.try_lock(path, _KEY):
            if time.monotonic() >= deadline:
                return False
            time.sleep(_SECONDS_BETWEEN_TRIES)
        return True
    return False


@cache
def _queue(path: str) -> threading.Lock:
    """Where the threads of this process queue."""
    return threading.Lock()


# Threads that queued do not come along into a forked process.
os.register_at_fork(after_in_child=_queue.cache_clear)
