"""Fixtures of the API tests: one client for all, since making one costs more than most requests."""

from collections.abc import Iterator

import httpx
import pytest

from tests.server import Server


@pytest.fixture(scope="session")
def client(server: Server) -> Iterator[httpx.Client]:
    """A client of the shared server."""
    with server.client() as client:
        yield client


@pytest.fixture(scope="module")
def shared(client: httpx.Client, request: pytest.FixtureRequest) -> str:
    """The id of a library of dimension 3 under cosine, for the tests of one module that leave it as it is: it has the
    document `doc` with the chunk `kept`, and the chunk `alone`."""
    library_id = f"shared-{request.module.__name__.rpartition('.')[2]}"
    client.post("/libraries", json={"id": library_id, "name": "Shared", "dimension": 3}).raise_for_status()
    library = f"/libraries/{library_id}"
    document = {"id": "doc", "title": "Doc", "chunks": [{"id": "kept", "text": "kept", "embedding": [1, 0, 0]}]}
    client.post(f"{library}/documents", json=document).raise_for_status()
    alone = {"id": "alone", "text": "alone", "embedding": [0, 1, 0]}
    client.post(f"{library}/chunks", json={"chunks": [alone]}).raise_for_status()
    return library_id


@pytest.fixture
def chunks(library: str) -> str:
    """The path of a new library's chunks."""
    return f"/libraries/{library}/chunks"


@pytest.fixture
def documents(library: str) -> str:
    """The path of a new library's documents."""
    return f"/libraries/{library}/documents"
