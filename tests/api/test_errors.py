"""Every error, on every path, is a problem document; every response has its request id."""

import re
from typing import Any

import httpx
import pytest
from django.test import Client

from apps.api.errors import CODES
from tests.api.problems import assert_refused
from tests.api.raw import exchange
from tests.server import Server

# The paths of the server, and the methods that they have.
PATHS = {
    "/health": "GET HEAD",
    "/ready": "GET HEAD",
    "/api/schema": "GET HEAD",
    "/api/docs": "GET HEAD",
    "/api/v1/": "GET HEAD",
    "/api/v1/libraries": "GET POST HEAD",
    "/api/v1/libraries/{id}": "GET PATCH DELETE HEAD",
    "/api/v1/libraries/{id}/stats": "GET HEAD",
    "/api/v1/libraries/{id}/reindex": "POST",
    "/api/v1/libraries/{id}/reembed": "GET POST DELETE HEAD",
    "/api/v1/libraries/{id}/documents": "GET POST HEAD",
    "/api/v1/libraries/{id}/documents/batch": "GET PUT POST PATCH DELETE HEAD",
    "/api/v1/libraries/{id}/documents/doc": "GET PUT PATCH DELETE HEAD",
    "/api/v1/libraries/{id}/chunks": "GET POST HEAD",
    "/api/v1/libraries/{id}/chunks/alone": "GET PATCH DELETE HEAD",
    "/api/v1/libraries/{id}/chunks/get": "GET POST PATCH DELETE HEAD",
    "/api/v1/libraries/{id}/chunks/delete": "GET POST PATCH DELETE HEAD",
    "/api/v1/libraries/{id}/chunks/count": "GET POST PATCH DELETE HEAD",
    "/api/v1/libraries/{id}/query": "POST",
    "/api/v1/libraries/{id}/query/batch": "POST",
}
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "TRACE", "PROPFIND")


@pytest.fixture
def root(client: httpx.Client) -> httpx.URL:
    """The server's own URL."""
    return client.base_url.copy_with(path="/")


def allowed(response: httpx.Response) -> set[str]:
    """The methods that a path has by its own account; whether OPTIONS is among them does not matter."""
    return set(response.headers["Allow"].split(", ")) - {"OPTIONS"}


@pytest.mark.any_database
@pytest.mark.parametrize(("path", "methods"), PATHS.items())
def test_a_method_that_a_path_has_not_is_405(
    client: httpx.Client, root: httpx.URL, shared: str, path: str, methods: str
) -> None:
    url = root.join(path.format(id=shared))
    for method in set(METHODS) - set(methods.split()):
        response = client.request(method, url)
        if method == "HEAD":
            assert (response.status_code, response.content) == (405, b"")
        else:
            assert_refused(response, 405, "method_not_allowed")
        assert allowed(response) == set(methods.split()), method


@pytest.mark.any_database
@pytest.mark.parametrize(("path", "methods"), PATHS.items())
def test_head_and_options_are_answered(
    client: httpx.Client, root: httpx.URL, shared: str, path: str, methods: str
) -> None:
    url = root.join(path.format(id=shared))
    options = client.options(url)
    assert options.status_code in (200, 405)
    assert allowed(options) == set(methods.split())
    if "HEAD" in methods and not url.path.endswith(("batch", "get", "delete", "count")):
        get, head = client.get(url), client.head(url)
        assert (head.status_code, head.content) == (get.status_code, b"")
        assert head.headers["Content-Type"] == get.headers["Content-Type"]
        assert head.headers.get("ETag") == get.headers.get("ETag")


