"""Bodies as bytes: media type, encoding, size, and JSON that breaks off."""

import asyncio
import gc
import sys
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from apps.access.requests import Answer
from tests.api.problems import assert_refused
from tests.api.raw import exchange
from tests.server import Server, until
from vectordb.asgi import application

pytestmark = pytest.mark.any_database

JSON = {"Content-Type": "application/json"}
LIMIT = 64 * 1024 * 1024
X = [1, 0, 0]
WRITES = [
    ("POST", "/libraries"),
    ("PATCH", "{library}"),
    ("POST", "{library}/documents"),
    ("POST", "{library}/documents/batch"),
    ("PUT", "{library}/documents/doc"),
    ("PATCH", "{library}/documents/doc"),
    ("POST", "{library}/chunks"),
    ("PATCH", "{library}/chunks/alone"),
    ("POST", "{library}/chunks/get"),
    ("POST", "{library}/chunks/delete"),
    ("POST", "{library}/chunks/count"),
    ("POST", "{library}/query"),
    ("POST", "{library}/query/batch"),
]
everywhere = pytest.mark.parametrize(("method", "path"), WRITES)


@pytest.fixture
def library_path(shared: str) -> str:
    return f"/libraries/{shared}"


MALFORMED = {
    "nothing": b"",
    "white space": b" \r\n\t",
    "cut off": b'{"name": "N", "chunks": [{"embedding": [1, 0',
    "cut off in a string": b'{"name": "N',
    "two values": b'{"name": "N"} {}',
    "a comma too many": b'{"name": "N",}',
    "single quotes": b"{'name': 'N'}",
    "a comment": b'{"name": "N"} // N',
    "no JSON": b"name=N",
    "UTF-16": '{"name": "N"}'.encode("utf-16"),
    "a byte order mark": b'\xef\xbb\xbf{"name": "N"}',
    "a raw control character": b'{"name": "a\nb"}',
    "100,000 levels": b'{"metadata": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "100,000 open levels": b'{"a":' * 100_000,
    "a number of no end": b'{"metadata": {"n": 1' + b"0" * 10_000,
}


@pytest.mark.parametrize("body", MALFORMED.values(), ids=MALFORMED)
@pytest.mark.parametrize("path", ["/libraries", "{library}/chunks", "{library}/query"])
def test_what_is_no_json_is_malformed(client: httpx.Client, library_path: str, path: str, body: bytes) -> None:
    response = client.post(path.format(library=library_path), content=body, headers=JSON)
    assert "JSON" in assert_refused(response, 400, "malformed")["detail"]


HALF = "must not contain half of a surrogate pair"
BYTES = "must not contain bytes that are not UTF-8"
BAD_CHARACTERS: dict[str, tuple[bytes, str, str, str]] = {
    "half a surrogate pair": (rb'"a\ud83d"', "invalid", "/text", HALF),
    "half at the end of a string": (rb'"\ud83d\u0041"', "invalid", "/text", HALF),
    "the other half": (rb'"\ude42"', "invalid", "/text", HALF),
    "the halves in the wrong order": (rb'"\ude42\ud83d"', "invalid", "/text", HALF),
    "half a pair in metadata": (rb'"a", "metadata": {"b/c": [0, "\ud83d"]}', "invalid", "/metadata/b~1c/1", HALF),
    "half a pair as a key": (
        rb'"a", "metadata": {"b": {"\ud83d": 1}}',
        "invalid",
        "/metadata/b",
        "must not have a key",
    ),
    "invalid UTF-8": (b'"\xff"', "malformed", "/text", BYTES),
    "UTF-8 of a surrogate": (b'"\xed\xa0\x80"', "malformed", "/text", BYTES),
    "overlong UTF-8": (b'"\xc0\xaf"', "malformed", "/text", BYTES),
    "Latin-1": ('"Bücher"'.encode("latin-1"), "malformed", "/text", BYTES),
}


@pytest.mark.parametrize(("text", "code", "pointer", "detail"), BAD_CHARACTERS.values(), ids=BAD_CHARACTERS)
def test_a_bad_character_has_a_place(
    client: httpx.Client, library_path: str, text: bytes, code: str, pointer: str, detail: str
) -> None:
    before = client.get(f"{library_path}/stats").json()["revision"]
    good = b'{"text": "\xc3\xa9 \\ud83d\\ude42", "embedding": [1, 0, 0.5e-1]}'
    for padding in (b"", b" " * 20_000):
        body = b'{"chunks": [%b, {"embedding": [1, 0, 0], "text": %b}]}' % (b", ".join([good] * 39), text + padding)
        response = client.post(f"{library_path}/chunks", content=body, headers=JSON)
        problem = assert_refused(response, 400, code, f"/chunks/39{pointer}")
        assert detail in problem["errors"][0]["detail"]
    assert client.get(f"{library_path}/stats").json()["revision"] == before


@everywhere
def test_a_bad_character_has_a_place_in_every_body(
    client: httpx.Client, library_path: str, method: str, path: str
) -> None:
    body = rb'{"a": ["x", "\ud83d"], "b": "\ude42"}'
    response = client.request(method, path.format(library=library_path), content=body, headers=JSON)
    assert_refused(response, 400, "invalid", "/a/1", "/b")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_byte_order_mark_is_named(client: httpx.Client, library_path: str, encoding: str) -> None:
    body = '{"chunks": [{"embedding": [1, 0, 0]}]}'.encode(encoding)
    problem = assert_refused(client.post(f"{library_path}/chunks", content=body, headers=JSON), 400, "malformed")
    assert "byte order mark (BOM)" in problem["detail"]
    assert "UTF-8 without one" in problem["detail"]


@everywhere
def test_an_empty_and_a_truncated_body_are_malformed(
    client: httpx.Client, library_path: str, method: str, path: str
) -> None:
    for body in (b"", b'{"id": '):
        response = client.request(method, path.format(library=library_path), content=body, headers=JSON)
        assert "JSON" in assert_refused(response, 400, "malformed")["detail"]


@everywhere
def test_another_media_type_is_415(client: httpx.Client, library_path: str, method: str, path: str) -> None:
    for content_type in (
        None,
        "",
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
    ):
        headers = {} if content_type is None else {"Content-Type": content_type}
        response = client.request(method, path.format(library=library_path), content=b"{}", headers=headers)
        problem = assert_refused(response, 415, "unsupported_media_type")
        assert "Content-Type: application/json" in problem["detail"]


@everywhere
def test_a_compressed_body_is_415(client: httpx.Client, library_path: str, method: str, path: str) -> None:
    headers = JSON | {"Content-Encoding": "gzip"}
    response = client.request(method, path.format(library=library_path), content=b"\x1f\x8b", headers=headers)
    assert "gzip" in assert_refused(response, 415, "unsupported_media_type")["detail"]


@pytest.mark.parametrize(
    "content_type",
    [
        "application/json; charset=utf-8",
        "APPLICATION/JSON",
        'application/json;charset="UTF-8"',
        "application/merge-patch+json",
    ],
)
def test_json_by_any_of_its_names_is_read(client: httpx.Client, library_path: str, content_type: str) -> None:
    for path, body in [("/query", '{"vector": [1, 0, 0]}'), ("/chunks/count", "{}")]:
        response = client.post(f"{library_path}{path}", content=body, headers={"Content-Type": content_type})
        assert response.status_code == 200, response.text


def blocks(size: int) -> Iterator[bytes]:
    """White space, a MiB at a time, as a client sends it that does not say the size beforehand."""
    while size > 0:
        yield b" " * min(size, 1 << 20)
        size -= 1 << 20


@pytest.mark.parametrize("path", ["{library}/chunks", "{library}/query"])
@pytest.mark.parametrize("chunked", [False, True], ids=["with its length", "chunked"])
def test_a_body_of_100_mb_is_413(client: httpx.Client, library_path: str, path: str, chunked: bool) -> None:
    content = blocks(100_000_000) if chunked else b" " * 100_000_000
    response = client.post(path.format(library=library_path), content=content, headers=JSON)
    assert "VECTORDB_MAX_BODY_BYTES" in assert_refused(response, 413, "body_too_large")["detail"]


@pytest.mark.parametrize("chunked", [False, True], ids=["with its length", "chunked"])
def test_the_limit_of_a_body_is_64_mib(client: httpx.Client, library_path: str, chunked: bool) -> None:
    end = b'{"filter": {}}'
    for size, status in [(LIMIT - len(end), 200), (LIMIT - len(end) + 1, 413)]:
        content = [*blocks(size), end] if chunked else b" " * size + end
        response = client.post(f"{library_path}/chunks/count", content=content, headers=JSON)
        assert response.status_code == status, response.text


@everywhere
def test_a_chunked_body_is_read(client: httpx.Client, library_path: str, method: str, path: str) -> None:
    response = client.request(
        method, path.format(library=library_path), content=iter([b'{"un', b'known": 1}']), headers=JSON
    )
    assert "/unknown" in [error["pointer"] for error in response.json()["errors"]]


def test_a_chunked_write_is_stored(client: httpx.Client, chunks: str) -> None:
    parts = [b'{"chunks": [', b'{"embedding": [1, 0, 0], "te', b'xt": "A"}', b"]}"]
    assert client.post(chunks, content=iter(parts), headers=JSON).json()["created"] == 1
    assert client.get(chunks).json()["items"][0]["text"] == "A"


def head(path: str, *headers: str) -> bytes:
    lines = [f"POST /api/v1{path} HTTP/1.1", "Host: localhost", "Content-Type: application/json", *headers]
    return "\r\n".join([*lines, "", ""]).encode()


BROKEN_OFF = {
    "before its length": (["Content-Length: 50"], b'{"name": "N"}'),
    "before its first byte": (["Content-Length: 50"], b""),
    "in a chunk": (["Transfer-Encoding: chunked"], b'20\r\n{"name'),
    "before the last chunk": (["Transfer-Encoding: chunked"], b'd\r\n{"name": "N"}\r\n'),
    "before the first chunk": (["Transfer-Encoding: chunked"], b""),
    "in a chunk's size": (["Transfer-Encoding: chunked"], b"2"),
}


@pytest.mark.parametrize(("headers", "body"), BROKEN_OFF.values(), ids=BROKEN_OFF)
@pytest.mark.parametrize("path", ["/libraries", "{library}/query"])
def test_a_body_that_breaks_off_is_malformed(
    server: Server, library_path: str, path: str, headers: list[str], body: bytes
) -> None:
    request = head(path.format(library=library_path), *headers) + body
    assert_refused(exchange(server, request, "POST", half_closed=True), 400, "malformed")


@pytest.mark.parametrize("path", ["/libraries", "{library}/query"])
def test_a_chunk_without_a_size_is_refused(server: Server, library_path: str, path: str) -> None:
    request = head(path.format(library=library_path), "Transfer-Encoding: chunked") + b"ZZ\r\n{}\r\n0\r\n\r\n"
    assert_refused(exchange(server, request, "POST"), 400, "malformed")


def test_of_a_key_that_comes_twice_the_last_counts_and_nothing_breaks(client: httpx.Client, library_path: str) -> None:
    body = b'{"vector": [1, 0, 0], "k": 0, "k": 1}'
    response = client.post(f"{library_path}/query", content=body, headers=JSON)
    assert [result["id"] for result in response.json()["results"]] == ["kept"]


@pytest.mark.parametrize(
    ("path", "status"),
    [("/nowhere", 404), ("/libraries?x=1", 400), ("/libraries/a", 405)],
)
def test_a_large_body_that_nobody_reads_gets_its_answer(client: httpx.Client, path: str, status: int) -> None:
    answer = client.post(path, content=b" " * (32 << 20), headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.headers["Content-Type"]) == (status, "application/problem+json")


@pytest.mark.parametrize("path", ["/api/v1/libraries", "/api/v1/libraries/none/query", "/api/v1/none"])
def test_a_body_is_let_go_of_without_the_garbage_collector(settings: Any, path: str) -> None:
    settings.AUTH = False
    body = b'{"no field": "' + b"a" * 1000 + b'"}'
    headers = [(b"host", b"localhost"), (b"content-type", b"application/json")]
    scope = {"type": "http", "method": "POST", "path": path, "query_string": b"", "headers": headers}
    scope |= {
        "http_version": "1.1",
        "server": ("localhost", 80),
        "client": ("127.0.0.1", 1),
    }
    sent: list[Answer] = []
    scope["state"] = {"is_gone": lambda: False, "send_whole": sent.append}

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body}

    async def send(message: dict[str, Any]) -> None:
        raise AssertionError("the answer is whole")

    before = sys.getrefcount(body)
    gc.disable()
    try:
        asyncio.run(application(scope, receive, send))
        until(lambda: sys.getrefcount(body) == before, "nothing refers to the body", 5)
    finally:
        gc.enable()
    assert 400 <= sent[0].status < 500
