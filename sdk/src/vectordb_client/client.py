"""The clients of a server."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2

from vectordb_client import _routes as routes
from vectordb_client._agents import headers_of
from vectordb_client._binding import Async, Resource, Sync, operation
from vectordb_client._core import RequestInfo, ResponseInfo, Retry, Session, Steps, build_request
from vectordb_client._runners import AsyncRunner, Runner
from vectordb_client.errors import InvalidArgument, error_of
from vectordb_client.jobs import AsyncBackups, AsyncJobs, Backups, Jobs
from vectordb_client.keys import AsyncAudit, AsyncKeys, Audit, Keys
from vectordb_client.libraries import AsyncLibraries, Libraries
from vectordb_client.library import AsyncLibrary, Library

# Of answers to messages that say what is wrong with them.
_WITH_ERRORS = (400, 404)
_DEFAULT_URL = "http://127.0.0.1:8000"


class _Client(Resource):
    """A client of the server at `url`, safe for many threads (AsyncClient: for many tasks).

    `url` and `api_key` are VECTORDB_URL and VECTORDB_API_KEY of the environment where they are left out, and
    http://127.0.0.1:8000. A search token is sent as a key is.

    `timeout` is in seconds, or one of httpx2's `Timeout(connect=, read=, write=, pool=)`. `retry` is a `Retry`, or how
    many attempts there are. `on_request` and `on_response` are called around each attempt. `transport`, `verify` and
    `proxy` are those of httpx2. Connections are kept and shared; a child of the process makes its own.

    >>> with Client(url, api_key=key) as client:
    ...     client.health()
    'ok'
    """

    # That of a local client.
    _folder: str | Path | None = None

    def __init__(
        self,
        url: str | None = None,
        api_key: str | None = None,
        *,
        timeout: float | httpx2.Timeout | None = 60.0,
        retry: Retry | int = Retry(),  # noqa: B008
        headers: Mapping[str, str] | None = None,
        max_connections: int = 100,
        verify: Any = True,
        proxy: Any = None,
        transport: Any = None,
        on_request: Callable[[RequestInfo], None] | None = None,
        on_response: Callable[[ResponseInfo], None] | None = None,
    ) -> None:
        self.url = _root(url if url is not None else os.environ.get("VECTORDB_URL") or _DEFAULT_URL)
        key = api_key if api_key is not None else os.environ.get("VECTORDB_API_KEY")
        policy = Retry(attempts=retry) if isinstance(retry, int) else retry
        limits = httpx2.Limits(
            max_connections=max_connections,
            max_keepalive_connections=max_connections,
            # Less than servers and proxies keep an idle one, so that none is used while it is being closed.
            keepalive_expiry=4.0,
        )
        options: dict[str, Any] = {
            "timeout": timeout if isinstance(timeout, httpx2.Timeout) else httpx2.Timeout(timeout),
            "limits": limits,
            # Certificates take long to load, and are for nothing here.
            "verify": verify if self.url.startswith("https:") else False,
            "proxy": proxy,
            "transport": transport,
        }
        sent = {"User-Agent": "vectordb-client", "Accept": "application/json", "Content-Type": "application/json"}
        if key:
            sent["Authorization"] = f"Bearer {key}"
        sent.update(headers or {})
        session = Session(policy, on_request, on_response)
        super().__init__(self._make_runner(session, self.url, sent, options))

    def _make_runner(self, session: Session, url: str, headers: dict[str, str], options: dict[str, Any]) -> Any:
        raise NotImplementedError

    def __repr__(self) -> str:
        name = type(self).__name__
        return f"{name}({self.url!r})" if self._folder is None else f"{name}.local({str(self._folder)!r})"

    @operation
    def health(self) -> Steps[str]:
        """Whether the server is alive: "ok"."""
        answer = yield from self._session.call(build_request(routes.health))
        return str(answer.json()["status"])

    @operation
    def ready(self) -> Steps[Mapping[str, str]]:
        """Whether the server can work: its checks by name; Unavailable where one fails."""
        answer = yield from self._session.call(build_request(routes.ready))
        checks: Mapping[str, str] = answer.json()["checks"]
        return checks

    @operation
    def metrics(self) -> Steps[str]:
        """The server's metrics, in the format of Prometheus."""
        answer = yield from self._session.call(build_request(routes.metrics))
        return answer.content.decode()

    @operation
    def mcp(self, message: Mapping[str, Any]) -> Steps[dict[str, Any] | None]:
        """The answer to a message of the Model Context Protocol, be it an error; None for a notification. The call of a
        tool is tried again as a write is: the server carries it out once."""
        request = replace(build_request(routes.mcp, body=message), headers=headers_of(message))
        once = None if message.get("method") == "tools/call" else Retry(attempts=1)
        answer = yield from self._session.call(request, once, answered=_WITH_ERRORS)
        if answer.status == 202:
            return None
        if not answer.headers.get("content-type", "").startswith("application/json"):
            raise error_of(answer.status, answer.headers, answer.content)
        found: dict[str, Any] = answer.json()
        return found