@pytest.mark.any_database
@pytest.mark.parametrize(
    "path",
    [
        "/nope",
        "/api",
        "/api/",
        "/api/v2/libraries",
        "/api/v1/nope",
        "/api/v1/libraries/",
        "/api/v1/libraries/{id}/",
        "/api/v1/libraries/{id}/nope",
        "/api/v1/libraries/{id}/chunks/",
        "/api/v1/libraries/{id}/chunks/alone/nope",
        "/api/v1/libraries/{id}/query/nope",
        "/api/v1/libraries//chunks",
        "/api/v1/libraries/a%2Fb",
        "/api/v1/libraries/a%00b",
        "/api/v1/libraries/%FF",
        "/static/nope",
        "/favicon.ico",
        "/%FF%FE",
        "/a%0D%0Ab",
        "/.env",
        "//",
    ],
)
def test_a_path_that_leads_nowhere_is_404(server: Server, shared: str, path: str) -> None:
    path = path.format(id=shared)
    for method in ("GET", "POST", "DELETE", "HEAD"):
        request = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n".encode()
        response = exchange(server, request, method)
        if method == "HEAD":
            assert (response.status_code, response.content) == (404, b"")
        elif response.status_code != 405:
            assert_refused(response, 404, "not_found")


@pytest.mark.any_database
@pytest.mark.parametrize("name", [".", "..", "%2E%2E"])
def test_a_dot_is_no_id_in_a_path(server: Server, shared: str, name: str) -> None:
    for path in (f"/libraries/{name}", f"/libraries/{shared}/chunks/{name}", f"/libraries/{shared}/documents/{name}"):
        request = f"GET /api/v1{path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
        assert_refused(exchange(server, request), 404, "not_found")


@pytest.mark.any_database
@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil:80", "a b", "", "@", "[::1"]
)
def test_another_host_is_refused_on_every_path(server: Server, host: str) -> None:
    for path in ("/health", "/api/v1/libraries", "/nope", "/static/nope", "/api/docs"):
        request = f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()
        problem = assert_refused(exchange(server, request), 400, "host_not_allowed")
        assert f"{host!r}, is not among VECTORDB_ALLOWED_HOSTS" in problem["detail"]


