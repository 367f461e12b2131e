"""Whom a worker takes in when the system refuses to, and on whom it hangs up when memory runs out."""

import os
import resource
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from time import monotonic
from typing import Any

import pytest

from apps.operations.arrival import Arrival
from apps.operations.clients import Clients
from vectordb.logs import RequestIdFilter, current_request_id

_REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
# More than the system takes for a client that does not read.
_LARGE = 1 << 25


class _Handler:
    """Gives each request the next number for its id."""

    def __init__(self, answer: bytes) -> None:
        self._answer = answer
        self._requests = 0

    def answer(self, request: Arrival, server: Any, client: Any) -> bytes:
        self._requests += 1
        current_request_id.set(f"request-{self._requests}")
        return self._answer

    def too_late(self) -> bytes:
        return b""


def next_descriptor() -> int:
    """The number of the next file that is opened."""
    descriptor = os.dup(0)
    os.close(descriptor)
    return descriptor


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def listening(stack: ExitStack, answer: bytes, most_bytes: int) -> tuple[Clients, socket.socket]:
    """The clients of a worker that answers so, and where they come in."""
    listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
    wakeup, end = os.pipe()
    stack.callback(os.close, wakeup)
    stack.callback(os.close, end)
    clients = Clients([listener], wakeup, _Handler(answer), most_bytes=most_bytes, most_body_bytes=1000)
    stack.callback(clients.finish, 10)
    return clients, listener


def connected(stack: ExitStack, listener: socket.socket) -> socket.socket:
    """A client that has sent its request."""
    client = stack.enter_context(socket.create_connection(listener.getsockname()))
    client.sendall(_REQUEST)
    return client


def test_without_file_descriptors_clients_wait_and_the_worker_rests(
    stack: ExitStack, caplog: pytest.LogCaptureFixture
) -> None:
    clients, listener = listening(stack, _ANSWER, 1000)
    client = connected(stack, listener)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (next_descriptor(), hard))
    try:
        started, rounds = monotonic(), 0
        while monotonic() - started < 1.2:
            clients.serve(10)
            rounds += 1
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert rounds < 10
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    client.setblocking(False)
    deadline = monotonic() + 20
    answer = b""
    while not answer and monotonic() < deadline:
        clients.serve(0.1)
        try:
            answer = client.recv(1000)
        except BlockingIOError:
            continue
    assert answer == _ANSWER


@pytest.mark.parametrize("most_bytes", [_LARGE // 2, _LARGE * 3 // 2], ids=["too large", "too many"])
def test_the_log_says_whose_answer_broke_off(
    stack: ExitStack, caplog: pytest.LogCaptureFixture, most_bytes: int
) -> None:
    caplog.handler.addFilter(shown := RequestIdFilter())
    stack.callback(caplog.handler.removeFilter, shown)
    clients, listener = listening(stack, bytes(_LARGE), most_bytes)
    waiting = [connected(stack, listener)]
    clients.serve(10)
    if most_bytes > _LARGE:
        assert not caplog.records
        waiting.append(connected(stack, listener))
        clients.serve(10)
    [record] = caplog.records
    assert record.levelname == "WARNING"
    assert record.request_id == "request-1"  # type: ignore[attr-defined]
    assert record.getMessage().startswith("an answer broke off, ")
