"""The server in this process, without a port: one thread pool that calls its WSGI application.

The server reads its settings when it is imported, so a process has one data folder. Index files are built, jobs run,
and expired chunks deleted by the server's own maintenance, in a child process that begins some seconds after the folder
was opened and ends with this process; a short script never has one. Until then all answers are the same, from exact
scans.

Django runs in threads of its own alone: it refuses a thread with a running event loop, as that of each notebook.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import importlib.util
import logging
import os
import queue
import subprocess
import sys
import tempfile
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any, cast
from urllib.parse import unquote_to_bytes

import httpx2

from vectordb_client.errors import InvalidArgument, VectorDBError

URL = "http://localhost"
_THREADS = 4
# Of a streamed answer that wait to be taken.
_BLOCKS = 4
_SECONDS_TO_MAINTENANCE = 5.0

_lock = threading.Lock()
_server: _Server | None = None
# Of the settings that this process has read, be it that the folder could not be opened then.
_configured: Path | None = None


class LocalTransport(httpx2.BaseTransport, httpx2.AsyncBaseTransport):
    """Requests to the server of a data folder in this process; raise InvalidArgument where it cannot be had."""

    def __init__(self, folder: str | Path) -> None:
        self._server = _open(Path(folder).expanduser().resolve())
        self._is_closed = False

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        with self._server.file_for(request) as file:
            if file is not None:
                for block in cast(httpx2.SyncByteStream, request.stream):
                    file.write(block)
            answered = self._server.send(request, file)
            try:
                return answered.result()
            except BaseException:
                answered.add_done_callback(_discard)
                raise

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        with self._server.file_for(request) as file:
            if file is None:
                await request.aread()
            else:
                async for block in cast(httpx2.AsyncByteStream, request.stream):
                    file.write(block)
            answered = self._server.send(request, file)
            try:
                return await asyncio.wrap_future(answered)
            except BaseException:
                answered.add_done_callback(_discard)
                raise

    def close(self) -> None:
        if not self._is_closed:
            self._is_closed = True
            self._server.release()

    async def aclose(self) -> None:
        await asyncio.get_running_loop().run_in_executor(None, self.close)


class _Blocks(httpx2.SyncByteStream, httpx2.AsyncByteStream):
    """A body that one thread makes while another takes it; few blocks wait in between."""

    def __init__(self) -> None:
        self._queue: queue.Queue[bytes | Exception | None] = queue.Queue(_BLOCKS)
        self._is_closed = threading.Event()

    def fill(self, blocks: Iterator[bytes]) -> None:
        """Pass all blocks on, until nobody takes them any more."""
        end: Exception | None = None
        try:
            for block in blocks:
                self._queue.put(block)
                if self._is_closed.is_set():
                    return
        except Exception as error:
            # A server would hang up.
            end = httpx2.ReadError(f"the answer broke off: {error!r}")
        self._queue.put(end)

    def __iter__(self) -> Iterator[bytes]:
        while (block := self._queue.get()) is not None:
            if isinstance(block, Exception):
                raise block
            yield block

    async def __aiter__(self) -> AsyncIterator[bytes]:
        blocks = iter(self)
        loop = asyncio.get_running_loop()
        while (block := await loop.run_in_executor(None, next, blocks, None)) is not None:
            yield block

    def close(self) -> None:
        self._is_closed.set()
        # Whoever waits to put a block has room, and whoever waits for one has the end.
        with contextlib.suppress(queue.Empty):
            while True:
                self._queue.get_nowait()
        with contextlib.suppress(queue.Full):
            self._queue.put_nowait(None)

    async def aclose(self) -> None:
        self.close()


def _discard(answered: Future[httpx2.Response]) -> None:
    """Let go of an answer that nobody waits for any more."""
    if answered.exception() is None:
        stream = answered.result().stream
        if isinstance(stream, _Blocks):
            stream.close()


class _Server:
    """The server of a folder, for as long as clients use it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self._process_id, self._users = folder, os.getpid(), 0
        with ThreadPoolExecutor(1) as thread:
            self._application = thread.submit(_load, folder).result()
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

    @contextlib.contextmanager
    def file_for(self, request: httpx2.Request) -> Iterator[IO[bytes] | None]:
        """A file of the data folder for a body that comes in blocks, as that of an import does; None for others. It is
        deleted behind the block, unless the server has moved it."""
        if isinstance(request.stream, httpx2.ByteStream):
            yield None
            return
        folder = self.folder / "uploads"
        folder.mkdir(mode=0o700, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, delete=False) as file:
            try:
                # A server that starts on the folder deletes what is not locked.
                fcntl.flock(file, fcntl.LOCK_SH)
                yield file.file
            finally:
                Path(file.name).unlink(missing_ok=True)

    def send(self, request: httpx2.Request, file: IO[bytes] | None) -> Future[httpx2.Response]:
        """Have a request answered by a thread of the pool; the answer is there once its body begins. The request's body
        is in `file` where there is one."""
        answered: Future[httpx2.Response] = Future()
        answered.set_running_or_notify_cancel()
        more: dict[str, Any] = {}
        if file is not None:
            file.flush()
            # As the server's own HTTP edge gives it.
            more = {"CONTENT_LENGTH": "0", "vectordb.body_file": Path(file.name)}
            request = httpx2.Request(request.method, request.url, headers=request.headers)
        self.pool().submit(self._answer, request, more, answered)
        return answered

    def _answer(self, request: httpx2.Request, more: dict[str, Any], answered: Future[httpx2.Response]) -> None:
        """Answer a request, with `more` in its environment. What is streamed is read here, too: the thread has the
        connection that it is read by."""
        path = unquote_to_bytes(request.url.raw_path.partition(b"?")[0]).decode("latin-1")
        is_streamed = False

        def application(environ: dict[str, Any], start_response: Any) -> Any:
            nonlocal is_streamed
            # httpx2 gives characters there, where WSGI has bytes.
            result = self._application({**environ, "PATH_INFO": path, **more}, start_response)
            is_streamed = getattr(result, "streaming", False)
            return result

        try:
            response = httpx2.WSGITransport(application).handle_request(request)
            body: Any = _Blocks() if is_streamed else response.read()
        except BaseException as error:
            answered.set_exception(error)
            return
        content = {"stream" if is_streamed else "content": body}
        answered.set_result(httpx2.Response(response.status_code, headers=response.headers, **content))
        if is_streamed:
            with contextlib.closing(response):
                body.fill(response.iter_raw())

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
        if _configured not in (None, folder):
            begun = "has opened" if _server is not None else "has tried to open"
            raise InvalidArgument(
                f"this process {begun} {str(_configured)!r} already, and can open no other data folder: "
                "use another process, or a server"
            )
        if _server is None:
            _server = _Server(folder)
        _server.use()
        return _server


def _load(folder: Path) -> Any:
    """The server's WSGI application, on a migrated database. What failed can be tried again."""
    global _configured
    if importlib.util.find_spec("vectordb") is None or importlib.util.find_spec("vectordb.application") is None:
        raise InvalidArgument(
            "Client.local runs the server in this process, which does not find it: install vectordb-server, or put its "
            "checkout on PYTHONPATH"
        )
    from django.conf import settings
    from django.core.exceptions import ImproperlyConfigured

    if settings.configured and _configured is None:
        raise InvalidArgument("Client.local runs a Django project in this process, which has one already: use a server")
    with _environment(_settings(folder)), _own_logging():
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            from vectordb.application import application
        except (ImproperlyConfigured, OSError, SystemExit) as error:
            raise InvalidArgument(f"the data folder {str(folder)!r} cannot be opened: {error}") from error
        finally:
            if settings.configured:
                _configured = folder
        from django.core.management import CommandError, call_command
        from django.db import Error, connections

        try:
            call_command("migrate", verbosity=0, interactive=False)
        except (CommandError, Error, ImproperlyConfigured) as error:
            raise InvalidArgument(f"the data folder {str(folder)!r} cannot be opened: {error}") from error
        finally:
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
