"""`manage.py backup`: a copy of one state of the database, while a server runs or not."""

from typing import Any

from django.core.management.base import BaseCommand, CommandParser
from tqdm import tqdm

from apps.installation import PROGRAM
from apps.operations.management.base import one_sentence_errors, show_progress
from apps.transfer.backups.make import make_backup
from apps.transfer.backups.stores import open_store


class Command(BaseCommand):
    help = (
        "Make a backup of the database, also while a server writes to it. It is checked, and kept only if it is whole. "
        "docs/backups.md explains backups."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("place", nargs="?", default="", help="a folder or URL; VECTORDB_BACKUP_URL without it")
        parser.add_argument("--test-restore", action="store_true", help="read it back and restore it elsewhere")

    @one_sentence_errors()
    def handle(self, *args: Any, **options: Any) -> None:
        store = open_store(options["place"])
        with tqdm(unit="B", unit_scale=True, disable=None) as bar:
            made = make_backup(
                store=store, reason="request", advance=show_progress(bar), is_tested=options["test_restore"]
            )
        self.stdout.write(
            f"{store.shown.rstrip('/')}/{made.id}: {made.libraries} libraries, "
            f"{made.rows.get('vectordb_chunk', 0)} chunks, {made.size / 1e6:.1f} MB"
        )
        self.stdout.write(f"`{PROGRAM} restore` puts it back.")
