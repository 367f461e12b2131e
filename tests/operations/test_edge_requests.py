"""What an odd request gets, byte by byte, and what comes after it on its connection."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from email.utils import parsedate_to_datetime
from time import time

import pytest

from tests.api.problems import assert_refused
from tests.server import Server, serving, until
from tests.sockets import JSON_HEAD, connect, is_open, read_all, read_response

pytestmark = pytest.mark.any_database

_HEALTH = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
_CHUNKED = JSON_HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
_LARGEST = 64 * 1024 * 1024

MALFORMED = {
    "two lengths": JSON_HEAD + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{} ",
    "two equal lengths": JSON_HEAD + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}",
    "length and chunks": JSON_HEAD + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "chunks and length": JSON_HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "a length of 5,000 digits": JSON_HEAD + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n",
    "another coding": JSON_HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "two codings": JSON_HEAD + b"Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "chunks without a size": _CHUNKED + b"zz\r\n",
    "a chunk's size without end": _CHUNKED + b"1" * 10_000,
    "a chunk that is longer than its size": _CHUNKED + b"1\r\n{}\r\n0\r\n\r\n",
    "a chunk's extension without end": _CHUNKED + b"2;" + b"a" * 1_000_000,
    "trailers without end": _CHUNKED + b"2\r\n{}\r\n0\r\n" + b"a: b\r\n" * 1_000_000,
    "a trailer without end": _CHUNKED + b"2\r\n{}\r\n0\r\na: " + b"b" * 1_000_000,
    "bare line feeds": b"GET /health HTTP/1.1\nHost: localhost\n\n",
    "a folded header": b"GET /health HTTP/1.1\r\nHost: localhost\r\nA: b\r\n c\r\n\r\n",
    "a space before the colon": b"GET /health HTTP/1.1\r\nHost : localhost\r\n\r\n",
    "a NUL in a header": b"GET /health HTTP/1.1\r\nHost: localhost\r\nA: \0\r\n\r\n",
    "a head of 1 MB": b"GET /health HTTP/1.1\r\nHost: localhost\r\nA: " + b"b" * 1_000_000 + b"\r\n\r\n",
    "10,000 headers": b"GET /health HTTP/1.1\r\nHost: localhost\r\n" + b"A: b\r\n" * 10_000 + b"\r\n",
    "line feeds without end": b"\r\n" * 1_000_000,
    "no host": b"GET /health HTTP/1.1\r\n\r\n",
    "two hosts": b"GET /health HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n",
    "two equal hosts": b"GET /health HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n",
    "no path": b"GET health HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "another protocol": b"GET /health HTTP/9.9\r\nHost: localhost\r\n\r\n",
    "a proxy's method": b"CONNECT localhost:80 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x07" * 500,
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that asks for no keys, so that requests are as short as they can be."""
    with serving(tmp_path_factory.mktemp("open") / "data", VECTORDB_AUTH="off") as server:
        yield server


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.mark.parametrize("request_bytes", MALFORMED.values(), ids=MALFORMED)
def test_what_is_malformed_is_refused_and_the_connection_ends(
    server: Server, stack: ExitStack, request_bytes: bytes
) -> None:
    connection = connect(server, stack, request_bytes)
    problem = assert_refused(read_response(connection), 400, "malformed")
    assert problem["detail"]
    assert read_all(connection) == b""


def test_what_follows_a_refused_request_is_not_answered(server: Server, stack: ExitStack) -> None:
    """It may be a part of the body, as somebody else understands it."""
    smuggled = JSON_HEAD + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + _HEALTH
    assert read_all(connect(server, stack, smuggled)).count(b"HTTP/1.1 ") == 1


def test_odd_chunks_are_read(server: Server, stack: ExitStack) -> None:
    odd = _CHUNKED + b'00A;a;b="c d";e=f\r\n{"name": "\r\n1;a\r\nN\r\n2\r\n"}\r\n000\r\nA: b\r\nC: d\r\n\r\n'
    connection = connect(server, stack, odd)
    assert read_response(connection).status_code == 201
    connection.sendall(_HEALTH)
    assert read_response(connection).status_code == 200


def test_a_trailer_is_no_header(server: Server, stack: ExitStack) -> None:
    trailer = _CHUNKED + b'd\r\n{"name": "N"}\r\n0\r\nX-Request-ID: trailer\r\n\r\n'
    response = read_response(connect(server, stack, trailer))
    assert (response.status_code, response.headers["X-Request-ID"] == "trailer") == (201, False)


