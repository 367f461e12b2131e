"""`manage.py verify_index`: compare indexes with the database, and their answers with those of exact search."""

from argparse import ArgumentTypeError
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from apps.engine import kernels
from apps.indexing.verification import verify_library
from apps.libraries.errors import LibraryError, NotFound
from apps.libraries.models import Library


class Command(BaseCommand):
    help = (
        "Compare every library's index with the database: that it has the same rows, each with its vector, metadata "
        "and words. Compare its answers with exact search: the nearest neighbours of a sample of rows, themselves left "
        "out. Ends with status 1 where a row differs."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("library", nargs="*", help="ids of libraries; all, if none is named")
        parser.add_argument("--sample", type=_positive, default=100, help="how many stored vectors to search for (100)")
        parser.add_argument("--k", type=_positive, default=10, help="how many neighbours of each (10)")

    def handle(self, *args: Any, **options: Any) -> None:
        named = options["library"] or list(Library.objects.order_by("pk").values_list("public_id", flat=True))
        if not named:
            self.stdout.write("There are no libraries.")
        kernels.load()
        differing = []
        for library_id in named:
            try:
                report = verify_library(library_id=library_id, sample=options["sample"], k=options["k"])
            except LibraryError as error:
                if isinstance(error, NotFound) and not options["library"]:
                    continue  # deleted meanwhile
                raise CommandError(error.detail) from error
            differences = [f"{report.faults:,} ROWS DIFFER"] if report.faults else []
            differences += [f"{what.upper()} DIFFER" for what in report.unequal]
            if differences:
                differing.append(library_id)
            recall = "" if report.recall is None else f", recall@{options['k']} {report.recall:.4f}"
            found = ", ".join(differences) or "equal to the database"
            self.stdout.write(f"{library_id}: {report.rows:,} rows, {found}{recall} ({report.searched})")
        if differing:
            raise CommandError(f"The database is right. Build anew: manage.py rebuild_index {' '.join(differing)}")


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ArgumentTypeError("must be 1 or more")
    return number
