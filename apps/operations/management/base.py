"""What the commands share that work on libraries: one sentence for what failed, and libraries by their ids."""

import contextlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.db import DatabaseError

from apps.access.management.base import AuditedCommand
from apps.libraries.dialects import Failure, database_name, failure_of, note_if_damaged
from apps.libraries.dialects.damage import REMEDY
from apps.libraries.errors import LibraryError, NotFound
from apps.libraries.models import Library
from apps.transfer.errors import TransferError

# The exit status of a command that was interrupted, as shells have it for SIGINT.
INTERRUPTED = 130


def sentence_of(error: DatabaseError) -> str:
    """What a command says of a database that it cannot use."""
    remedy = f" {REMEDY}" if failure_of(error) is Failure.DAMAGED else ""
    return f"The database cannot be used: {error} ({database_name()}).{remedy}"


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