def test_a_header_with_an_underscore_is_not_the_one_with_a_hyphen(server: Server, stack: ExitStack) -> None:
    request = _HEALTH.replace(b"\r\n\r\n", b"\r\nX_Request_ID: a\r\n\r\n")
    assert read_response(connect(server, stack, request)).headers["X-Request-ID"] != "a"


def test_a_target_in_absolute_form_is_understood_and_its_host_counts(server: Server, stack: ExitStack) -> None:
    own = b"GET http://localhost:%d/health?a=b HTTP/1.1\r\nHost: %b\r\n\r\n"
    assert read_response(connect(server, stack, own % (server.port, b"localhost"))).status_code == 200
    assert read_response(connect(server, stack, own % (server.port, b"evil.example"))).status_code == 200
    # Django sees the same host.
    libraries = b"GET http://localhost:%d/api/v1/libraries HTTP/1.1\r\nHost: evil.example\r\n\r\n" % server.port
    assert read_response(connect(server, stack, libraries)).status_code == 200
    without_path = b"GET http://localhost HTTP/1.1\r\nHost: localhost\r\n\r\n"
    assert read_response(connect(server, stack, without_path)).status_code < 400
    hostless = b"GET http://localhost/health HTTP/1.1\r\n\r\n"
    assert_refused(read_response(connect(server, stack, hostless)), 400, "malformed")
    foreign = b"GET http://evil.example/health HTTP/1.1\r\nHost: localhost\r\n\r\n"
    assert_refused(read_response(connect(server, stack, foreign)), 400, "host_not_allowed")


def test_http_1_0_needs_no_host_and_its_connection_ends(server: Server, stack: ExitStack) -> None:
    connection = connect(server, stack, b"GET /health HTTP/1.0\r\n\r\n")
    assert read_response(connection).status_code == 200
    assert read_all(connection) == b""


def test_requests_that_are_sent_ahead_are_answered_in_order(server: Server, stack: ExitStack) -> None:
    requests = [
        b"GET /api/v1/libraries HTTP/1.1\r\nHost: localhost\r\nX-Request-ID: 0\r\n\r\n",
        JSON_HEAD + b"X-Request-ID: 1\r\nContent-Length: 2\r\n\r\n{}",
        b"GET /health HTTP/1.1\r\nHost: localhost\r\nX-Request-ID: 2\r\n\r\n",
        b"GET /nowhere HTTP/1.1\r\nHost: localhost\r\nX-Request-ID: 3\r\n\r\n",
    ]
    connection = connect(server, stack, b"".join(requests * 10))
    for _ in range(10):
        answers = [read_response(connection) for _ in requests]
        assert [answer.headers["X-Request-ID"] for answer in answers] == ["0", "1", "2", "3"]
        assert [answer.status_code for answer in answers] == [200, 400, 200, 404]


def test_what_is_malformed_is_refused_after_the_answers_of_what_came_before(server: Server, stack: ExitStack) -> None:
    libraries = b"GET /api/v1/libraries HTTP/1.1\r\nHost: localhost\r\n\r\n"
    for end in (b"nonsense\r\n\r\n", _CHUNKED + b"zz\r\n"):
        connection = connect(server, stack, libraries + libraries + end)
        assert [read_response(connection).status_code for _ in range(3)] == [200, 200, 400]
        assert read_all(connection) == b""


def test_more_requests_ahead_than_fit_are_refused(server: Server, stack: ExitStack) -> None:
    libraries = b"GET /api/v1/libraries HTTP/1.1\r\nHost: localhost\r\n\r\n"
    everything = read_all(connect(server, stack, libraries * 1000))
    assert everything.count(b"HTTP/1.1 200 OK") < 200
    assert everything.count(b"HTTP/1.1 400 Bad Request") == 1


@pytest.mark.parametrize("count", [1, 5])
def test_a_client_may_end_its_side_after_its_requests(server: Server, stack: ExitStack, count: int) -> None:
    connection = connect(server, stack, b"GET /api/v1/libraries HTTP/1.1\r\nHost: localhost\r\n\r\n" * count)
    connection.shutdown(socket.SHUT_WR)
    assert [read_response(connection).status_code for _ in range(count)] == [200] * count
    assert read_all(connection) == b""