@pytest.mark.any_database
@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::1]", "LOCALHOST", "localhost:1", "127.0.0.1:65535"])
def test_loopback_is_served_by_any_of_its_names(server: Server, host: str) -> None:
    assert exchange(server, f"GET /health HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()).status_code == 200


FOREIGN = {
    "another site": ["Sec-Fetch-Site: cross-site"],
    "another port": ["Sec-Fetch-Site: same-site"],
    "another origin, by an older browser": ["Origin: http://evil.example"],
    "the same name in front": ["Origin: http://localhost.evil.example"],
    "this host at another port": ["Origin: http://localhost:1"],
    "no origin to name": ["Origin: null"],
    "its own site, but not its origin": ["Sec-Fetch-Site: same-origin", "Origin: http://evil.example"],
}
OWN = {
    "a program": [],
    "a page of this server": ["Sec-Fetch-Site: same-origin", "Origin: http://localhost"],
    "a page of this server, by an older browser": ["origin: HTTP://LocalHost"],
    "a person": ["Sec-Fetch-Site: none"],
}


@pytest.mark.any_database
@pytest.mark.parametrize("headers", FOREIGN.values(), ids=FOREIGN)
def test_a_foreign_page_changes_nothing(server: Server, shared: str, headers: list[str]) -> None:
    """A browser sends a POST with an empty body for any page, without asking the server first."""
    for method, path in [
        ("POST", f"/api/v1/libraries/{shared}/reindex"),
        ("POST", f"/api/v1/libraries/{shared}/query"),
        ("DELETE", f"/api/v1/libraries/{shared}"),
        ("POST", "/admin/login/"),
    ]:
        problem = assert_refused(exchange(server, request_of(method, path, headers), method), 403, "forbidden")
        assert "may not change anything" in problem["detail"]
    for method in ("GET", "HEAD", "OPTIONS"):
        request = request_of(method, f"/api/v1/libraries/{shared}", headers)
        assert exchange(server, request, method).status_code == 200


@pytest.mark.any_database
@pytest.mark.parametrize("headers", OWN.values(), ids=OWN)
def test_programs_and_the_servers_own_pages_change_things(server: Server, shared: str, headers: list[str]) -> None:
    request = request_of("POST", f"/api/v1/libraries/{shared}/reindex", headers)
    assert exchange(server, request, "POST").status_code == 202


def test_a_page_is_the_servers_own_at_its_port(server: Server, shared: str) -> None:
    origin = f"http://localhost:{server.port}"
    request = request_of("POST", f"/api/v1/libraries/{shared}/reindex", [f"Origin: {origin}"])
    assert_refused(exchange(server, request, "POST"), 403, "forbidden")
    request = request.replace(b"Host: localhost", f"Host: localhost:{server.port}".encode())
    assert exchange(server, request, "POST").status_code == 202


@pytest.mark.any_database
def test_a_foreign_page_changes_nothing_behind_another_server_of_wsgi() -> None:
    """The HTTP edge is not in front then."""
    for headers in ({"Sec-Fetch-Site": "cross-site"}, {"Origin": "http://evil.example"}):
        response = Client().post("/api/v1/libraries/a/reindex", headers=headers)
        assert (response.status_code, response.json()["code"]) == (403, "forbidden")


def request_of(method: str, path: str, headers: list[str]) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", "Content-Length: 0", *headers]
    return "\r\n".join([*lines, "", ""]).encode()


UNREADABLE = {
    "no HTTP": b"HELLO\r\n\r\n",
    "a path without an end": b"GET /" + b"a" * 10_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a header without an end": b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 10_000 + b"\r\n\r\n",
    "a length that is no number": b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: abc\r\n\r\n",
    "a negative length": b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\n",
}


@pytest.mark.any_database
@pytest.mark.parametrize("request_bytes", UNREADABLE.values(), ids=UNREADABLE)
def test_what_is_no_http_is_a_problem_too(server: Server, request_bytes: bytes) -> None:
    assert_refused(exchange(server, request_bytes), 400, "malformed")


@pytest.mark.any_database
@pytest.mark.parametrize("code", ["malformed", "invalid", "not_found"])
def test_type_and_title_come_with_the_code(client: httpx.Client, code: str) -> None:
    content = {"malformed": "{", "invalid": "{}", "not_found": '{"name": "N"}'}[code]
    response = client.request(
        "PATCH" if code == "not_found" else "POST",
        "/libraries/nope" if code == "not_found" else "/libraries",
        content=content,
        headers={"Content-Type": "application/json"},
    )
    status, title = CODES[code]
    body = assert_refused(response, status, code, *(["/name"] if code == "invalid" else []))
    assert (body["type"], body["title"]) == (f"urn:vectordb:problem:{code}", title)


def test_at_most_100_errors_are_listed(client: httpx.Client, shared: str) -> None:
    wrong: dict[str, Any] = {"embedding": [1, 0], "colour": 1}
    for fields in (["embedding"], ["embedding", "colour"]):
        chunks = [{field: wrong[field] for field in fields}] * 150
        body = client.post(f"/libraries/{shared}/chunks", json={"chunks": chunks}).json()
        assert (body["code"], len(body["errors"])) == ("invalid", 100)
        assert "149 more in" not in body["detail"]


SANE = ["a", "0f4d6f1c-5b2a", "trace:1/2+3=4_5.6", "x" * 128]
INSANE = ["", " ", "a b", "é", "x" * 129, '"', "a,b", "<script>", "{}"]


@pytest.mark.any_database
@pytest.mark.parametrize("path", ["/health", "/api/v1/libraries", "/nope", "/api/docs", "/api/v1/libraries/nope"])
def test_every_response_has_a_request_id(server: Server, path: str) -> None:
    for given in [*SANE, *INSANE]:
        head = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nX-Request-ID: {given}\r\n\r\n"
        response = exchange(server, head.encode())
        request_id = response.headers["X-Request-ID"]
        assert request_id == given if given in SANE else re.fullmatch("[0-9a-f]{32}", request_id), given
        if response.status_code >= 400:
            assert response.json()["request_id"] == request_id
    foreign = exchange(server, f"GET {path} HTTP/1.1\r\nHost: evil\r\nX-Request-ID: mine\r\n\r\n".encode())
    assert foreign.json()["request_id"] == foreign.headers["X-Request-ID"] == "mine"


def test_request_ids_differ(client: httpx.Client) -> None:
    assert len({client.get("/libraries").headers["X-Request-ID"] for _ in range(5)}) == 5


def test_health_and_readiness(client: httpx.Client, root: httpx.URL) -> None:
    health, ready = client.get(root.join("/health")), client.get(root.join("/ready"))
    assert (health.status_code, health.json()) == (200, {"status": "ok"})
    assert (ready.status_code, ready.json()["status"]) == (200, "ready")
    assert set(ready.json()["checks"].values()) == {"ok"}


@pytest.mark.any_database
@pytest.mark.parametrize("accept", ["application/json", "*/*", "application/xml", "image/png", "nonsense", ""])
def test_programs_get_json_whatever_they_accept(client: httpx.Client, shared: str, accept: str) -> None:
    headers = {"Accept": accept}
    for path in ("/libraries", f"/libraries/{shared}", f"/libraries/{shared}/stats"):
        assert client.get(path, headers=headers).headers["Content-Type"] == "application/json"
    query = client.post(f"/libraries/{shared}/query", json={"vector": [1, 0, 0]}, headers=headers)
    assert query.headers["Content-Type"] == "application/json"
    assert_refused(client.get("/libraries/nope", headers=headers), 404, "not_found")


@pytest.mark.any_database
@pytest.mark.parametrize("accept", ["text/html", "application/json"])
def test_no_other_site_may_frame_or_sniff(client: httpx.Client, accept: str) -> None:
    answer = client.get("/libraries", headers={"Accept": accept})
    assert answer.headers["X-Frame-Options"] == "DENY"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]


