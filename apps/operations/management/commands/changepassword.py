"""`manage.py changepassword`: a new password for an account of the admin."""

from django.contrib.auth.management.commands import changepassword

from apps.operations.management.base import AuditedCommand


class Command(AuditedCommand, changepassword.Command):
    """Django's."""