def test_a_connection_is_kept_for_the_next_request(server: Server, stack: ExitStack) -> None:
    connection = connect(server, stack)
    for _ in range(5):
        connection.sendall(_HEALTH)
        assert read_response(connection).status_code == 200
        assert is_open(connection)
    connection.sendall(_HEALTH.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
    assert read_response(connection).headers["Connection"] == "close"
    assert read_all(connection) == b""


@pytest.mark.parametrize("expect", [b"Expect: 100-continue\r\n", b"expect:100-Continue\r\n"])
@pytest.mark.parametrize("framing", [b"Content-Length: 21\r\n", b"Transfer-Encoding: chunked\r\n"])
def test_who_waits_to_continue_is_told_so_once_and_answered(
    server: Server, stack: ExitStack, expect: bytes, framing: bytes
) -> None:
    body = b'{"name": "Continued"}'
    connection = connect(server, stack, JSON_HEAD + expect + framing + b"\r\n")
    assert connection.recv(1 << 16) == b"HTTP/1.1 100 Continue\r\n\r\n"
    connection.sendall(b"15\r\n" + body + b"\r\n0\r\n\r\n" if b"chunked" in framing else body)
    assert read_response(connection).status_code == 201


def test_who_waits_to_continue_with_too_much_is_refused_first(server: Server, stack: ExitStack) -> None:
    head = JSON_HEAD + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % (_LARGEST + 1)
    assert_refused(read_response(connect(server, stack, head)), 413, "body_too_large")


def test_a_client_of_http_1_0_is_not_told_to_continue(server: Server, stack: ExitStack) -> None:
    head = JSON_HEAD.replace(b"HTTP/1.1", b"HTTP/1.0") + b"Expect: 100-continue\r\nContent-Length: 13\r\n\r\n"
    connection = connect(server, stack, head + b'{"name":')
    connection.sendall(b' "N"}')
    assert read_response(connection).status_code == 201


def test_a_body_that_follows_an_offer_of_http_2_is_waited_for(server: Server, stack: ExitStack) -> None:
    offer = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"
    head = JSON_HEAD + offer + b"Content-Length: 19\r\nExpect: 100-continue\r\n\r\n"
    connection = connect(server, stack, head)
    assert connection.recv(1 << 16) == b"HTTP/1.1 100 Continue\r\n\r\n"
    connection.sendall(b'{"name": "Offered"}' + head.replace(b"Expect: 100-continue\r\n", b"") + b'{"name": "Offered"}')
    assert [read_response(connection).status_code for _ in range(2)] == [201, 201]


def test_offers_of_another_protocol_may_be_sent_ahead(server: Server, stack: ExitStack) -> None:
    offer = JSON_HEAD + b'Connection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 13\r\n\r\n{"name": "N"}'
    connection = connect(server, stack, offer * 3 + _HEALTH)
    assert [read_response(connection).status_code for _ in range(4)] == [201, 201, 201, 200]


def test_the_answer_to_head_has_no_body(server: Server, stack: ExitStack) -> None:
    paths = (b"/health", b"/api/v1/libraries", b"/nowhere")
    connection = connect(
        server, stack, b"".join(b"HEAD %b HTTP/1.1\r\nHost: localhost\r\n\r\n" % path for path in paths)
    )
    assert [read_response(connection, "HEAD").status_code for _ in paths] == [200, 200, 404]


def test_what_a_browser_has_already_is_answered_by_a_head(server: Server, stack: ExitStack) -> None:
    get = b"GET /static/vectordb/api.css HTTP/1.1\r\nHost: localhost\r\n"
    connection = connect(server, stack, get + b"\r\n")
    file = read_response(connection)
    assert file.content
    connection.sendall(get + b"If-Modified-Since: %b\r\n\r\n" % file.headers["Last-Modified"].encode() + _HEALTH)
    unchanged = read_response(connection)
    assert unchanged.status_code == 304
    # It would be that of the file.
    assert "Content-Length" not in unchanged.headers
    assert read_response(connection).json() == {"status": "ok"}


def test_the_date_is_that_of_now(server: Server, stack: ExitStack) -> None:
    before = int(time())
    connection = connect(server, stack)

    def date() -> float:
        connection.sendall(_HEALTH)
        return parsedate_to_datetime(read_response(connection).headers["Date"]).timestamp()

    assert date() <= time()
    until(lambda: date() >= before, "the date is of now")
