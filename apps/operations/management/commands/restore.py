"""`manage.py restore`: a backup takes the place of the database."""

from typing import Any

from django.core.management.base import BaseCommand, CommandParser
from tqdm import tqdm

from apps.operations.management.base import one_sentence_errors, show_progress
from apps.transfer.backups.restore import restore_backup


class Command(BaseCommand):
    help = (
        "Put a backup in the place of the database: all of it or nothing. Needs the server stopped. docs/backups.md "
        "explains backups."
    )

    # They ask the database, which may be damaged or not there.
    requires_system_checks = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("backup", help="its folder, its URL, or its id where VECTORDB_BACKUP_URL has it")
        parser.add_argument("--force", action="store_true", help="replace a database that is not empty")

    @one_sentence_errors()
    def handle(self, *args: Any, **options: Any) -> None:
        with tqdm(unit="B", unit_scale=True, disable=None) as bar:
            made = restore_backup(source=options["backup"], force=options["force"], advance=show_progress(bar))
        self.stdout.write(
            f"The database is as it was at {made.created_at}: {made.libraries} libraries, "
            f"{made.rows.get('vectordb_chunk', 0)} chunks. Start the server."
        )
