"""A server for all tests of the client, and clients of all kinds."""

import itertools
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from blocking import Blocking
from tests.server import Server, serving

from vectordb_client import AsyncClient, Client, Library

_numbers = itertools.count()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A real server of one worker, which no test harms."""
    with serving(tmp_path_factory.mktemp("server") / "data", VECTORDB_WORKERS=1) as running:
        yield running


@pytest.fixture(scope="session")
def key(server: Server) -> str:
    """The admin key of the server."""
    return (server.folder / "admin_key").read_text().strip()


@pytest.fixture(scope="session")
def client(server: Server, key: str) -> Iterator[Client]:
    """A client of the server, which many tests share."""
    with Client(server.url, key) as client:
        yield client


@pytest.fixture(scope="session")
def local_folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data folder of all local clients: a process has one."""
    # As for a user whose script lies beside the server's checkout.
    sys.path.append(str(request.config.rootpath.parent))
    return tmp_path_factory.mktemp("local")


@pytest.fixture(scope="session", params=["sync", "async", "local", "async-local"])
def any_client(request: pytest.FixtureRequest) -> Iterator[Client]:
    """A client of each kind; what an AsyncClient returns is awaited."""
    made: Client | AsyncClient
    kind: type[Client | AsyncClient] = AsyncClient if "async" in request.param else Client
    if "local" in request.param:
        made = kind.local(request.getfixturevalue("local_folder"))
    else:
        made = kind(request.getfixturevalue("server").url, request.getfixturevalue("key"))
    with made if isinstance(made, Client) else Blocking(made) as client:
        yield client  # type: ignore[misc]


@pytest.fixture
def library(client: Client) -> Library:
    """A new library of dimension 3."""
    return client.libraries.create(f"library-{next(_numbers)}", dimension=3)
