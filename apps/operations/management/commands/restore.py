"""`manage.py restore`: a backup takes the place of the database."""

from typing import Any

from django.core.management.base import CommandParser

from apps.operations.management.base import AuditedCommand, one_sentence_errors, show_progress
from apps.operations.management.progress import progress_bar
from apps.transfer.backups.restore import restore_backup


class Command(AuditedCommand):
    help = (
        "Put a backup in the place of the database: all of it or nothing. Needs the server stopped. docs/backups.md "
        "explains backups."
    )

    # They ask the database, which may be damaged, of a newer version or not there.
    requires_system_checks = []
    requires_migrations_checks = False

    def add_arguments(self, parser: CommandParser) -> None:
        where = "its folder, its URL, or its id if it is in backups/ of the data folder or in VECTORDB_BACKUP_URL"
        parser.add_argument("backup", help=where)
        parser.add_argument("--force", action="store_true", help="replace a database that is not empty")

    @one_sentence_errors()
    def handle(self, *args: Any, **options: Any) -> None:
        with progress_bar(unit="B", unit_scale=True) as bar:
            restored = restore_backup(source=options["backup"], force=options["force"], advance=show_progress(bar))
        made = restored.backup
        self.stdout.write(
            f"The database is as it was at {made.created_at}: {made.libraries} libraries, "
            f"{made.chunks} chunks. Start the server."
        )
        if restored.kept is not None:
            self.stdout.write(
                f"What was there before is {restored.kept}, until the next restore. Delete it when you do not need it."
            )
