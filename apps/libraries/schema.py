"""Which migrations a database has, and which of them this version of the server knows."""

from typing import TypeAlias

from django.conf import settings
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.migrations.loader import MigrationLoader

from apps.libraries.errors import Conflict

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
                f"The database was migrated by a newer version of the server: version {settings.VERSION} does not know "
                f"{list_migrations(self.unknown)}. Start that version or a later one, or restore a backup that was "
                "made before."
            )


def list_migrations(migrations: list[Migration]) -> str:
    """Return the first of some migrations, for people."""
    shown = ", ".join(f"{app}.{name}" for app, name in migrations[:3])
    return shown if len(migrations) <= 3 else f"{shown} and {len(migrations) - 3} more"
