"""Libraries in index files, for the tests of storage."""

from pathlib import Path

import pytest

from apps.engine.indexes.registry import INDEX_TYPES
from tests.engine.storage.stored import StoredLibrary, store_library


@pytest.fixture(scope="module", params=INDEX_TYPES)
def original(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> StoredLibrary:
    """The files of a library of each type; a test that changes them changes a copy."""
    return store_library(tmp_path_factory.mktemp("original") / "index", request.param)


@pytest.fixture
def plain(tmp_path: Path) -> StoredLibrary:
    """The files of a library under brute force, which a test may change."""
    return store_library(tmp_path / "index")
