"""`manage.py migrate`: a backup, then all migrations in one transaction while nobody writes."""

from typing import Any

from django.core.management.base import CommandError
from django.core.management.commands import migrate
from django.db import DatabaseError, connections

from apps.libraries.dialects import create_database, dialect_of, failure_of, sentence_of
from apps.libraries.errors import LibraryError
from apps.libraries.schema import Schema
from apps.transfer.backups.make import back_up_before_migration
from apps.transfer.errors import TransferError


class Command(migrate.Command):
    help = "Upgrade the database to this version, after a backup on SQLite. The command serve does it too."

    def execute(self, *args: Any, **options: Any) -> str | None:
        try:
            # Before the system checks, which ask the database what it can do.
            create_database(connections[options["database"]])
            return super().execute(*args, **options)
        except DatabaseError as error:
            if failure_of(error) is None:
                raise
            raise CommandError(f"Nothing was migrated. {sentence_of(error)}") from error

    def handle(self, *args: Any, **options: Any) -> None:
        connection = connections[options["database"]]
        schema = Schema(connection)
        is_applied = not (options["plan"] or options["check_unapplied"])
        try:
            schema.refuse_newer()
            if schema.applied and schema.pending and is_applied and (path := back_up_before_migration()):
                self.stdout.write(f"This is a backup of the database, made before it is migrated: {path}")
                # Not only when the migration is done, where the output is a file.
                self.stdout.flush()
        except (LibraryError, TransferError) as error:
            raise CommandError(str(error)) from error
        with dialect_of(connection).migration(connection):
            super().handle(*args, **options)
