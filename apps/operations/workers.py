"""gunicorn's workers, as they are here: what is no HTTP, or fails, is answered with a problem document. A slow client
keeps no worker that has one thread, and a thread of one that has several for a limited time.
"""

import contextlib
import errno
import os
import socket
import time
import uuid
from functools import lru_cache
from typing import Any

import orjson
from django.conf import settings
from gunicorn import SERVER, util
from gunicorn.http.errors import ParseException
from gunicorn.workers.gthread import ThreadWorker
from gunicorn.workers.sync import SyncWorker

from apps.operations.arrival import Arrival
from apps.operations.clients import BYTES_A_SECOND, SECONDS, Clients
from vectordb.logs import current_request_id

# To show life is a call of the system, which not every request need pay for.
_SECONDS_BETWEEN_SIGNS = 0.1


class _Problems:
    """A worker that answers what the application does not with a problem document, as everything else is answered."""

    log: Any

    def handle_error(self, req: Any, client: Any, addr: Any, exc: BaseException) -> None:
        if isinstance(exc, ParseException):
            detail = f"The request line or a header makes no sense, or is too long: {exc}."
            answer = _problem("400 Bad Request", "malformed", "The request could not be read.", detail)
        else:
            what = "(not read)" if req is None else f"{req.method} {req.uri}"
            self.log.error("Error handling request %s", what, exc_info=exc)
            answer = _mistake(exc)
        with contextlib.suppress(OSError):
            util.write_nonblock(client, answer)


def _mistake(error: BaseException) -> bytes:
    """The answer to a request that broke off by `error`. gunicorn ends a worker that takes too long by SystemExit."""
    detail = "This is a bug. The server's log has the details."
    if isinstance(error, SystemExit):
        detail = f"The request took longer than VECTORDB_REQUEST_TIMEOUT, {settings.REQUEST_TIMEOUT} s, or was stopped."
    return _problem("500 Internal Server Error", "internal_error", "The server made a mistake.", detail)


