"""The I/O: two loops that do what steps ask for, by an HTTP client each."""

from __future__ import annotations

import asyncio
import os
import threading
import time
import weakref
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import httpx2

from vectordb_client._core import Answer, Request, Send, Session, Sleep, Steps
from vectordb_client.errors import ConnectionFailed, RequestTimedOut, VectorDBError

T = TypeVar("T")

_BLOCK = 1 << 18

_after_fork: weakref.WeakSet[Any] = weakref.WeakSet()


def _forget_pools() -> None:
    for runner in list(_after_fork):
        runner.forget_pool()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pools)


class _Base:
    """`make` makes the HTTP client when it is first needed, and again in a child of the process: connections that two
    processes read from would mix up their answers."""

    def __init__(self, session: Session, root: str, headers: Mapping[str, str], make: Callable[[], Any]) -> None:
        self.session, self.root = session, root
        self._headers, self._make = dict(headers), make
        self.forget_pool()
        self._is_closed = False
        # Parsing an address takes longer than the rest of a request; a client uses few.
        self._addresses: dict[str, httpx2.URL] = {}
        _after_fork.add(self)

    def forget_pool(self) -> None:
        self._http: Any = None
        # A thread that is not in this process may hold the one before.
        self._opening = threading.Lock()

    def _request(self, send: Send, content: Any) -> httpx2.Request:
        request = send.request
        headers = self._headers | dict(send.headers)
        if request.source is not None:
            headers["Content-Length"] = str(request.source.stat().st_size)
        address = self._addresses.get(request.target)
        if address is None:
            if len(self._addresses) >= 1000:
                self._addresses.clear()
            address = self._addresses[request.target] = httpx2.URL(self.root + request.target)
        return httpx2.Request(request.route.method, address, headers=headers, content=content)

    def _check_open(self) -> None:
        if self._is_closed:
            raise VectorDBError("The client is closed.")


class Runner(_Base):
    """Runs steps by a blocking client."""

    def run(self, steps: Steps[T], stop: threading.Event | None = None) -> T:
        """Do what the steps ask for; return their result. Raise VectorDBError between two of them once `stop` is
        set."""
        try:
            effect = next(steps)
            while True:
                if stop is not None and stop.is_set():
                    raise VectorDBError("It was stopped.")
                if isinstance(effect, Sleep):
                    (time.sleep if stop is None else stop.wait)(effect.seconds)
                    effect = steps.send(None)
                    continue
                try:
                    answer = self._send(effect)
                except ConnectionFailed as error:
                    effect = steps.throw(error)
                else:
                    effect = steps.send(answer)
        except StopIteration as end:
            result: T = end.value
            return result
        finally:
            # Not when the last reference to a traceback is gone: steps clean up behind them.
            steps.close()

    def _send(self, send: Send) -> Answer:
        self._check_open()
        http: httpx2.Client = self._http or self._open()
        request = send.request
        try:
            content = request.body if request.source is None else _blocks(request.source)
            if request.sink is None:
                response = http.send(self._request(send, content))
                return Answer(response.status_code, response.headers, response.content)
            response = http.send(self._request(send, content), stream=True)
            try:
                if response.status_code != 200:
                    return Answer(response.status_code, response.headers, response.read())
                with request.sink.open("wb") as sink:
                    for block in response.iter_bytes(_BLOCK):
                        sink.write(block)
                return Answer(response.status_code, response.headers, b"")
            finally:
                response.close()
        except (httpx2.TransportError, httpx2.DecodingError) as error:
            raise connection_error(error, request, self.root) from error

    def _open(self) -> httpx2.Client:
        with self._opening:
            http: httpx2.Client = self._http or self._make()
            self._http = http
            return http

    def close(self) -> None:
        if not self._is_closed:
            # A transport that was given is to be closed where nothing was asked, too.
            http: httpx2.Client = self._http or self._open()
            self._is_closed = True
            http.close()


class AsyncRunner(_Base):
    """Runs steps by clients of asyncio: each event loop has one, as a connection belongs to the loop that made it."""

    def forget_pool(self) -> None:
        super().forget_pool()
        self._of_loops: dict[asyncio.AbstractEventLoop, httpx2.AsyncClient] = {}

    async def run(self, steps: Steps[T]) -> T:
        """Do what the steps ask for; return their result."""
        try:
            effect = next(steps)
            while True:
                if isinstance(effect, Sleep):
                    await asyncio.sleep(effect.seconds)
                    effect = steps.send(None)
                    continue
                try:
                    answer = await self._send(effect)
                except ConnectionFailed as error:
                    effect = steps.throw(error)
                else:
                    effect = steps.send(answer)
        except StopIteration as end:
            result: T = end.value
            return result
        finally:
            steps.close()

    async def _send(self, send: Send) -> Answer:
        self._check_open()
        http = self._of_loops.get(asyncio.get_running_loop()) or self._open()
        request = send.request
        try:
            content = request.body if request.source is None else _async_blocks(request.source)
            if request.sink is None:
                response = await http.send(self._request(send, content))
                return Answer(response.status_code, response.headers, response.content)
            response = await http.send(self._request(send, content), stream=True)
            try:
                if response.status_code != 200:
                    return Answer(response.status_code, response.headers, await response.aread())
                with request.sink.open("wb") as sink:
                    async for block in response.aiter_bytes(_BLOCK):
                        sink.write(block)
                return Answer(response.status_code, response.headers, b"")
            finally:
                await response.aclose()
        except (httpx2.TransportError, httpx2.DecodingError) as error:
            raise connection_error(error, request, self.root) from error

    def _open(self) -> httpx2.AsyncClient:
        http: httpx2.AsyncClient = self._make()
        # Those of loops that have ended can be used no more.
        self._of_loops = {loop: one for loop, one in self._of_loops.items() if not loop.is_closed()}
        self._of_loops[asyncio.get_running_loop()] = http
        return http

    async def close(self) -> None:
        loop = asyncio.get_running_loop()
        if not self._of_loops and not self._is_closed:
            self._of_loops[loop] = self._make()
        self._is_closed = True
        http = self._of_loops.pop(loop, None)
        if http is not None:
            await http.aclose()


def connection_error(error: Exception, request: Request, root: str) -> ConnectionFailed:
    """The error of this package for one of httpx2's."""
    what, reason = f"{request.route.method} {root}{request.target}", str(error) or type(error).__name__
    if isinstance(error, httpx2.ConnectTimeout | httpx2.PoolTimeout):
        failed: ConnectionFailed = RequestTimedOut(f"{what}: no connection in time ({type(error).__name__})")
        failed.is_sent = False
    elif isinstance(error, httpx2.TimeoutException):
        failed = RequestTimedOut(f"{what}: no answer in time ({type(error).__name__}); timeout= of the client sets it")
    elif isinstance(error, httpx2.ConnectError):
        failed = ConnectionFailed(
            f"{what}: {reason}. Does the server run there? url= or VECTORDB_URL says where it is."
        )
        failed.is_sent = False
    else:
        failed = ConnectionFailed(f"{what}: {reason}")
        failed.is_sent = not isinstance(error, httpx2.UnsupportedProtocol | httpx2.ProxyError)
    return failed


def _blocks(file: Path) -> Iterator[bytes]:
    with file.open("rb") as source:
        while block := source.read(_BLOCK):
            yield block


async def _async_blocks(file: Path) -> AsyncIterator[bytes]:
    for block in _blocks(file):
        yield block
