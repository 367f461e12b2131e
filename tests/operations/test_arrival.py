"""Where a request ends, however it is cut."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.operations.arrival import Arrival

_HEAD = b"POST / HTTP/1.1\r\nHost: localhost\r\n"
_LIMIT = 1000
bodies = st.binary(max_size=_LIMIT) | st.sampled_from([b"\r\n\r\n", b"0\r\n\r\n", b"\r\n0\r\n\r\n" * 9])


@st.composite
def chunked(draw: st.DrawFn) -> bytes:
    parts = draw(st.lists(bodies.filter(bool), max_size=5))
    extension = draw(st.sampled_from([b"", b";a=b", b';a="b c"']))
    chunks = [b"%X%b\r\n%b\r\n" % (len(part), extension, part) for part in parts]
    trailers = draw(st.sampled_from([b"", b"A: b\r\n", b"A: b\r\nC: d\r\n"]))
    return _HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"".join(chunks) + b"000\r\n" + trailers + b"\r\n"


@st.composite
def offering_upgrade(draw: st.DrawFn) -> bytes:
    """As of clients that would rather speak HTTP/2, and send their body in HTTP/1.1 all the same."""
    offer = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"
    return draw(requests).replace(_HEAD, _HEAD + offer, 1)


requests = st.one_of(
    st.just(_HEAD + b"\r\n"),
    bodies.map(lambda body: _HEAD + b"content-length:%d \r\n\r\n" % len(body) + body),
    chunked(),
)


@given(requests | offering_upgrade(), st.data())
def test_a_request_is_whole_with_its_last_byte(request: bytes, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.sets(st.integers(1, len(request) - 1), max_size=20)))
    arrival = Arrival(10 * _LIMIT)
    pieces = [request[start:end] for start, end in zip([0, *cuts], [*cuts, len(request)], strict=True)]
    assert [arrival.add(piece) for piece in pieces] == [False] * len(cuts) + [True]
    assert arrival.data == request


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"x" * (1 << 21),
        _HEAD + b"Content-Length: 1001\r\n\r\n",
        _HEAD + b"Connection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 1001\r\n\r\n",
        b"CONNECT localhost:80 HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\n",
        _HEAD + b"\r\n" + _HEAD + b"Connection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 3\r\n\r\n",
        _HEAD + b"Content-Length: -1\r\n\r\n",
        _HEAD + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n",
        _HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
        _HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"1" * 10_000,
        _HEAD + b"Transfer-Encoding: chunked\r\n\r\nfffff\r\n" + b"x" * 200_000,
        _HEAD
        + b"Transfer-Encoding: chunked\r\n\r\n"
        + b"400\r\n"
        + b"x" * 1024
        + b"\r\n"
        + b"fffff\r\n"
        + b"x" * 200_000,
    ],
)
def test_what_will_be_refused_is_not_waited_for(request_bytes: bytes) -> None:
    assert Arrival(_LIMIT).add(request_bytes)


@pytest.mark.parametrize(
    ("headers", "waits"),
    [
        (b"Content-Length: 5\r\nExpect: 100-continue\r\n", True),
        (b"expect:100-Continue\r\nTransfer-Encoding: chunked\r\n", True),
        (b"Content-Length: 5\r\n", False),
        (b"Expect: 100-continue\r\n", False),
        (b"Content-Length: 1001\r\nExpect: 100-continue\r\n", False),
    ],
)
def test_who_waits_to_continue(headers: bytes, waits: bool) -> None:
    arrival = Arrival(_LIMIT)
    arrival.add(_HEAD + headers + b"\r\n")
    assert arrival.waits_for_continue is waits


def test_a_client_of_http_1_0_is_not_told_to_continue() -> None:
    arrival = Arrival(_LIMIT)
    arrival.add(b"POST / HTTP/1.0\r\nHost: h\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
    assert not arrival.waits_for_continue


def test_a_plain_request_says_what_it_is() -> None:
    arrival = Arrival(_LIMIT)
    assert arrival.add(
        b"POST /a/b?c=d HTTP/1.1\r\nHost: h\r\nContent-Type: t\r\nX-Y: z\r\nContent-Length: 3\r\n\r\nxyz"
    )
    environ = arrival.environ()
    assert environ is not None
    assert environ.pop("wsgi.input").read() == b"xyz"
    assert environ == {
        "REQUEST_METHOD": "POST",
        "PATH_INFO": "/a/b",
        "QUERY_STRING": "c=d",
        "HTTP_HOST": "h",
        "CONTENT_TYPE": "t",
        "HTTP_X_Y": "z",
        "CONTENT_LENGTH": "3",
    }


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"POST / HTTP/1.0\r\nHost: h\r\n\r\n",
        _HEAD + b"host: other\r\n\r\n",
        _HEAD + b"Content_Length: 3\r\n\r\n",
        _HEAD + b"Transfer-Encoding: chunked\r\n\r\n3\r\nxyz\r\n0\r\n\r\n",
        _HEAD + b"Content-Length: 3\r\n\r\nxyz and more",
        _HEAD + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nxyz",
        _HEAD + b"Content-Length: 3\r\n\r\n",
        b"\r\n\r\n" + _HEAD + b"Content-Length: 3\r\n\r\nxyz",
        b"nonsense",
    ],
)
def test_what_is_not_plain_is_left_to_gunicorn(request_bytes: bytes) -> None:
    arrival = Arrival(_LIMIT)
    arrival.add(request_bytes)
    assert arrival.environ() is None
