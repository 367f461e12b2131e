"""App configuration."""

import contextlib
import sys
from collections.abc import Iterator

from django.apps import AppConfig

# What REST framework imports for features of its own that nothing here uses, if it is installed.
_UNUSED = ("django.contrib.postgres", "pygments", "requests", "yaml")


class ApiConfig(AppConfig):
    name = "apps.api"
    label = "api"

    def ready(self) -> None:
        # Those packages, psycopg among them, would take a tenth of a start and memory of each process.
        with _hidden(_UNUSED):
            import rest_framework.compat  # noqa: F401


@contextlib.contextmanager
def _hidden(packages: tuple[str, ...]) -> Iterator[None]:
    """Let no package of these be found that nobody has imported yet."""
    hidden = [package for package in packages if package not in sys.modules]
    # None is how Python marks what is not to be found.
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]
    try:
        yield
    finally:
        for package in hidden:
            del sys.modules[package]
