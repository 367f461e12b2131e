"""`manage.py create_key`: make an API key and print it, the one time that it is shown."""

from datetime import timedelta
from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.utils import timezone

from apps.access.authorization import KEY_SCOPES, check_pattern
from apps.access.keys import create_key
from apps.access.models import KEY_NAME_MAX_LENGTH
from apps.operations.management.base import AuditedCommand


class Command(AuditedCommand):
    help = "Make an API key and print it. It is stored as a hash, so it cannot be shown again."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("name", help="what the key is for")
        parser.add_argument(
            "--scope", choices=KEY_SCOPES, required=True, help="write includes read, admin includes both"
        )
        parser.add_argument(
            "--library", action="append", help="the id of a library, or a beginning such as 'docs-*'; left out, all"
        )
        parser.add_argument("--days", type=float, help="the days until it expires; left out, it does not")

    def handle(self, *args: Any, **options: Any) -> None:
        name: str = options["name"].strip()
        if not 0 < len(name) <= KEY_NAME_MAX_LENGTH or "\0" in name:
            raise CommandError(f"The name must have 1 to {KEY_NAME_MAX_LENGTH} characters.")
        for pattern in options["library"] or ():
            try:
                check_pattern(pattern)
            except ValueError as error:
                raise CommandError(f"--library {pattern!r} {error}.") from None
        try:
            expires_at = None if options["days"] is None else timezone.now() + timedelta(days=options["days"])
        except (OverflowError, ValueError):
            raise CommandError(f"--days {options['days']} is no number of days that a calendar has.") from None
        if expires_at is not None and expires_at <= timezone.now():
            raise CommandError(f"--days {options['days']} would make a key that has expired.")
        made = create_key(name=name, scopes=[options["scope"]], libraries=options["library"], expires_at=expires_at)
        self.stdout.write(made.key)
