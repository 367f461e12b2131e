"""The files of a SQLite database, as this process has them open: are they still the ones at their paths?

A process that has lost a file must not write, since nobody would find that again. It must not read either, since a
process that opens the files later does not see its locks. For the same reason no process opens the database while
another holds it without its -wal or -shm. The holder moves its WAL into the database first, and then ends.
"""

import contextlib
import fcntl
import logging
import os
import sqlite3
import threading
import time
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias
from weakref import WeakSet

from django.db.backends.base.base import BaseDatabaseWrapper

from apps.libraries.dialects.base import Failure, FilesState
from apps.libraries.dialects.damage import DatabaseUnusable

logger = logging.getLogger(__name__)

# Device and inode; None where there is no file.
_Identity: TypeAlias = tuple[int, int] | None

# The bytes that SQLite locks for as long as a connection has read in WAL mode <https://www.sqlite.org/src/file/src/os.h>.
_SHARED_FIRST, _SHARED_SIZE = 0x40000002, 510
# Another process that opens the database has its -wal and -shm soon after its lock.
_SECONDS_TO_OPEN = 0.5

_REMEDY = "Put the data folder back where it was, or start the server again with the folder it is to serve."


class Connection(sqlite3.Connection):
    """A connection that can be referred to weakly: one whose thread has ended counts no more. What writes on it queues
    in the file `locks_path`, and waits for `timeout` seconds at most. `found` is what its statements found in the state
    of the database that has the `version`."""

    locks_path: str
    timeout: int
    version: int | None = None
    found: dict[Any, Any]


class DatabaseFiles:
    """The database, its -wal and its -shm. SQLite shares the -shm among all connections of a process, so what one of
    them has opened is what all have."""

    def __init__(self, database: str) -> None:
        self.database = database
        # SQLite puts them beside the file that a link points to.
        beside = os.path.realpath(database)
        self._paths = (database, f"{beside}-wal", f"{beside}-shm")
        self._connections: WeakSet[Connection] = WeakSet()
        self._opened: tuple[_Identity, ...] = ()
        self._checked = 0.0
        # What is wrong is told once, until all is right again.
        self._is_told = False
        # Held while a connection is opened or closed: the last one to be closed takes -wal and -shm away.
        self.lock = threading.RLock()

    def check(self, seconds: float = 0) -> None:
        """Raise DatabaseUnusable unless the files that are open are the ones at their paths, or were within the last
        `seconds`."""
        now = time.monotonic()
        if now - self._checked < seconds:
            return
        if self._identities() != self._opened:
            raise self._unusable("were moved, removed or replaced while they were open")
        self._checked, self._is_told = now, False

    def before_open(self) -> None:
        """Raise DatabaseUnusable where a connection would not use the same files as all others. Needs the lock."""
        if self._connections:
            return self.check()
        deadline = time.monotonic() + _SECONDS_TO_OPEN
        while True:
            found = self._identities()
            if found[0] is None:
                raise self._unusable("are not there")
            if None not in found or not self.is_held():
                return None
            if time.monotonic() > deadline:
                raise self._unusable("are not complete: -wal or -shm was removed while another process has them open")
            time.sleep(0.01)

    def note_open(self, connection: Connection) -> None:
        """Count a connection that has read. Raises as `check`; needs the lock."""
        if not self._connections:
            self._opened = self._identities()
        self.check()
        self._connections.add(connection)

    def note_close(self, connection: Connection) -> None:
        """Forget a connection, before it is closed. Needs the lock."""
        self._connections.discard(connection)

    def state(self) -> FilesState:
        """Look at the files. Where -wal or -shm are lost, move what they hold into the database first."""
        # An event loop calls this; whoever holds the lock looks at the files, too.
        if not self.lock.acquire(blocking=False):
            return FilesState.IN_PLACE
        try:
            found = self._identities()
            if not self._connections or found == self._opened:
                return FilesState.IN_PLACE
            if found[0] is None:
                return FilesState.MISSING
            is_lost = found[0] == self._opened[0] and None in found
            return FilesState.MISSING if is_lost and not self._checkpoint() else FilesState.REPLACED
        finally:
            self.lock.release()

    def is_held(self) -> bool:
        """Whether another process has the database open. This one must not: closing a file ends all locks on it."""
        try:
            with open(self.database, "r+b") as file:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, _SHARED_SIZE, _SHARED_FIRST)
        except BlockingIOError:
            return True
        except OSError:
            # What is wrong, SQLite says.
            return False
        return False

    def _identities(self) -> tuple[_Identity, ...]:
        return tuple(map(_identity, self._paths))

    def _checkpoint(self) -> bool:
        """Return True once the database has all that the WAL has. Any connection will do that is between transactions;
        none can be opened, as it would open another WAL."""
        for connection in list(self._connections):
            with contextlib.suppress(sqlite3.Error):
                busy, frames, moved = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
                if not busy and frames == moved:
                    return True
        return False

    def _unusable(self, what: str) -> DatabaseUnusable:
        name = Path(self.database).name
        if not self._is_told:
            self._is_told = True
            logger.warning(
                "the files of the database %s %s; until they are back, requests get 503", self.database, what
            )
        return DatabaseUnusable(Failure.UNAVAILABLE, f"The files of the database {name} {what}. {_REMEDY}")


def files_of(connection: BaseDatabaseWrapper) -> DatabaseFiles:
    """The files of the database of a connection; one object for all connections to it."""
    return _files(os.path.abspath(connection.settings_dict["NAME"]))


_files = cache(DatabaseFiles)


def _identity(path: str) -> _Identity:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino
