"""App configuration: lets the cache hear of writes."""

from django.apps import AppConfig


class SearchConfig(AppConfig):
    name = "apps.search"
    label = "search"

    def ready(self) -> None:
        from apps.search import cache

        cache.connect()
