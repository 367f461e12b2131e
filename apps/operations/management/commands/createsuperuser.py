"""`manage.py createsuperuser`: an account for the admin."""

from django.contrib.auth.management.commands import createsuperuser

from apps.operations.management.base import AuditedCommand


class Command(AuditedCommand, createsuperuser.Command):
    """Django's."""
