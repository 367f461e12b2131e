"""`manage.py versions`: which versions the program and its data are of."""

import platform
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand
from django.db import connection

from apps.engine.storage import manifest as index_manifest
from apps.libraries.dialects import dialect_of
from apps.libraries.schema import Schema, list_migrations
from apps.operations.management.base import one_sentence_errors
from apps.transfer.backups import manifest as backup_manifest


class Command(BaseCommand):
    help = "Show the versions of the server, of the database and its schema, of index files and of backups."

    @one_sentence_errors()
    def handle(self, *args: Any, **options: Any) -> None:
        schema = Schema(connection)
        newest = [migration for migration in schema.applied if migration[0] in ("libraries", "access", "transfer")]
        for name, shown in (
            ("server", settings.VERSION),
            ("Python", platform.python_version()),
            ("database", dialect_of(connection).version(connection)),
            ("schema", list_migrations([*dict(newest).items()]) or "none yet"),
            ("migrations to apply", list_migrations(schema.pending) or "none"),
            ("migrations of a newer version", list_migrations(schema.unknown) or "none"),
            ("index files", f"format {index_manifest.FORMAT}"),
            ("backups", f"format {backup_manifest.FORMAT}"),
        ):
            self.stdout.write(f"{name}: {shown}")
        schema.refuse_newer()