@pytest.mark.any_database
@pytest.mark.parametrize(
    ("path", "meant"),
    [
        ("/api/v1/libraries/{id}/search", "/api/v1/libraries/{id}/query"),
        ("/api/v1/libraries/{id}/chunks/", "/api/v1/libraries/{id}/chunks"),
        ("/api/v1/collections", "/api/v1/libraries"),
        ("/v1/libraries/{id}/points", "/api/v1/libraries/{id}/chunks"),
        ("/libraries", "/api/v1/libraries"),
        ("/v1/collections/{id}/points/a//b c/", "/api/v1/libraries/{id}/chunks/a%2F%2Fb%20c%2F"),
        ("/api/v1/librarys/{id}", "/api/v1/libraries/{id}"),
        ("/api/v1/libraries/{id}/document", "/api/v1/libraries/{id}/documents"),
    ],
)
def test_a_path_that_leads_nowhere_names_the_one_that_is_meant(
    client: httpx.Client, root: httpx.URL, path: str, meant: str
) -> None:
    response = client.get(root.join(path.format(id="some-notes")))
    problem = assert_refused(response, 404, "not_found")
    assert problem["detail"].endswith(f" Try {meant.format(id='some-notes')} instead.")


def test_another_path_is_told_where_the_paths_are(client: httpx.Client, root: httpx.URL) -> None:
    problem = assert_refused(client.get(root.join("/wp-login.php")), 404, "not_found")
    assert problem["detail"] == "There is nothing at /wp-login.php. /api/docs lists the paths that there are."


def test_a_wrong_method_is_told_the_right_ones(client: httpx.Client, shared: str) -> None:
    for method, path, there_are in (
        ("PUT", f"/libraries/{shared}", "use GET, PATCH or DELETE."),
        ("GET", f"/libraries/{shared}/query", "use POST."),
        ("DELETE", "/libraries", "use GET or POST."),
    ):
        problem = assert_refused(client.request(method, path), 405, "method_not_allowed")
        assert problem["detail"] == f"This path has no method {method}; {there_are}"


