"""`manage.py check_database`: read the whole database, and say what the disk has damaged."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError

from apps.libraries.dialects import check_database
from apps.operations.management.base import one_sentence_errors


class Command(BaseCommand):
    help = (
        "Read the whole database and say what is damaged. Ends with status 1 where something is; a running server then "
        "writes to it no more. Works beside a running server."
    )

    @one_sentence_errors()
    def handle(self, *args: Any, **options: Any) -> None:
        faults = check_database()
        if faults:
            self.stderr.write("\n".join(faults))
            raise CommandError("The database is damaged. Stop the server, restore a backup, and start it again.")
        self.stdout.write("The database is sound.")
