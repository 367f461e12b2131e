"""A server for all tests of the client, and clients of the three kinds."""

import itertools
import sys
from collections.abc import Iterator

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


@pytest.fixture(scope="session", params=["sync", "async", "local"])
def any_client(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A client of each kind; what an AsyncClient returns is awaited."""
    if request.param == "local":
        # As for a user whose script lies beside the server's checkout.
        sys.path.append(str(request.config.rootpath.parent))
        with Client.local(tmp_path_factory.mktemp("local")) as client:
            yield client
        return
    server: Server = request.getfixturevalue("server")
    key: str = request.getfixturevalue("key")
    if request.param == "sync":
        with Client(server.url, key) as client:
            yield client
    else:
        with Blocking(AsyncClient(server.url, key)) as blocking:
            yield blocking  # type: ignore[misc]


@pytest.fixture
def library(client: Client) -> Library:
    """A new library of dimension 3."""
    return client.libraries.create(f"library-{next(_numbers)}", dimension=3)
