"""Fixtures of the tests of maintenance."""

import logging
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.conf import settings

from apps.engine.indexes import registry
from apps.libraries.models import Library
from tests.indexing.maintained import Clock, make_library
from tests.indexing.slow_type import Slow
from tests.search.database import execute


@pytest.fixture(autouse=True)
def index_dir(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Index files in a folder of the test's own."""
    monkeypatch.setattr(settings, "INDEX_DIR", tmp_path / "index")
    return tmp_path / "index"


@pytest.fixture(autouse=True)
def warnings_only(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, logger="apps")


@pytest.fixture
def clock() -> Clock:
    """A clock that stands still until the test moves it."""
    return Clock()


@pytest.fixture
def library() -> Library:
    """An empty library of dimension 3, under L2 and brute force."""
    return make_library()


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Slow]]:
    """A type of the registry that is built when the test says so."""
    monkeypatch.setitem(registry.INDEX_TYPES, "slow", f"{Slow.__module__}:{Slow.__name__}")
    Slow.may_end, Slow.has_checkpoints, Slow.builds, Slow.cancelled, Slow.error = threading.Event(), True, 0, 0, None
    yield Slow
    Slow.may_end.set()


@pytest.fixture
def slow_library(library: Library, slow: type[Slow]) -> Library:
    """The library, of the type whose index is built when the test says so."""
    execute("UPDATE vectordb_library SET index_type = 'slow'")
    return library


@pytest.fixture
def no_room(library: Library, index_dir: Path) -> Path:
    """A file where the folder of segments would be, so that none can be written."""
    (index_dir / library.uid).mkdir(parents=True)
    (index_dir / library.uid / "segments").touch()
    return index_dir / library.uid / "segments"
