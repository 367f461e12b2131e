"""What commands share that change something."""

from typing import Any

from django.core.management.base import BaseCommand

from apps.access.requests import Principal, current_principal


class AuditedCommand(BaseCommand):
    """A command whose changes are in the audit trail, under its own name."""

    def execute(self, *args: Any, **options: Any) -> str | None:
        command = type(self).__module__.rpartition(".")[2]
        before = current_principal.set(Principal(f"manage.py {command}", frozenset(["admin"])))
        try:
            return super().execute(*args, **options)
        finally:
            current_principal.reset(before)
