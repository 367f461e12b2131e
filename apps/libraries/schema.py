"""Which migrations a database has, and which of them this version of the server knows."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

from django.db import DatabaseError, connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.migrations.loader import MigrationLoader

from apps.installation import PROGRAM
from apps.libraries.errors import Conflict

logger = logging.getLogger(__name__)

# An app and a name.
Migration: TypeAlias = tuple[str, str]


class Schema:
    """The migrations that this version knows, and those that a database has, if one is named. Raise DatabaseError."""

    def __init__(self, connection: BaseDatabaseWrapper | None = None) -> None:
        loader = MigrationLoader(connection)
        self.known = frozenset(loader.disk_migrations)
        # Also those that stand for others which were applied.
        self.applied: list[Migration] = sorted(loader.applied_migrations)
        self.pending: list[Migration] = sorted(
            key for key in loader.graph.nodes if key not in loader.applied_migrations
        )

    @property
    def unknown(self) -> list[Migration]:
        """The migrations that only another version of the server knows."""
        return self.unknown_of(self.applied)

    def unknown_of(self, applied: list[Migration]) -> list[Migration]:
        """Return those of a database with `applied` migrations that this version does not know."""
        return [migration for migration in applied if migration not in self.known]

    def refuse_newer(self) -> None:
        """Raise Conflict for a database that a newer version of the server has migrated."""
        if self.unknown:
            raise Conflict(
                "The database was migrated by a newer version of the server: this one does not know "
                f"{list_migrations(self.unknown)}. Start that version or a later one, or restore a backup that was "
                "made before."
            )

    def refuse_older(self) -> None:
        """Raise Conflict for a database that an older version of the server has migrated, if any has."""
        if self.applied and self.pending:
            raise Conflict(
                f"The database is of an older version of the server: it lacks {list_migrations(self.pending)}. Run "
                f"`{PROGRAM} migrate`, or start the server, and try again."
            )


@contextmanager
def opened_briefly(connection: BaseDatabaseWrapper) -> Iterator[None]:
    """Leave a connection closed after the block if it was before, so that a process may fork then."""
    was_open = connection.connection is not None
    try:
        yield
    finally:
        if not was_open:
            connection.close()


def refuse_newer_database(*, refuses_older: bool = False) -> None:
    """Raise Conflict for a database that a newer version of the server has migrated, or that an older one has, if asked
    to. One that cannot be read passes: whoever uses it next says why."""
    connection = connections["default"]
    if connection.vendor == "sqlite" and not Path(connection.settings_dict["NAME"]).exists():
        return
    try:
        with opened_briefly(connection):
            schema = Schema(connection)
            schema.refuse_newer()
            if refuses_older:
                schema.refuse_older()
    except DatabaseError as error:
        logger.debug("the migrations of the database cannot be read: %s", error)


def list_migrations(migrations: list[Migration]) -> str:
    """Return the first of some migrations, for people."""
    shown = ", ".join(f"{app}.{name}" for app, name in migrations[:3])
    return shown if len(migrations) <= 3 else f"{shown} and {len(migrations) - 3} more"
