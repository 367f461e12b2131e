"""Keeps the database's write-ahead log small, in a thread of the maintenance process.

A WAL that is copied into the database now and then is never copied whole while many write, so it would grow without
bound. And whoever wrote the page that makes it too long would copy all of it before the next request is served.
"""

import contextlib
import threading
from collections.abc import Iterator

from django.db import connection

from apps.indexing.indexer import TRANSIENT_ERRORS
from apps.libraries.dialects import FilesState, database_files, dialect_of, is_damaged, note_if_damaged

_SECONDS = 1.0
# Without a write for so long, the WAL's room is given back; it may take more than one attempt.
_QUIET_SECONDS = 20.0


@contextlib.contextmanager
def limited_wal() -> Iterator[None]:
    """Look after the WAL while the block runs, where the database does not do that itself."""
    if not dialect_of(connection).has_wal:
        yield
        return
    stop = threading.Event()
    thread = threading.Thread(target=_limit_wal, args=(stop,), name="checkpoints", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _limit_wal(stop: threading.Event) -> None:
    version, unchanged = None, 0.0
    while not stop.wait(_SECONDS):
        if is_damaged() or database_files() is not FilesState.IN_PLACE:
            continue
        # What fails here, the upkeep of the database tells.
        try:
            dialect = dialect_of(connection)
            before, version = version, _version()
            unchanged = unchanged + _SECONDS if version == before else 0.0
            is_quiet = unchanged > 0 and unchanged % _QUIET_SECONDS == 0
            if unchanged == 0 or is_quiet:
                dialect.limit_wal(connection, is_quiet=is_quiet)
        except TRANSIENT_ERRORS as error:
            note_if_damaged(error)
            version = None
            connection.close()
    connection.close()


def _version() -> object:
    """Another value than before once anybody has committed anything."""
    with connection.cursor() as cursor:
        cursor.execute(dialect_of(connection).data_version)
        return cursor.fetchone()[0]
