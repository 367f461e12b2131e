"""`manage.py load_sample`: load the library that is shipped."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError
from tqdm import tqdm

from apps.operations import sample


class Command(BaseCommand):
    help = f"Load the sample library {sample.LIBRARY_ID!r}: 2,000 real texts with real embeddings."

    def handle(self, *args: Any, **options: Any) -> None:
        if sample.is_loaded():
            raise CommandError(f"There already is a library {sample.LIBRARY_ID!r}; delete it to load it again.")
        with tqdm(total=sample.ROWS, unit="rows", desc="Loading the sample", delay=2, disable=None) as bar:
            for rows in sample.load():
                bar.update(rows)
        self.stdout.write(f"Loaded {sample.ROWS:,} chunks into the library {sample.LIBRARY_ID!r}.")
