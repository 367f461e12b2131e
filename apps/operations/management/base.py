"""What commands share: which database they leave alone, their names in the audit trail, a sentence for what failed."""

import contextlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import DatabaseError, connections

from apps.access.requests import Principal, current_principal
from apps.libraries.dialects import dialect_of, note_if_damaged, sentence_of
from apps.libraries.errors import Conflict, LibraryError, NotFound
from apps.libraries.models import Library
from apps.libraries.schema import opened_briefly, refuse_newer_database
from apps.transfer.errors import TransferError

# The exit status of a command that was interrupted, as shells have it for SIGINT.
INTERRUPTED = 130


@contextlib.contextmanager
def one_sentence_errors() -> Iterator[None]:
    """Turn errors of the database and of the disk, as of a read-only data folder, into a CommandError, and what is
    refused."""
    try:
        yield
    except (LibraryError, TransferError) as error:
        raise CommandError(str(error)) from error
    except DatabaseError as error:
        note_if_damaged(error)
        raise CommandError(sentence_of(error)) from error
    except BrokenPipeError:
        # Of whoever read the output: `main` ends quietly.
        raise
    except OSError as error:
        raise CommandError(
            f"{error.filename or 'The data folder'} cannot be used: {error.strerror or error}"
        ) from error


def show_progress(bar: Any) -> Callable[[int, int], None]:
    """Return a function that shows on tqdm's `bar` how much is done, and how much there is."""

    def show(done: int, total: int) -> None:
        bar.total = total
        bar.update(done - bar.n)

    return show


def counted(count: int, what: str) -> str:
    """The count with its noun, as "1 row" and "2 rows"."""
    return f"{count} {what if count == 1 else f'{what}s'}"


def rows_refused(count: int) -> str:
    """How many rows were refused, as a sentence without its end."""
    return f"{counted(count, 'row')} {'was' if count == 1 else 'were'} refused"


def no_database(why: str = "") -> str:
    """Return what a command says where there is no database."""
    return (
        f"There is no database of a server in {settings.DATA_DIR} yet{why}. Set VECTORDB_DATA_DIR or --data, and "
        "DATABASE_URL, as for the server, or start it once with the command serve."
    )


def has_database() -> bool:
    """Whether there is one, or that cannot be told."""
    connection = connections["default"]
    try:
        with opened_briefly(connection):
            return dialect_of(connection).has_tables(connection)
    except (DatabaseError, OSError):
        return True


class DatabaseCommand(BaseCommand):
    """A command that leaves a database alone that another version of the server has migrated, and that ends where there
    is none, unless it says so itself (`requires_database`)."""

    requires_migrations_checks = True
    requires_database: ClassVar[bool] = True

    def check_migrations(self) -> None:
        """Raise CommandError for such a database. Django calls it before `handle`."""
        if self.requires_database and not has_database():
            raise CommandError(no_database())
        try:
            refuse_newer_database(refuses_older=True)
        except Conflict as error:
            raise CommandError(str(error)) from error


class AuditedCommand(DatabaseCommand):
    """A command whose changes are in the audit trail, under its own name."""

    def execute(self, *args: Any, **options: Any) -> str | None:
        command = type(self).__module__.rpartition(".")[2]
        before = current_principal.set(Principal(f"manage.py {command}", frozenset(["admin"])))
        try:
            return super().execute(*args, **options)
        finally:
            current_principal.reset(before)


class LibrariesCommand(AuditedCommand):
    """A command for the libraries that are named, or for all."""

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("library", nargs="*", help="ids of libraries; all, if none is named")

    def for_each(self, named: Sequence[str], *acts: Callable[[str], None]) -> None:
        """Call each of `acts` with the id of every library; raise CommandError for what it refuses. A library that was
        deleted meanwhile is skipped, unless libraries are named."""
        ids = named or list(Library.objects.order_by("pk").values_list("public_id", flat=True))
        if not ids:
            self.stdout.write("There are no libraries.")
        for act, library_id in itertools.product(acts, ids):
            try:
                act(library_id)
            except LibraryError as error:
                if named or not isinstance(error, NotFound):
                    raise CommandError(error.detail) from error
