"""`manage.py createsuperuser`: an account for the admin."""

from django.contrib.auth.management.commands import createsuperuser

from apps.operations.management.base import DatabaseCommand


class Command(DatabaseCommand, createsuperuser.Command):
    """Django's."""