class Client(Sync, _Client):
    __doc__ = _Client.__doc__

    _runner: Runner

    @classmethod
    def local(cls, folder: str | Path, **options: Any) -> Client:
        """A client of the server in this process, without a port, on a data folder: for notebooks and tests.

        The server has to be installed in the same environment. A process has one data folder, which a server may have
        open, too. No key is asked for. `options` are those of a client.
        """
        from vectordb_client._local import URL, LocalTransport

        client = cls(URL, "", transport=LocalTransport(folder), **options)
        client._folder = folder
        return client

    def _make_runner(self, session: Session, url: str, headers: dict[str, str], options: dict[str, Any]) -> Runner:
        return Runner(session, url, headers, lambda: httpx2.Client(**options))

    @property
    def libraries(self) -> Libraries:
        """The libraries: create, get, list, update, delete."""
        return Libraries(self._runner)

    @property
    def keys(self) -> Keys:
        """The API keys."""
        return Keys(self._runner)

    @property
    def jobs(self) -> Jobs:
        """The jobs of the server."""
        return Jobs(self._runner)

    @property
    def backups(self) -> Backups:
        """The backups of the server."""
        return Backups(self._runner)

    @property
    def audit(self) -> Audit:
        """Who changed what."""
        return Audit(self._runner)

    def library(self, id: str) -> Library:
        """The library of this id; nothing is asked of the server."""
        return Library(self._runner, id)

    def close(self) -> None:
        """Close all connections."""
        self._runner.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


class AsyncClient(Async, _Client):
    """As `Client`: the same names, to be awaited, and lists for `async for`. Each event loop that
    uses one has connections of its own; `close` closes those of the loop that calls it."""

    _runner: AsyncRunner

    @classmethod
    def local(cls, folder: str | Path, **options: Any) -> AsyncClient:
        """As `Client.local`."""
        from vectordb_client._local import URL, LocalTransport

        client = cls(URL, "", transport=LocalTransport(folder), **options)
        client._folder = folder
        return client

    def _make_runner(self, session: Session, url: str, headers: dict[str, str], options: dict[str, Any]) -> AsyncRunner:
        return AsyncRunner(session, url, headers, lambda: httpx2.AsyncClient(**options))

    @property
    def libraries(self) -> AsyncLibraries:
        """The libraries: create, get, list, update, delete."""
        return AsyncLibraries(self._runner)

    @property
    def keys(self) -> AsyncKeys:
        """The API keys."""
        return AsyncKeys(self._runner)

    @property
    def jobs(self) -> AsyncJobs:
        """The jobs of the server."""
        return AsyncJobs(self._runner)

    @property
    def backups(self) -> AsyncBackups:
        """The backups of the server."""
        return AsyncBackups(self._runner)

    @property
    def audit(self) -> AsyncAudit:
        """Who changed what."""
        return AsyncAudit(self._runner)

    def library(self, id: str) -> AsyncLibrary:
        """The library of this id; nothing is asked of the server."""
        return AsyncLibrary(self._runner, id)

    async def close(self) -> None:
        """Close all connections."""
        await self._runner.close()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.close()


def _root(url: str) -> str:
    root = url.rstrip("/").removesuffix("/api/v1")
    if not root.startswith(("http://", "https://")):
        raise InvalidArgument(f"url: {url!r} must begin with http:// or https://, such as {_DEFAULT_URL}")
    return root
