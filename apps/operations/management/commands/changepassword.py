"""`manage.py changepassword`: a new password for an account of the admin."""

from django.contrib.auth.management.commands import changepassword

from apps.operations.management.base import DatabaseCommand


class Command(DatabaseCommand, changepassword.Command):
    """Django's."""
