"""Who uses a PostgreSQL database: each connection of this program has a shared lock on it, a restore the exclusive one.

They are advisory locks, so all hosts that share the database see them, and they end with the connection of who died.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.utils import DatabaseError

from apps.libraries.dialects.base import Failure
from apps.libraries.dialects.damage import DatabaseUnusable

# Of two numbers: none of the locks of one number.
_LOCK = f"({int.from_bytes(b'vdb')}, 0)"
# A connection that its client has closed is there until the server has noticed.
_SECONDS_TO_LEAVE = 5.0
# Whoever has a database that is made for a while has it shared.
SCRATCH_LOCK = f"({int.from_bytes(b'vdb')}, 1)"
# A statement that waits for the exclusive lock, and has it until its transaction ends.
WAIT = f"SELECT pg_advisory_xact_lock{_LOCK};"
_IS_AWAITED = f"""
    SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND (classid, objid) = {_LOCK} AND objsubid = 2
        AND NOT granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database()))"""
_OTHERS = """
    SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()
        AND backend_type = 'client backend')"""


def join(connection: BaseDatabaseWrapper) -> None:
    """Keep restores away as long as this new connection lives. Raise DatabaseUnusable while one is under way."""
    if not _select(connection, f"SELECT pg_try_advisory_lock_shared{_LOCK}"):
        raise DatabaseUnusable(Failure.UNAVAILABLE, "A backup is being restored into it. Try again when that is done.")


@contextmanager
def exclusive(connection: BaseDatabaseWrapper) -> Iterator[bool]:
    """Let nobody of this program connect while the block runs; gives False where anybody is connected, by whatever
    program."""
    deadline = time.monotonic() + _SECONDS_TO_LEAVE
    try:
        while not (is_alone := _is_alone(connection)) and time.monotonic() < deadline:
            time.sleep(0.1)
        yield is_alone
    finally:
        # At once, not when the server has noticed that this connection is closed.
        with suppress(DatabaseError):
            _unlock(connection)
        connection.close()


def hand_over(connection: BaseDatabaseWrapper) -> None:
    """In the block of `exclusive`, give the database to whoever waits for it, if anybody does. Nobody else gets it in
    between."""
    if _select(connection, _IS_AWAITED):
        _unlock(connection)


def _is_alone(connection: BaseDatabaseWrapper) -> bool:
    """Try to have the database exclusively."""
    if not _select(connection, f"SELECT pg_try_advisory_lock{_LOCK}"):
        return False
    is_alone = not _select(connection, _OTHERS)
    if not is_alone:
        _unlock(connection)
    return is_alone


def _unlock(connection: BaseDatabaseWrapper) -> None:
    _select(connection, "SELECT pg_advisory_unlock_all()")


def _select(connection: BaseDatabaseWrapper, sql: str) -> bool:
    with connection.cursor() as cursor:
        cursor.execute(sql)
        return bool(cursor.fetchone()[0])
