"""`manage.py verify_index`: compare indexes with the database, and their answers with those of exact search."""

from argparse import ArgumentTypeError
from typing import Any

from django.core.management.base import CommandError, CommandParser

from apps.engine import kernels
from apps.indexing.verification import verify_library
from apps.installation import PROGRAM
from apps.operations.management.base import LibrariesCommand, one_sentence_errors


class Command(LibrariesCommand):
    help = (
        "Compare every library's index with the database: that it has the same rows, each with its vector, metadata "
        "and words. Compare its answers with exact search: the nearest neighbours of a sample of rows, themselves left "
        "out. Ends with status 1 where a row differs."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("--sample", type=_positive, default=100, help="how many stored vectors to search for (100)")
        parser.add_argument("--k", type=_positive, default=10, help="how many neighbours of each (10)")

    @one_sentence_errors()
    def handle(self, *args: Any, **options: Any) -> None:
        kernels.load()
        differing: list[str] = []

        def verify(library_id: str) -> None:
            report = verify_library(library_id=library_id, sample=options["sample"], k=options["k"])
            differences = [f"{report.faults:,} ROWS DIFFER"] if report.faults else []
            differences += [f"{what.upper()} DIFFER" for what in report.unequal]
            if differences:
                differing.append(library_id)
            recall = "" if report.recall is None else f", recall@{options['k']} {report.recall:.4f}"
            found = ", ".join(differences) or "equal to the database"
            self.stdout.write(f"{library_id}: {report.rows:,} rows, {found}{recall} ({report.searched})")

        self.for_each(options["library"], verify)
        if differing:
            raise CommandError(f"The database is right. Rebuild: {PROGRAM} rebuild_index {' '.join(differing)}")


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ArgumentTypeError("must be 1 or more")
    return number
