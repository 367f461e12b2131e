"""App configuration: connects the signals."""

from django.apps import AppConfig


class AccessConfig(AppConfig):
    name = "apps.access"
    label = "access"
    verbose_name = "Access"

    def ready(self) -> None:
        from apps.access import account_changes, logins

        account_changes.connect()
        logins.connect()
