"""The server in this process, without a port: one thread pool that calls its WSGI application.

The server reads its settings when it is imported, so a process has one data folder. Index files are built, jobs run,
and expired chunks deleted by the server's own maintenance, in a child process that begins some seconds after the folder
was opened and ends with this process; a short script never has one. Until then all answers are the same, from exact
scans.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes

import httpx2

from vectordb_client.errors import InvalidArgument, VectorDBError

URL = "http://localhost"
_THREADS = 4
_SECONDS_TO_MAINTENANCE = 5.0

_lock = threading.Lock()
_server: _Server | None = None


class LocalTransport(httpx2.BaseTransport, httpx2.AsyncBaseTransport):
    """Requests to the server of a data folder in this process; raise InvalidArgument where it cannot be had."""

    def __init__(self, folder: str | Path) -> None:
        self._server = _open(Path(folder).expanduser().resolve())
        self._is_closed = False

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        return self._server.pool().submit(self._server.answer, request).result()

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        await request.aread()
        return await asyncio.wrap_future(self._server.pool().submit(self._server.answer, request))

    def close(self) -> None:
        if not self._is_closed:
            self._is_closed = True
            self._server.release()

    async def aclose(self) -> None:
        await asyncio.get_running_loop().run_in_executor(None, self.close)


class _Server:
    """The server of a folder, for as long as clients use it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self._process_id, self._users = folder, os.getpid(), 0
        self._application = _load(folder)
        self._pool: ThreadPoolExecutor | None = None
        self._timer: threading.Timer | None = None
        self._maintenance: subprocess.Popen[bytes] | None = None

    def pool(self) -> ThreadPoolExecutor:
        """The threads that answer; raise VectorDBError in a child of the process that opened the folder."""
        if os.getpid() != self._process_id or self._pool is None:
            raise VectorDBError(
                "A local client works in the process that made it, until it is closed: make another here."
            )
        return self._pool

    def answer(self, request: httpx2.Request) -> httpx2.Response:
        """Answer a request, in the thread that calls."""
        path = unquote_to_bytes(request.url.raw_path.partition(b"?")[0]).decode("latin-1")

        def application(environ: dict[str, Any], start_response: Any) -> Any:
            # httpx2 gives characters there, where WSGI has bytes.
            return self._application({**environ, "PATH_INFO": path}, start_response)

        response = httpx2.WSGITransport(application).handle_request(request)
        response.read()
        return httpx2.Response(response.status_code, headers=response.headers, content=response.content)

    def use(self) -> None:
        self._users += 1
        if self._pool is None:
            self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="vectordb-local")
            self._timer = threading.Timer(_SECONDS_TO_MAINTENANCE, self._maintain)
            self._timer.daemon = True
            self._timer.start()

    def release(self) -> None:
        with _lock:
            self._users -= 1
            if self._users or self._pool is None or self._timer is None:
                return
            pool, self._pool = self._pool, None
            self._timer.cancel()
            # Each thread has connections of its own to the database.
            together = threading.Barrier(_THREADS)
            for _ in range(_THREADS):
                pool.submit(_close_connections, together)
            pool.shutdown()
            if self._maintenance is not None:
                self._maintenance.communicate()
                self._maintenance = None

    def _maintain(self) -> None:
        with _lock:
            if self._pool is not None and self._maintenance is None:
                self._maintenance = subprocess.Popen(
                    [sys.executable, "-m", "django", "maintain", "--child"],
                    env=os.environ | _settings(self.folder) | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
                    stdin=subprocess.PIPE,
                )


def _open(folder: Path) -> _Server:
    global _server
    with _lock:
        if _server is None:
            _server = _Server(folder)
        elif _server.folder != folder:
            raise InvalidArgument(
                f"this process has opened {str(_server.folder)!r} already, and can open no other data folder: "
                "use another process, or a server"
            )
        _server.use()
        return _server


def _load(folder: Path) -> Any:
    """The server's WSGI application, on a migrated database."""
    if importlib.util.find_spec("vectordb") is None or importlib.util.find_spec("vectordb.wsgi") is None:
        raise InvalidArgument(
            "Client.local runs the server in this process, which does not find it: install vectordb-server, or put its "
            "checkout on PYTHONPATH"
        )
    from django.conf import settings
    from django.core.exceptions import ImproperlyConfigured

    if settings.configured:
        raise InvalidArgument("Client.local runs a Django project in this process, which has one already: use a server")
    with _environment(_settings(folder)), _own_logging():
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            from vectordb.wsgi import application
        except (ImproperlyConfigured, OSError, SystemExit) as error:
            raise InvalidArgument(f"the data folder {str(folder)!r} cannot be opened: {error}") from error
        from django.core.management import call_command

        call_command("migrate", verbosity=0, interactive=False)
    from django.db import connections

    connections.close_all()
    return application


def _settings(folder: Path) -> dict[str, str]:
    """The environment that the server reads. What is not here is as it is set for a server."""
    return {
        "DJANGO_SETTINGS_MODULE": "vectordb.settings",
        "DATABASE_URL": "",
        "VECTORDB_DATA_DIR": str(folder),
        "VECTORDB_AUTH": "off",
        "VECTORDB_BIND": "127.0.0.1:8000",
        "VECTORDB_BASE_PATH": "",
        "VECTORDB_ALLOWED_HOSTS": "localhost",
        "VECTORDB_LOG_LEVEL": os.environ.get("VECTORDB_LOG_LEVEL", "warning"),
    }


@contextlib.contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    """The environment with these values, while the block runs."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextlib.contextmanager
def _own_logging() -> Iterator[None]:
    """Logging of this process as it was: the server's settings put handlers of their own."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    try:
        yield
    finally:
        root.handlers[:], root.level = handlers, level


def _close_connections(together: threading.Barrier) -> None:
    from django.db import connections

    together.wait()
    connections.close_all()
