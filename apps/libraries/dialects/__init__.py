"""What SQLite and PostgreSQL do differently, behind one interface. Only these modules hold SQL of one database.

Triggers keep the change log and delete what belongs to a deleted row. They are dropped before migrations and installed
after them: SQLite reads all triggers when a table is renamed, and Django alters a table by making another in its place.
"""

from collections.abc import Sequence
from typing import Any

from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.utils import DatabaseError

from apps.libraries.dialects.base import SNAPSHOT_ALIAS, Dialect, Failure
from apps.libraries.dialects.postgresql import PostgreSQLDialect
from apps.libraries.dialects.sqlite import SQLiteDialect

__all__ = [
    "SNAPSHOT_ALIAS",
    "Dialect",
    "Failure",
    "dialect_of",
    "drop_triggers",
    "failure_of",
    "install_triggers",
    "prepare_connection",
]

_DIALECTS: dict[str, Dialect] = {"sqlite": SQLiteDialect(), "postgresql": PostgreSQLDialect()}


def dialect_of(connection: BaseDatabaseWrapper) -> Dialect:
    """Return the dialect of a Django connection."""
    return _DIALECTS[connection.vendor]


def failure_of(error: DatabaseError) -> Failure | None:
    """Return the kind of a transient failure; None for any other error."""
    for dialect in _DIALECTS.values():
        failure = dialect.failure(error)
        if failure is not None:
            return failure
    return None


def prepare_connection(*, connection: BaseDatabaseWrapper, **kwargs: Any) -> None:
    """Receiver of `connection_created`: set what a new connection needs."""
    dialect_of(connection).prepare(connection)


def drop_triggers(*, using: str, plan: Sequence[Any], **kwargs: Any) -> None:
    """Receiver of `pre_migrate`: drop the triggers where a migration is to be applied."""
    if plan:
        dialect_of(connections[using]).drop_triggers(connections[using])


def install_triggers(*, using: str, **kwargs: Any) -> None:
    """Receiver of `post_migrate`: make sure that the triggers are there."""
    dialect_of(connections[using]).install_triggers(connections[using])
