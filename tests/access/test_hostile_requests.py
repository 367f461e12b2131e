"""What is sent to do harm is refused like any other mistake: bombs, tricks with paths and headers, forged log lines."""

import gzip
from contextlib import ExitStack
from typing import Any

import httpx
import orjson
import pytest

from tests.api.problems import assert_refused
from tests.server import Server
from tests.sockets import connect, read_response

pytestmark = pytest.mark.any_database

JSON = {"Content-Type": "application/json"}
BOMBS: dict[str, bytes] = {
    "arrays": b"[" * 200_000,
    "closed arrays": b"[" * 100_000 + b"]" * 100_000,
    "objects": b'{"a":' * 100_000,
    "arrays in a filter": b'{"vector": [1, 0, 0], "filter": {"a": ' + b"[" * 50_000 + b"]" * 50_000 + b"}}",
    "conditions in a filter": b'{"vector": [1, 0, 0], "filter": ' + b'{"$not": ' * 50_000 + b"{}" + b"}" * 50_001,
    "a number of 100,000 digits": b'{"vector": [1, 0, 0], "k": ' + b"9" * 100_000 + b"}",
    "a number beyond all": b'{"vector": [1, 0, 0], "k": 1e999999999}',
    "a component beyond all": b'{"vector": [1e999999999, 0, 0]}',
    "a component of 100,000 digits": b'{"vector": [' + b"9" * 100_000 + b", 0, 0]}",
    "a filter of 100,000 digits": b'{"vector": [1, 0, 0], "filter": {"n": ' + b"9" * 100_000 + b"}}",
    "400,000 keys": orjson.dumps({str(number): 0 for number in range(400_000)}),
    "600,000 values": b'{"vector": [1, 0, 0], "x": [' + b"{}," * 600_000 + b"{}]}",
}


@pytest.mark.parametrize("path", ["query", "chunks", "chunks/update", "query/batch"])
@pytest.mark.parametrize("body", BOMBS.values(), ids=BOMBS)
def test_a_bomb_of_json_is_a_bad_request(client: httpx.Client, library: str, path: str, body: bytes) -> None:
    answer = client.post(f"/libraries/{library}/{path}", content=body, headers=JSON)
    assert answer.status_code == 400, answer.text[:500]
    assert len(answer.content) < 50_000


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd", "gzip, gzip", "x"])
def test_a_compressed_body_is_not_unpacked(client: httpx.Client, library: str, coding: str) -> None:
    bomb = gzip.compress(gzip.compress(b'{"vector": [1, 0, 0]}' + b" " * 10_000_000))
    for method, path in (("POST", "query"), ("POST", "query/batch"), ("POST", "chunks"), ("PUT", "documents/a")):
        headers = JSON | {"Content-Encoding": coding}
        answer = client.request(method, f"/libraries/{library}/{path}", content=bomb, headers=headers)
        assert_refused(answer, 415, "unsupported_media_type")


PATHS = [
    "/api/v1/libraries/{id}/../../../admin/",
    "/api/v1/libraries/%2e%2e/%2e%2e/admin/",
    "/static/../manage.py",
    "/static/%2e%2e/%2e%2e/manage.py",
    "/static/..%2f..%2fmanage.py",
    "/static/%2fetc/passwd",
    "/static//etc/passwd",
    "/static/..%5c..%5cmanage.py",
    "/static/%00",
    "/api/v1/libraries/%00",
    "/api/v1/libraries/{id}%0d%0aX-Evil:%20yes",
    "/api/v1/libraries/%c0%ae%c0%ae/",
    "/api/v1/libraries/%ff%fe",
    "/api/v1/libraries/{id};.css",
    "/api/v1/libraries/{id}/chunks/%2e%2e%2f%2e%2e",
    "/api/v1/libraries/{id}/chunks/..",
    "/api//v1//libraries",
    "//api/v1/libraries",
    "/API/V1/LIBRARIES",
    "/api/v1/libraries/{id}/query/../stats",
    "/api/v1/libraries/{id}/chunks/" + "a" * 8000,
    "/%",
    "/%zz",
    "/?%00=%00",
    "/api/v1/libraries?limit=%00&cursor=%ff",
    "http://evil.example/api/v1/libraries",
]


@pytest.mark.parametrize("path", PATHS, ids=lambda path: str(path)[:40])
def test_no_path_leads_out_of_what_there_is(server: Server, library: str, path: str) -> None:
    with ExitStack() as stack:
        target = path.replace("{id}", library)
        head = f"GET {target} HTTP/1.1\r\nHost: localhost\r\n{_authorization(server)}\r\n"
        answer = read_response(connect(server, stack, head.encode()))
    assert answer.status_code in (302, 400, 404), answer.text
    assert "x-evil" not in answer.headers
    assert b"DJANGO_SETTINGS_MODULE" not in answer.content
    assert b"root:" not in answer.content


def _authorization(server: Server) -> str:
    """The line of a head with the key of the server, if it asks for one."""
    file = server.folder / "admin_key"
    return f"X-API-Key: {file.read_text().strip()}\r\n" if file.exists() else ""


@pytest.mark.parametrize(
    "headers",
    [
        {"X-HTTP-Method-Override": "DELETE"},
        {"X-HTTP-Method": "DELETE", "X-Method-Override": "DELETE"},
        {"X-Original-URL": "/api/v1/libraries", "X-Rewrite-URL": "/admin/"},
        {"X-Forwarded-Host": "evil.example", "X-Forwarded-Proto": "https", "X-Forwarded-For": "192.0.2.1"},
        {"Forwarded": "for=192.0.2.1;host=evil.example;proto=https", "X-Real-IP": "192.0.2.1"},
        {"X-Forwarded-Prefix": "/evil", "X-Script-Name": "/evil", "Script-Name": "/evil"},
        {"Range": "bytes=0-1", "If-Range": "x", "TE": "trailers", "Expect": "200-ok"},
        {"X-Request-ID": "a\tb", "User-Agent": "\x7f"},
    ],
    ids=lambda headers: next(iter(headers)),
)
def test_headers_that_others_obey_do_nothing(client: httpx.Client, library: str, headers: dict[str, str]) -> None:
    plain = client.post(f"/libraries/{library}/chunks/count", json={})
    answer = client.post(f"/libraries/{library}/chunks/count", json={}, headers=headers)
    if answer.status_code != 400:
        assert (answer.status_code, answer.json()) == (plain.status_code, plain.json())
    made: Any = client.post("/libraries", json={"name": "Made"}, headers=headers)
    if made.status_code != 400:
        assert made.headers["Location"].startswith("/api/v1/libraries/")
    assert client.get(f"/libraries/{library}").status_code == 200
