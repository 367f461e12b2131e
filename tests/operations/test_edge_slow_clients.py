"""Clients that are slow, or mean to be: others are served meanwhile, and they too, within limits."""

import re
import socket
import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from threading import Event

import pytest

from tests.server import Server, is_alive, serving, until
from tests.sockets import JSON_HEAD, connect, is_open, read_all, read_response

pytestmark = pytest.mark.any_database

_CHUNKED = JSON_HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
# What has arrived of a request when its client becomes slow.
BEGINNINGS = {
    "nothing": b"",
    "half a head": b"GET /health HTTP/1.1\r\nHost: loc",
    "a head": JSON_HEAD + b"Content-Length: 1000000\r\n\r\n",
    "half a body": JSON_HEAD + b"Content-Length: 1000000\r\n\r\n" + b"x" * 500_000,
    "half a chunk": _CHUNKED + b"f4240\r\n" + b"x" * 500_000,
    "a head that waits to continue": JSON_HEAD + b"Content-Length: 1000000\r\nExpect: 100-continue\r\n\r\n",
}


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of one worker with one thread, so that it is known who answers."""
    settings = {"VECTORDB_WORKERS": 1, "VECTORDB_THREADS": 1, "VECTORDB_AUTH": "off"}
    with serving(tmp_path_factory.mktemp("alone") / "data", **settings) as server:
        yield server


def assert_served(server: Server) -> None:
    """A client that is not slow gets its answers."""
    with server.client() as client:
        for _ in range(10):
            assert client.get("/libraries").status_code == 200


@pytest.mark.parametrize("beginning", BEGINNINGS.values(), ids=BEGINNINGS)
def test_clients_that_stop_sending_keep_no_thread(alone: Server, beginning: bytes) -> None:
    with ExitStack() as stack:
        slow = [connect(alone, stack, beginning) for _ in range(12)]
        if b"Expect" in beginning:
            for connection in slow:
                assert connection.recv(1 << 16) == b"HTTP/1.1 100 Continue\r\n\r\n"
        assert_served(alone)
        assert all(map(is_open, slow))


@pytest.mark.parametrize("beginning", ["nothing", "half a head", "half a chunk"])
def test_500_clients_that_trickle_keep_no_thread(alone: Server, beginning: str) -> None:
    sent = BEGINNINGS[beginning][:-400_000] if beginning == "half a chunk" else BEGINNINGS[beginning]
    with ExitStack() as stack, ThreadPoolExecutor() as threads:
        slow = [connect(alone, stack, sent) for _ in range(500)]
        stop = Event()

        def trickle() -> None:
            while not stop.wait(1):
                for connection in slow:
                    if beginning != "nothing" and is_open(connection):
                        connection.sendall(b"x")

        trickling = threads.submit(trickle)
        try:
            assert_served(alone)
            assert not trickling.done()
        finally:
            stop.set()
    assert_served(alone)


@pytest.fixture(scope="module")
def large(alone: Server) -> bytes:
    """A request whose answer has some 20 MB."""
    with alone.client() as client:
        client.post("/libraries", json={"id": "large", "name": "Large"}).raise_for_status()
        for part in range(4):
            chunks = [{"id": f"{part}-{i}", "text": "x" * 250_000, "embedding": [1, i]} for i in range(20)]
            client.post("/libraries/large/chunks", json={"chunks": chunks}).raise_for_status()
    body = b'{"vector": [1, 0], "k": 80}'
    head = b"POST /api/v1/libraries/large/query HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    return head + b"Content-Length: %d\r\n\r\n" % len(body) + body


def test_clients_that_take_their_answer_slowly_keep_no_thread_and_get_all_of_it(alone: Server, large: bytes) -> None:
    with ExitStack() as stack:
        slow = [connect(alone, stack, large) for _ in range(5)]
        for connection in slow:
            assert connection.recv(1, socket.MSG_PEEK)
        assert_served(alone)
        for connection in slow[1:]:
            connection.close()
        assert len(read_response(slow[0]).content) > 20_000_000


def test_who_ends_its_side_gets_all_of_several_large_answers(alone: Server, large: bytes) -> None:
    with ExitStack() as stack:
        connection = connect(alone, stack, large * 2)
        connection.shutdown(socket.SHUT_WR)
        for _ in range(2):
            assert len(read_response(connection).content) > 20_000_000
        assert read_all(connection) == b""


def test_answers_that_nobody_takes_have_a_limit_and_the_log_says_whose_broke_off(alone: Server, large: bytes) -> None:
    """500 of them would be 10 GB."""
    (worker,) = alone.workers()
    before = worker.memory_info().rss
    with ExitStack() as stack:
        for number in range(40):
            named = large.replace(b"Host:", b"X-Request-ID: unread-%d\r\nHost:" % number)
            assert connect(alone, stack, named).recv(1, socket.MSG_PEEK)
        assert_served(alone)
        told = re.findall(r"an answer broke off, .* request_id=(\S+)", alone.log.read_text())
        assert "unread-0" in told
        assert worker.memory_info().rss - before < 600 << 20
    assert_served(alone)


def test_a_client_that_takes_too_long_is_hung_up_on(alone: Server) -> None:
    """With a problem document where it has sent something."""
    with ExitStack() as stack:
        slow = {name: connect(alone, stack, sent) for name, sent in BEGINNINGS.items() if len(sent) < 1000}
        ends = {name: read_all(connection) for name, connection in slow.items()}
    assert ends.pop("nothing") == b""
    for end in ends.values():
        assert end.removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n").startswith(b"HTTP/1.1 408 Request Timeout\r\n")
        assert b'"code":"request_timeout"' in end
        assert end.endswith(b"}")
    assert_served(alone)
    assert "Traceback" not in alone.log.read_text()


def test_the_oldest_goes_when_there_are_too_many(alone: Server) -> None:
    with ExitStack() as stack:
        slow = [connect(alone, stack, b"GET /health") for _ in range(1001)]
        assert_served(alone)
        assert slow[0].recv(1) == b""
        slow[-1].sendall(b" HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert read_response(slow[-1]).status_code == 200


def test_there_are_places_while_descriptors_are_few(folder: Path) -> None:
    """libuv would close every new connection, also that of a client which is not slow."""
    limited = ["sh", "-c", 'ulimit -n 100; "$0" "$@"; exit $?']
    server = Server(folder, VECTORDB_WORKERS=1)
    try:
        server.start(under=limited)
        # The master may just be forking the maintenance process, which looks like a worker for a moment.
        worker = server.workers()[0]
        with ExitStack() as stack:
            for _ in range(300):
                connect(server, stack)
            assert_served(server)
        assert_served(server)
        assert is_alive(worker)
        assert server.stop() == 0
    finally:
        if server.process is not None:
            server.kill()
        server.drop_database()


def test_clients_that_reset_in_the_middle_do_no_harm(alone: Server, large: bytes) -> None:
    ahead = b"GET /api/v1/libraries HTTP/1.1\r\nHost: localhost\r\n\r\n" * 3
    for sent in [*BEGINNINGS.values(), large, ahead, ahead + BEGINNINGS["half a body"]]:
        with ExitStack() as stack:
            for _ in range(5):
                connection = connect(alone, stack, sent)
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    assert_served(alone)
    assert "Traceback" not in alone.log.read_text()


def memory(server: Server) -> int:
    return sum(worker.memory_info().rss for worker in server.workers())


@pytest.mark.parametrize(
    "ahead", [b"", b"GET /api/v1/libraries HTTP/1.1\r\nHost: localhost\r\n\r\n"], ids=["", "ahead"]
)
@pytest.mark.parametrize(("count", "together"), [(20, False), (30, True)], ids=["in turn", "at once"])
def test_the_memory_of_uploads_that_break_off_is_given_back(
    alone: Server, count: int, together: bool, ahead: bytes
) -> None:
    head = ahead + JSON_HEAD + b"Content-Length: 62000000\r\n\r\n"
    body = b"x" * 60_000_000
    before = memory(alone)
    with ExitStack() as stack:
        for _ in range(count):
            with ExitStack() as inner:
                connection = connect(alone, stack if together else inner, head)
                try:
                    connection.sendall(body)
                except OSError:
                    # Others took the room, and this one was refused.
                    assert together
        assert memory(alone) - before < 700 << 20
    until(lambda: memory(alone) - before < 100 << 20, "the memory is given back")
    assert_served(alone)


def test_a_request_in_pieces_is_answered(alone: Server) -> None:
    body = b'{"name": "In pieces"}'
    length = b"Content-Length: %d\r\n\r\n" % len(body)
    chunks = b"".join(b"%x;a=b\r\n%c\r\n" % (1, byte) for byte in body)
    ends = (b"0\r\n\r\n", b"0\r\nA: b\r\n\r\n")
    for request in (JSON_HEAD + length + body, *(_CHUNKED + chunks + end for end in ends)):
        with ExitStack() as stack:
            connection = connect(alone, stack)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for i in range(len(request)):
                connection.sendall(request[i : i + 1])
            assert read_response(connection).status_code == 201


def test_a_refused_body_is_read_to_its_end_lest_the_client_miss_the_answer(alone: Server) -> None:
    for body in (b"Content-Length: 100000000\r\n\r\n" + b"x" * 100_000_000, b"Transfer-Encoding: chunked\r\n\r\n"):
        with ExitStack() as stack:
            connection = connect(alone, stack, JSON_HEAD + body)
            if b"chunked" in body:
                for _ in range(100):
                    connection.sendall(b"f4240\r\n" + b"x" * 1_000_000 + b"\r\n")
                connection.sendall(b"0\r\n\r\n")
            answer = read_response(connection)
            assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")


def test_a_refused_body_may_come_after_its_answer(alone: Server) -> None:
    for head in (b"Content-Length: 100000000\r\n\r\n", b"Content-Length: -1\r\n\r\n"):
        with ExitStack() as stack:
            connection = connect(alone, stack, JSON_HEAD + head)
            # The answer is there.
            assert connection.recv(1, socket.MSG_PEEK)
            for _ in range(100):
                connection.sendall(b"x" * 100_000)
            assert read_response(connection).status_code in {400, 413}
            assert connection.recv(1) == b""
