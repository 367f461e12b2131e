"""`manage.py load_sample`: load the libraries that are shipped."""

from typing import Any

from django.core.management.base import CommandError
from pydantic import ValidationError
from tqdm import tqdm

from apps.libraries.errors import Invalid
from apps.operations import sample
from apps.operations.management.base import AuditedCommand


class Command(AuditedCommand):
    help = f"Load the sample libraries {sample.WORDNET!r} and {sample.HANDBOOK!r}, as far as they do not exist."

    def handle(self, *args: Any, **options: Any) -> None:
        libraries = sample.missing()
        if not libraries:
            raise CommandError("The sample libraries exist already; delete one to load it again.")
        for library_id in libraries:
            try:
                with tqdm(unit="rows", desc=f"Loading {library_id}", delay=2, disable=None) as bar:
                    for rows in sample.load(library_id):
                        bar.update(rows)
            except (Invalid, ValidationError) as error:
                reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error.detail
                raise CommandError(
                    f"The sample does not fit the limits that are set: a value {reason}. Raise that limit, or set "
                    "VECTORDB_SAMPLE=0 to start without the sample."
                ) from error
        self.stdout.write(f"Loaded the sample libraries {' and '.join(libraries)}.")
