"""`manage.py migrate` in one transaction: all or nothing, by one process at a time, while nobody writes."""

from typing import Any

from django.core.management.base import CommandError
from django.core.management.commands import migrate
from django.db import connections

from apps.libraries.dialects import create_database, dialect_of
from apps.libraries.errors import LibraryError
from apps.libraries.schema import Schema


class Command(migrate.Command):
    help = "Upgrade the database to this version. The command serve does it too."

    def execute(self, *args: Any, **options: Any) -> str | None:
        # Before the system checks, which ask the database what it can do.
        create_database(connections[options["database"]])
        return super().execute(*args, **options)

    def handle(self, *args: Any, **options: Any) -> None:
        connection = connections[options["database"]]
        try:
            Schema(connection).refuse_newer()
        except LibraryError as error:
            raise CommandError(error.detail) from error
        with dialect_of(connection).migration(connection):
            super().handle(*args, **options)
