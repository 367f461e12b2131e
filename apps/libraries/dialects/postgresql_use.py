"""Who uses a PostgreSQL database: each connection of this program has a shared lock on it, a restore the exclusive one.

They are advisory locks, so all hosts that share the database see them, and they end with the connection of who died.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.utils import DatabaseError

from apps.libraries.dialects.base import Failure
from apps.libraries.dialects.damage import DatabaseUnusable

# Of two numbers: none of the locks of one number.
_LOCK = f"({int.from_bytes(b'vdb')}, 0)"
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
    is_alone = _select(connection, f"SELECT pg_try_advisory_lock{_LOCK}") and not _select(connection, _OTHERS)
    try:
        yield is_alone
    finally:
        # At once: a connection that is closed may have its locks a while longer.
        with suppress(DatabaseError):
            _select(connection, "SELECT pg_advisory_unlock_all()")
        connection.close()


def hand_over(connection: BaseDatabaseWrapper) -> None:
    """In the block of `exclusive`, give the database to whoever waits for it, if anybody does. Nobody else gets it in
    between."""
    if _select(connection, _IS_AWAITED):
        _select(connection, "SELECT pg_advisory_unlock_all()")


def _select(connection: BaseDatabaseWrapper, sql: str) -> bool:
    with connection.cursor() as cursor:
        cursor.execute(sql)
        return bool(cursor.fetchone()[0])
