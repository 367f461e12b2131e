"""`manage.py load_sample`: load the library that is shipped."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError
from pydantic import ValidationError
from tqdm import tqdm

from apps.operations import sample


class Command(BaseCommand):
    help = f"Load the sample library {sample.LIBRARY_ID!r}: 2,000 real texts with real embeddings."

    def handle(self, *args: Any, **options: Any) -> None:
        if sample.is_loaded():
            raise CommandError(f"There already is a library {sample.LIBRARY_ID!r}; delete it to load it again.")
        try:
            with tqdm(total=sample.ROWS, unit="rows", desc="Loading the sample", delay=2, disable=None) as bar:
                for rows in sample.load():
                    bar.update(rows)
        except ValidationError as error:
            reason = error.errors()[0]["msg"]
            raise CommandError(
                f"The sample does not fit the limits that are set: a value {reason}. Raise that limit, or set "
                "VECTORDB_SAMPLE=0 to start without the sample."
            ) from error
        self.stdout.write(f"Loaded {sample.ROWS:,} chunks into the library {sample.LIBRARY_ID!r}.")
