"""Who a worker takes in when the system refuses to."""

import os
import resource
import socket
from contextlib import ExitStack
from time import monotonic
from typing import Any

import pytest

from apps.operations.arrival import Arrival
from apps.operations.clients import Clients

_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


class _Handler:
    def answer(self, request: Arrival, server: Any, client: Any) -> bytes:
        return _ANSWER

    def too_late(self) -> bytes:
        return b""


def next_descriptor() -> int:
    """The number of the next file that is opened."""
    descriptor = os.dup(0)
    os.close(descriptor)
    return descriptor


def test_without_file_descriptors_clients_wait_and_the_worker_rests(caplog: pytest.LogCaptureFixture) -> None:
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        wakeup, end = os.pipe()
        stack.callback(os.close, wakeup)
        stack.callback(os.close, end)
        clients = Clients([listener], wakeup, _Handler(), most_bytes=1000, most_body_bytes=1000)
        stack.callback(clients.finish, 0)
        client = stack.enter_context(socket.create_connection(listener.getsockname()))
        client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
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