def test_what_does_not_exist_is_told_how_it_is_made(client: httpx.Client, shared: str) -> None:
    for path, remedy in (
        ("/libraries/none", "POST /api/v1/libraries makes one."),
        (f"/libraries/{shared}/documents/none", "PUT at its path makes it."),
        (f"/libraries/{shared}/chunks/none", "POST to its chunks makes it."),
    ):
        assert assert_refused(client.get(path), 404, "not_found")["detail"].endswith(remedy)


@pytest.mark.any_database
@pytest.mark.parametrize(
    ("path", "body", "pointer", "detail"),
    [
        ("query", {"vector": [1, 0, 0], "top_k": 3}, "/top_k", "try k instead"),
        ("query", {"query": "apple", "k": 3}, "/query", "try text instead"),
        ("query", {"vector": [1, 0, 0], "fliter": {}}, "/fliter", "try filter instead"),
        ("query", {"vector": [1, 0, 0], "hybrid": {"rrfk": 3}}, "/hybrid/rrfk", "try rrf_k instead"),
        ("query/batch", {"queries": [{"vector": [1, 0, 0], "limit": 3}]}, "/queries/0/limit", "try k instead"),
        ("chunks", {"chunks": [{"content": "x"}]}, "/chunks/0/content", "try text instead"),
        ("chunks", {"chunks": [{"vector": [1]}]}, "/chunks/0/vector", "try embedding instead"),
        ("chunks", {"points": [{"text": "x"}]}, "/points", "try chunks instead"),
        ("chunks", {"chunks": [{"ttl": 60}]}, "/chunks/0/ttl", "try expires_at instead"),
        ("chunks/list", {"sort": [{"field": "a"}]}, "/sort", "try order_by instead"),
        ("chunks/list", {"order_by": [{"field": "a", "order": "asc"}]}, "/order_by/0/order", "try direction instead"),
        ("chunks/update", {"metadata": {}, "ids": [], "mode": "merge"}, "/mode", "try metadata_mode instead"),
        (
            "chunks",
            {"chunks": [{"zzz": 1}]},
            "/chunks/0/zzz",
            "there are: text, embed_text, embedding, metadata, expires_at, id, document_id",
        ),
        ("documents", {"text": "x", "chunking": {"chunk_size": 9}}, "/chunking/chunk_size", "try max_tokens instead"),
    ],
)
def test_an_unknown_field_names_the_one_that_is_meant(
    client: httpx.Client, shared: str, path: str, body: dict[str, Any], pointer: str, detail: str
) -> None:
    response = client.post(f"/libraries/{shared}/{path}", json=body)
    assert response.status_code == 400
    faults = {error["pointer"]: error["detail"] for error in response.json()["errors"]}
    assert faults[pointer] == f"is not a known field; {detail}"


@pytest.mark.any_database
@pytest.mark.parametrize(
    ("path", "item", "field"),
    [
        ("chunks", {"id": "a", "text": "An apple", "metadata": {}}, "chunks"),
        ("documents/batch", {"title": "T", "text": "An apple"}, "documents"),
        ("query/batch", {"text": "apple", "k": 3}, "queries"),
    ],
)
def test_an_item_that_is_in_no_list_is_recognised(
    client: httpx.Client, shared: str, path: str, item: dict[str, Any], field: str
) -> None:
    for body, pointer in ((item, f"/{field}"), ([item], "")):
        problem = assert_refused(client.post(f"/libraries/{shared}/{path}", json=body), 400, "invalid", pointer)
        assert problem["detail"].endswith(f', {{"{field}": [{{...}}]}}.')


@pytest.mark.any_database
def test_an_object_that_is_within_no_list_is_no_item(client: httpx.Client, shared: str) -> None:
    answer = client.post(f"/libraries/{shared}/reembed", json={"provider": "hashing", "model": "hashing-64"})
    assert_refused(answer, 400, "invalid", "/embedding", "/provider", "/model")
    assert "list" not in answer.json()["detail"]
