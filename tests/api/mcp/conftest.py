"""Fixtures of the tests of agents: a server that lets them write, and callers of it."""

from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import httpx
import pytest

from tests.access.callers import bearer, make_key
from tests.server import Server, serving

CHARACTERS = 8000
# Items of an answer of that length.
MOST = 7

Call: TypeAlias = Callable[..., dict[str, Any]]


@pytest.fixture(scope="session")
def agents(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server where agents may write, and read little at once."""
    settings = {"VECTORDB_MCP_WRITE": 1, "VECTORDB_MAX_TOOL_CHARACTERS": CHARACTERS}
    with serving(tmp_path_factory.mktemp("agents") / "data", **settings) as running:
        yield running


@pytest.fixture(scope="session")
def client(agents: Server) -> Iterator[httpx.Client]:
    """A client of that server's API."""
    with agents.client() as client:
        yield client


def ask(client: httpx.Client, method: str, params: Any = None, headers: Any = None, **others: Any) -> httpx.Response:
    """A message, and the response to it."""
    message = {"jsonrpc": "2.0", "id": 1, "method": method} | ({} if params is None else {"params": params})
    return client.post(client.base_url.copy_with(path="/mcp"), json=message | others, headers=headers)


def caller(client: httpx.Client, credential: str) -> Call:
    """Calls tools with a key or a token: the result of each."""

    def call(name: str, **arguments: Any) -> dict[str, Any]:
        response = ask(client, "tools/call", {"name": name, "arguments": arguments}, bearer(credential))
        result: dict[str, Any] = response.raise_for_status().json()["result"]
        return result

    return call


@pytest.fixture
def call(client: httpx.Client) -> Call:
    """Calls tools with a new key that may do everything: what each gives."""
    call = caller(client, make_key(client, "admin")["key"])

    def checked(name: str, **arguments: Any) -> dict[str, Any]:
        result = call(name, **arguments)
        assert not result["isError"], result
        data: dict[str, Any] = result["structuredContent"]
        return data

    return checked
