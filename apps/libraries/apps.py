"""App configuration: connects the signals."""

from django.apps import AppConfig


class LibrariesConfig(AppConfig):
    name = "apps.libraries"
    label = "libraries"
    verbose_name = "Libraries"

    def ready(self) -> None:
        from apps.libraries import signals

        signals.connect()
