"""`manage.py backup`: a copy of one state of the database, while a server runs or not."""

import shlex
from typing import Any

from django.core.management.base import CommandError, CommandParser

from apps.installation import PROGRAM
from apps.operations.management.base import AuditedCommand, one_sentence_errors, show_progress
from apps.operations.management.progress import progress_bar
from apps.transfer.backups.catalog import KIND
from apps.transfer.backups.make import check_database_exists, make_backup
from apps.transfer.backups.stores import open_store
from apps.transfer.command_jobs import running_reader
from apps.transfer.job_context import JobCancelled


class Command(AuditedCommand):
    help = (
        "Make a backup of the database, also while a server writes to it. It is checked, and kept only if it is whole. "
        "docs/backups.md explains backups."
    )

    requires_database = False

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("place", nargs="?", default="", help="a folder or URL; VECTORDB_BACKUP_URL without it")
        parser.add_argument("--test-restore", action="store_true", help="read it back and restore it elsewhere")

    @one_sentence_errors()
    def handle(self, *args: Any, **options: Any) -> None:
        store = open_store(options["place"])
        check_database_exists()
        try:
            with (
                running_reader(KIND, "", {"reason": "request"}) as job,
                progress_bar(unit="B", unit_scale=True) as bar,
            ):

                def advance(done: int, total: int) -> None:
                    show_progress(bar)(done, total)
                    job.advance(done, total)

                made = make_backup(store=store, reason="request", advance=advance, is_tested=options["test_restore"])
                job.result = {"backup": made.id}
        except JobCancelled:
            raise CommandError("It was cancelled.") from None
        backup = f"{store.shown.rstrip('/')}/{made.id}"
        self.stdout.write(f"{backup}: {made.libraries} libraries, {made.chunks} chunks, {made.size / 1e6:.1f} MB")
        self.stdout.write(f"`{PROGRAM} restore --force {shlex.quote(backup)}` puts it back.")
