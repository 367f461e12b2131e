"""Clients that are slow, or mean to be: others are served meanwhile, and they too, within limits."""

import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from http.client import HTTPResponse
from pathlib import Path
from threading import Event
from time import monotonic
from typing import Any

import httpx
import pytest

from tests.server import Server, serving

_CLIENTS = 12
_HEAD = b"POST /api/v1/libraries HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
_CHUNKED = _HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
# What has arrived of a request when its client becomes slow.
BEGINNINGS = {
    "nothing": b"",
    "half a head": b"GET /health HTTP/1.1\r\nHost: loc",
    "a head": _HEAD + b"Content-Length: 1000000\r\n\r\n",
    "half a body": _HEAD + b"Content-Length: 1000000\r\n\r\n" + b"x" * 500_000,
    "a body that is too large": _HEAD + b"Content-Length: 100000000\r\n\r\n" + b"x" * 500_000,
    "half a chunk": _CHUNKED + b"f4240\r\n" + b"x" * 500_000,
    "a head that waits to continue": _HEAD + b"Content-Length: 1000000\r\nExpect: 100-continue\r\n\r\n",
}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("slow") / "data") as server:
        yield server


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of one worker with one thread, so that it is known who answers."""
    with serving(tmp_path_factory.mktemp("alone") / "data", VECTORDB_WORKERS=1, VECTORDB_THREADS=1) as server:
        yield server


def connected(server: Server, stack: ExitStack, sent: bytes = b"", **options: Any) -> socket.socket:
    connection = stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=60))
    connection.sendall(sent)
    return connection


def seconds_of_a_request(server: Server) -> float:
    started = monotonic()
    with server.client() as client:
        assert client.get("/libraries").status_code == 200
    return monotonic() - started


@pytest.mark.parametrize("beginning", BEGINNINGS.values(), ids=BEGINNINGS)
def test_clients_that_stop_sending_keep_no_worker(alone: Server, beginning: bytes) -> None:
    with ExitStack() as stack:
        for _ in range(_CLIENTS):
            connected(alone, stack, beginning)
        assert max(seconds_of_a_request(alone) for _ in range(10)) < 1


def test_clients_that_trickle_keep_no_worker(alone: Server) -> None:
    """Whatever they send by bytes: heads, bodies, chunks."""
    with ExitStack() as stack, ThreadPoolExecutor() as threads:
        # Only what may still become a request is waited for.
        begun = [beginning or b"GET /" for beginning in BEGINNINGS.values()]
        slow = [connected(alone, stack, beginning) for beginning in begun for _ in range(3)]
        stop = Event()

        def trickle() -> None:
            while not stop.wait(0.01):
                for connection in slow:
                    connection.sendall(b"x")

        trickling = threads.submit(trickle)
        try:
            assert max(seconds_of_a_request(alone) for _ in range(50)) < 1
            assert not trickling.done()
        finally:
            stop.set()


def answer_of(connection: socket.socket) -> httpx.Response:
    response = HTTPResponse(connection)
    response.begin()
    return httpx.Response(response.status, headers=response.getheaders(), content=response.read())


@pytest.fixture(scope="module")
def large(alone: Server) -> bytes:
    """A request whose answer has some 30 MB."""
    with alone.client() as client:
        client.post("/libraries", json={"id": "large", "name": "Large"}).raise_for_status()
        for part in range(8):
            chunks = [{"id": f"{part}-{i}", "text": "x" * 250_000, "embedding": [1, i]} for i in range(16)]
            client.post("/libraries/large/chunks", json={"chunks": chunks}).raise_for_status()
    body = b'{"vector": [1, 0], "k": 128}'
    head = b"POST /api/v1/libraries/large/query HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    return head + b"Content-Length: %d\r\n\r\n" % len(body) + body


def test_clients_that_take_their_answer_slowly_keep_no_worker_and_get_all_of_it(alone: Server, large: bytes) -> None:
    with ExitStack() as stack:
        slow = [connected(alone, stack, large) for _ in range(5)]
        for connection in slow:
            assert connection.recv(1)
        assert max(seconds_of_a_request(alone) for _ in range(10)) < 1
        for connection in slow[1:]:
            connection.close()
        head, _, body = received(slow[0]).partition(b"\r\n\r\n")
        assert b"content-length: %d\r\n" % len(body) in head + b"\r\n"
        assert len(body) > 30_000_000


def received(connection: socket.socket) -> bytes:
    """All that comes until the other side hangs up."""
    pieces = []
    while piece := connection.recv(1 << 16):
        pieces.append(piece)
    return b"".join(pieces)


def test_a_client_that_takes_too_long_is_hung_up_on(running: Server) -> None:
    """With a problem document where it has sent something."""
    with ExitStack() as stack:
        slow = {name: connected(running, stack, sent) for name, sent in BEGINNINGS.items() if len(sent) < 1000}
        started = monotonic()
        ends = {name: received(connection) for name, connection in slow.items()}
        assert monotonic() - started < 40
    assert ends["nothing"] == b""
    assert seconds_of_a_request(running) < 1
    assert all(end.endswith(b"}") for name, end in ends.items() if name != "nothing")
    assert all(b'"code":"request_timeout"' in end for name, end in ends.items() if name != "nothing")
    assert "Traceback" not in running.log.read_text()


def test_the_oldest_goes_when_there_are_too_many(alone: Server) -> None:
    with ExitStack() as stack:
        slow = [connected(alone, stack, b"GET /health") for _ in range(1001)]
        assert seconds_of_a_request(alone) < 1
        assert slow[0].recv(1) == b""
        slow[-1].sendall(b" HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert answer_of(slow[-1]).status_code == 200


def test_a_request_in_pieces_is_answered(running: Server) -> None:
    body = b'{"name": "In pieces"}'
    length = b"Content-Length: %d\r\n\r\n" % len(body)
    chunks = b"".join(b"%x;a=b\r\n%c\r\n" % (1, byte) for byte in body)
    for request in (_HEAD + length + body, _CHUNKED + chunks + b"0\r\n\r\n", _CHUNKED + chunks + b"0\r\nA: b\r\n\r\n"):
        with ExitStack() as stack:
            connection = connected(running, stack)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for i in range(len(request)):
                connection.sendall(request[i : i + 1])
            assert answer_of(connection).status_code == 201


def test_a_body_that_follows_an_offer_of_http_2_is_waited_for(running: Server) -> None:
    offer = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"
    with ExitStack() as stack:
        head = _HEAD + offer + b"Content-Length: 19\r\nExpect: 100-continue\r\n\r\n"
        connection = connected(running, stack, head)
        assert connection.recv(1 << 16) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(b'{"name": "Offered"}')
        assert answer_of(connection).status_code == 201


def test_who_waits_to_continue_is_told_so_once_and_answered(running: Server) -> None:
    body = b'{"name": "Continued"}'
    with ExitStack() as stack:
        connection = connected(running, stack, _HEAD + b"Expect: 100-continue\r\nContent-Length: 21\r\n\r\n")
        assert connection.recv(1 << 16) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(body)
        assert answer_of(connection).status_code == 201


def test_who_waits_to_continue_with_too_much_is_refused_first(alone: Server) -> None:
    with ExitStack() as stack:
        connection = connected(alone, stack, _HEAD + b"Expect: 100-continue\r\nContent-Length: 99999999\r\n\r\n")
        assert connection.recv(1 << 16).startswith(b"HTTP/1.1 413 ")


def test_a_refused_body_is_read_to_its_end_lest_the_client_miss_the_answer(running: Server) -> None:
    for body in (b"Content-Length: 100000000\r\n\r\n" + b"x" * 100_000_000, b"Transfer-Encoding: chunked\r\n\r\n"):
        with ExitStack() as stack:
            connection = connected(running, stack, _HEAD + body)
            if b"chunked" in body:
                for _ in range(100):
                    connection.sendall(b"f4240\r\n" + b"x" * 1_000_000 + b"\r\n")
                connection.sendall(b"0\r\n\r\n")
            answer = answer_of(connection)
            assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")


def test_a_refused_body_may_come_after_its_answer(alone: Server) -> None:
    for head in (b"Content-Length: 100000000\r\n\r\n", b"Content-Length: -1\r\n\r\n"):
        with ExitStack() as stack:
            connection = connected(alone, stack, _HEAD + head)
            # The answer is there.
            assert connection.recv(1, socket.MSG_PEEK)
            for _ in range(100):
                connection.sendall(b"x" * 100_000)
            assert answer_of(connection).status_code in {400, 413}
            assert connection.recv(1) == b""


def test_a_stop_lets_those_finish_who_have_begun(folder: Path) -> None:
    with serving(folder) as server, ExitStack() as stack, ThreadPoolExecutor() as threads:
        connected(server, stack)
        begun = connected(server, stack, b"GET /health HTTP/1.1\r\n")
        assert seconds_of_a_request(server) < 1
        stopping = threads.submit(server.stop)
        # The port is free when the server takes nobody in any more.
        while True:
            try:
                socket.create_connection(("127.0.0.1", server.port)).close()
            except OSError:
                break
        begun.sendall(b"Host: localhost\r\n\r\n")
        assert answer_of(begun).status_code == 200
        assert stopping.result() == 0
