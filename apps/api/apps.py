"""App configuration: registers the schema extension."""

from django.apps import AppConfig


class ApiConfig(AppConfig):
    name = "apps.api"
    label = "api"

    def ready(self) -> None:
        from apps.api import openapi  # noqa: F401  (drf-spectacular finds extensions by their being imported)
