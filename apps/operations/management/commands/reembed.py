"""`manage.py reembed`: move a library to another embedding model, and wait until that is done."""

import time
from typing import Any

from django.core.management.base import CommandError, CommandParser
from pydantic import ValidationError

from apps.indexing.reembedder import Reembedder
from apps.libraries import selectors
from apps.libraries.errors import LibraryError
from apps.libraries.inputs import Embedding, Reembed
from apps.libraries.models import Reembedding
from apps.libraries.services.reembedding import request_reembedding
from apps.operations.management.base import INTERRUPTED, AuditedCommand, one_sentence_errors
from apps.operations.management.progress import progress_bar
from apps.operations.process import maintenance_lock

_SECONDS_BETWEEN_LOOKS = 0.5
# Whom the sentence of an error is about, by its pointer.
_SUBJECTS = {"/embedding/provider": "--provider ", "/embedding/model": "--model ", "/embedding": "The model "}


class Command(AuditedCommand):
    help = (
        "Move a library to another embedding model. New vectors are made beside the present ones, which answer until "
        "all are there. Beside a running server, its maintenance does the work. Run it again after a failure: it goes "
        "on with what is missing."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("library", help="id of a library")
        parser.add_argument("--provider", required=True, help="one of those in docs/embeddings.md")
        parser.add_argument("--model", required=True, help="a model of this provider")

    @one_sentence_errors()
    def handle(self, *args: Any, **options: Any) -> None:
        library_id = options["library"]
        try:
            asked = request_reembedding(
                library_id=library_id,
                reembed=Reembed(embedding=Embedding(provider=options["provider"], model=options["model"])),
            )
            with progress_bar(desc=f"embedding {library_id}", unit="chunk") as bar:
                _wait(asked, bar)
            library = selectors.library_row(library_id)
        except ValidationError as error:
            raise CommandError(f"--provider or --model: {error.errors()[0]['msg']}") from error
        except LibraryError as error:
            subject = _SUBJECTS.get(error.faults[0].pointer, "") if error.faults else ""
            raise CommandError(f"{subject}{error.detail}") from error
        except KeyboardInterrupt:
            raise CommandError(
                "This waits no longer. What was made is kept: a running server goes on with the rest, and so does this "
                "command.",
                returncode=INTERRUPTED,
            ) from None
        if library.pk != asked.pk or library.generation < asked.generation:
            raise CommandError("It was called off.")
        self.stdout.write(f"{library_id}: {asked.provider} {asked.model}, dimension {library.dimension}")


def _wait(asked: Reembedding, bar: Any) -> None:
    """Move the library, or wait until the maintenance process of a running server has; raises CommandError."""
    reembedder = Reembedder()
    while True:
        with maintenance_lock() as is_locked:
            shown = time.monotonic()
            for _ in reembedder.steps(asked.pk) if is_locked else ():
                if time.monotonic() - shown >= _SECONDS_BETWEEN_LOOKS:
                    _show(asked, bar)
                    shown = time.monotonic()
        if not _show(asked, bar):
            return
        time.sleep(_SECONDS_BETWEEN_LOOKS)


def _show(asked: Reembedding, bar: Any) -> bool:
    """Show how far it is. Return True if it goes on; raise CommandError where it failed."""
    row = selectors.reembedding(library_key=asked.pk)
    if row is None or row.generation != asked.generation:
        return False
    if row.state == Reembedding.State.FAILED:
        raise CommandError(row.error)
    data = selectors.reembedding_data(row)
    bar.total = data["chunks"]
    bar.update(data["embedded"] - bar.n)
    bar.set_postfix_str(f"tried again later: {row.error}" if row.error else "")
    return True
