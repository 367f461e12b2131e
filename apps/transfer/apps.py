"""App configuration: connects the signals."""

from typing import Any

from django.apps import AppConfig
from django.db.models.signals import post_delete


class TransferConfig(AppConfig):
    name = "apps.transfer"
    label = "transfer"

    def ready(self) -> None:
        from apps.libraries.models import Library

        post_delete.connect(_after_library_delete, sender=Library)


def _after_library_delete(instance: Any, **kwargs: Any) -> None:
    from apps.transfer.jobs import end_jobs_of_library

    end_jobs_of_library(instance)
