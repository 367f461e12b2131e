"""Settings for the tests, which wait for nothing, and a service on the network that says what a test tells it to."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pytest_django.fixtures import Settings

from apps.embeddings import registry
from apps.embeddings.config import Config
from apps.embeddings.services import query_embedder
from tests.embeddings.service import Service


@pytest.fixture(autouse=True)
def configure(settings: Settings) -> Iterator[Callable[..., Config]]:
    """Set settings by name; the others have their defaults."""

    def configured(**values: Any) -> Config:
        settings.EMBEDDINGS = Config(**{"first_wait": 0.001} | values)
        return settings.EMBEDDINGS

    configured()
    yield configured
    registry.forget()
    query_embedder.cache_clear()


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with Service() as running:
        yield running
