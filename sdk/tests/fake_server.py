"""A server of sockets that answers as it is told, for what a real one seldom does."""

import contextlib
import json
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

HANG, HANG_UP = object(), object()


@dataclass(frozen=True)
class Reply:
    """An answer. `cut` is the number of bytes of the body after which the connection ends."""

    status: int = 200
    body: Any = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    cut: int | None = None

    def render(self) -> bytes:
        body = self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()
        headers = {"Content-Type": "application/json", "Content-Length": str(len(body)), **self.headers}
        head = f"HTTP/1.1 {self.status} X\r\n" + "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        return (head + "\r\n").encode() + body[: self.cut]


@dataclass(frozen=True)
class Received:
    """A request that came."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes


class FakeServer:
    """Answers the requests that come with `replies`, one after the other; the last one for all that follow."""

    def __init__(self, *replies: Any) -> None:
        self.received: list[Received] = []
        self.has_received = threading.Event()
        self._replies = list(replies)
        self._lock = threading.Lock()
        self._connections: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        for one in (self._listener, *self._connections):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self._connections.append(connection)
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError, ValueError), connection, connection.makefile("rb") as stream:
            while line := stream.readline():
                method, target, _ = line.decode().split()
                headers = dict(_headers(stream))
                body = stream.read(int(headers.get("content-length", 0)))
                with self._lock:
                    self.received.append(Received(method, target, headers, body))
                    self.has_received.set()
                    reply = self._replies.pop(0) if len(self._replies) > 1 else self._replies[0]
                if reply is HANG:
                    stream.read()  # until the client gives up
                if reply is HANG_UP or reply is HANG:
                    return
                connection.sendall(reply.render())
                if reply.cut is not None:
                    return


def _headers(stream: Any) -> Iterator[tuple[str, str]]:
    while (line := stream.readline().strip()) != b"":
        name, _, value = line.decode().partition(":")
        yield name.lower(), value.strip()


@contextlib.contextmanager
def answering(*replies: Any) -> Iterator[FakeServer]:
    """A fake server, while the block runs."""
    server = FakeServer(*replies)
    try:
        yield server
    finally:
        server.close()
