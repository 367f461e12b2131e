"""Fixtures that all tests share."""

import itertools
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from django.contrib.contenttypes.management import create_contenttypes
from django.contrib.contenttypes.models import ContentType
from django.db.models.signals import post_migrate

from apps.engine import kernels
from tests.server import Server, serving

pytest.register_assert_rewrite("tests.api.problems")

_numbers = itertools.count()


@pytest.fixture(scope="session", autouse=True)
def _load_kernels() -> None:
    """Searches are as in a worker that is up. Once compiled, the kernels are there for the tests' servers too, which
    may stop before a compiler of their own has finished."""
    kernels.load()


@pytest.fixture(scope="session")
def django_db_setup(django_db_setup: None) -> None:
    """The test database. Each time that a test empties it, Django would write all permissions and content types again,
    which costs more than many a test. A test that needs permissions makes them."""
    assert post_migrate.disconnect(create_contenttypes)
    assert post_migrate.disconnect(dispatch_uid="django.contrib.auth.management.create_permissions")
    post_migrate.connect(_forget_content_types)


def _forget_content_types(**_: object) -> None:
    """The rows are gone, and their ids are cached."""
    ContentType.objects.clear_cache()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server of two workers for all tests that do not harm it; each makes libraries of its own."""
    with serving(tmp_path_factory.mktemp("server") / "data") as running:
        yield running


@pytest.fixture
def client(server: Server) -> Iterator[httpx.Client]:
    """A client of the shared server."""
    with server.client() as client:
        yield client


@pytest.fixture
def library(client: httpx.Client) -> str:
    """The id of a new library of dimension 3 under cosine."""
    library_id = f"library-{next(_numbers)}"
    client.post("/libraries", json={"id": library_id, "name": "Test", "dimension": 3}).raise_for_status()
    return library_id


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A data folder that does not exist yet."""
    return tmp_path / "data"


@pytest.fixture
def small_disk(folder: Path) -> Iterator[Path]:
    """A data folder on a disk of 64 MB."""
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", folder], check=False).returncode:
        pytest.skip("needs the right to mount")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)
