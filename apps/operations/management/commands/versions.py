"""`manage.py versions`: which versions the program and its data are of."""

import platform
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.db import connection

from apps.engine.storage import manifest as index_manifest
from apps.libraries.dialects import dialect_of
from apps.libraries.schema import Schema, list_migrations
from apps.operations.management.base import has_database, no_database, one_sentence_errors
from apps.transfer.backups import manifest as backup_manifest


class Command(BaseCommand):
    help = "Show the versions of the server, of the database and its schema, of index files and of backups."

    @one_sentence_errors()
    def handle(self, *args: Any, **options: Any) -> None:
        self._show("server", settings.VERSION)
        self._show("Python", platform.python_version())
        self._show("index files", f"format {index_manifest.FORMAT}")
        self._show("backups", f"format {backup_manifest.FORMAT}")
        if not has_database():
            raise CommandError(no_database())
        schema = Schema(connection)
        newest = [migration for migration in schema.applied if migration[0] in ("libraries", "access", "transfer")]
        self._show("database", dialect_of(connection).version(connection))
        self._show("schema", list_migrations([*dict(newest).items()]) or "none yet")
        self._show("migrations to apply", list_migrations(schema.pending) or "none")
        self._show("migrations of a newer version", list_migrations(schema.unknown) or "none")
        schema.refuse_newer()

    def _show(self, name: str, shown: str) -> None:
        self.stdout.write(f"{name}: {shown}")