def _problem(status: str, code: str, title: str, detail: str) -> bytes:
    """An answer that is a problem document, headers and all."""
    request_id = uuid.uuid4().hex
    current_request_id.set(request_id)
    body = orjson.dumps(
        {
            "type": f"urn:vectordb:problem:{code}",
            "title": title,
            "status": int(status[:3]),
            "detail": detail,
            "code": code,
            "request_id": request_id,
            "errors": [],
        }
    )
    head = (
        f"HTTP/1.1 {status}\r\nConnection: close\r\nContent-Type: application/problem+json\r\n"
        f"X-Request-ID: {request_id}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


class OneThread(_Problems, SyncWorker):  # type: ignore[misc]
    """gunicorn's worker of one thread, which handles requests that are here, and leaves the waiting to `Clients`."""

    wsgi: Any
    _shortcut: Any = None
    _next_sign = 0.0

    def use(self, application: Any) -> None:
        """Answer by this application."""
        self.wsgi = application
        if hasattr(application, "at_once"):
            # Here it is asked before gunicorn, and not once more by it.
            self._shortcut, self.wsgi = application.at_once, application.django

    def run(self) -> None:
        self.use(self.wsgi)
        limits = settings.LIMITS
        clients = Clients(
            self.sockets,
            self.PIPE[0],
            self,
            most_bytes=2 * (limits.body_bytes + limits.answer_bytes),
            most_body_bytes=limits.body_bytes,
        )
        while self.alive and self.is_parent_alive():
            self._show_life()
            clients.serve(self.timeout)
        clients.finish(self.cfg.graceful_timeout)

    def _show_life(self) -> None:
        """Begin anew with the time after which the parent ends a worker."""
        if (now := time.monotonic()) >= self._next_sign:
            self.notify()
            self._next_sign = now + _SECONDS_BETWEEN_SIGNS

    def answer(self, request: Arrival, server: Any, client: Any) -> bytes:
        # The worker may have waited for long.
        self._show_life()
        try:
            at_once = self._at_once(request)
        except (Exception, SystemExit) as error:
            # With SystemExit the worker is no longer alive for `run`, which ends when this is sent.
            self.log.exception("Error handling request")
            return _mistake(error)
        if at_once is not None:
            return at_once
        exchange = _Exchange(request.data, server)
        self.handle(exchange, exchange, client)
        return exchange.answer()

    def _at_once(self, request: Arrival) -> bytes | None:
        """The answer to a request that the application has a shorter way for; gunicorn's takes as long as a small query
        does."""
        environ = None if self._shortcut is None else request.environ()
        answered = None if environ is None else self._shortcut(environ)
        if answered is None:
            return None
        status, headers, body = answered
        lines = [f"HTTP/1.1 {status}", f"Server: {SERVER}", f"Date: {_date(int(time.time()))}", "Connection: close"]
        lines += [f"{name}: {value}" for name, value in headers]
        return "\r\n".join([*lines, "\r\n"]).encode("latin-1") + bytes(body)

    def too_late(self) -> bytes:
        detail = f"The request did not arrive within {SECONDS} s, and 1 s more for each {BYTES_A_SECOND} bytes."
        return _problem("408 Request Timeout", "request_timeout", "The request took too long to arrive.", detail)


@lru_cache(maxsize=1)
def _date(second: int) -> str:
    """The header's text for a second since the epoch."""
    return str(util.http_date(second))


class _Exchange:
    """What gunicorn takes for the sockets of a client and of the server: it is read from a request that is here, and
    keeps the answer."""

    def __init__(self, request: bytearray, server: Any) -> None:
        self._server = server
        self._unread = memoryview(request)
        self._answer: list[bytes] = []

    def answer(self) -> bytes:
        return b"".join(self._answer)

    def recv(self, size: int) -> bytes:
        piece = bytes(self._unread[:size])
        self._unread = self._unread[size:]
        return piece

    def sendall(self, data: bytes) -> None:
        self._answer.append(data)

    def send(self, data: bytes) -> int:
        """gunicorn sends 100 Continue so; the client has had that, or did not wait for it."""
        return len(data)

    def getsockname(self) -> Any:
        return self._server

    def gettimeout(self) -> float:
        return 0.0

    def settimeout(self, seconds: float) -> None:
        pass

    def shutdown(self, how: int) -> None:
        pass

    def close(self) -> None:
        pass


class ManyThreads(_Problems, ThreadWorker):  # type: ignore[misc]
    """gunicorn's worker of several threads, each of which a client keeps for a limited time."""

    def handle(self, conn: Any) -> Any:
        if not isinstance(conn.sock, _PunctualSocket):
            conn.sock = _PunctualSocket(fileno=conn.sock.detach())
        conn.sock.begin()
        return super().handle(conn)


class _PunctualSocket(socket.socket):
    """A client's socket that breaks off a request, or an answer, which takes longer than it may."""

    _begun = 0.0
    _received = 0

    def begin(self) -> None:
        """Another request follows."""
        self._begun = time.monotonic()
        self._received = 0

    def recv(self, size: int, flags: int = 0) -> bytes:
        self._wait_until(self._begun + SECONDS + self._received / BYTES_A_SECOND)
        try:
            piece = super().recv(size, flags)
        except TimeoutError:
            raise _broken_off() from None
        self._received += len(piece)
        return piece

    def sendall(self, data: Any, flags: int = 0) -> None:
        self._wait_until(time.monotonic() + SECONDS + len(data) / BYTES_A_SECOND)
        try:
            super().sendall(data, flags)
        except TimeoutError:
            raise _broken_off() from None

    def _wait_until(self, deadline: float) -> None:
        left = deadline - time.monotonic()
        if left <= 0:
            raise _broken_off()
        self.settimeout(left)


def _broken_off() -> ConnectionResetError:
    return ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))
