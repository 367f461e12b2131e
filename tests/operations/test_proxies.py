"""What a server behind a reverse proxy believes, where its links lead, and what pages of other origins may ask."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.server import Server, serving

pytestmark = pytest.mark.any_database

BASE = "/some/vectors"
APP = "https://app.example.com"
PAGE = {"Accept": "text/html"}


@pytest.fixture(scope="module")
def proxied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that believes its clients as reverse proxies, below a path."""
    settings = {
        "VECTORDB_BASE_PATH": f"{BASE}/",
        "VECTORDB_TRUSTED_PROXIES": "127.0.0.0/8,10.0.0.1",
        "VECTORDB_ALLOWED_HOSTS": "localhost,127.0.0.1,vectors.example.com",
        "VECTORDB_TLS": 1,
        "VECTORDB_CORS_ORIGINS": f"{APP}, http://localhost:3000",
    }
    with serving(tmp_path_factory.mktemp("proxied") / "data", **settings) as server:
        yield server


@pytest.fixture
def below(proxied: Server) -> Iterator[httpx.Client]:
    """A client that asks as a proxy with TLS does, with the path in front."""
    headers = {"Host": "vectors.example.com", "X-Forwarded-Proto": "https"} | proxied.authorization
    with httpx.Client(base_url=proxied.url + BASE, headers=headers, trust_env=False) as client:
        yield client


@pytest.fixture
def made(below: httpx.Client) -> Iterator[str]:
    """The path of a library of three chunks, below the base path."""
    location = below.post("/api/v1/libraries", json={"id": "made", "name": "Made", "dimension": 2}).headers["Location"]
    path = location.removeprefix(BASE)
    chunks = [{"id": f"a/{i}", "embedding": [1, i]} for i in range(3)]
    below.post(f"{path}/chunks", json={"chunks": chunks}).raise_for_status()
    yield path
    below.delete(path)


def test_links_lead_below_the_base_path(below: httpx.Client, made: str) -> None:
    assert below.get(made).json()["id"] == "made"
    root = below.get("/api/v1/").json()
    assert root == {
        "libraries": f"{BASE}/api/v1/libraries",
        "schema": f"{BASE}/api/schema",
        "docs": f"{BASE}/api/docs",
    }
    page = below.get(f"{made}/chunks?limit=2", headers=PAGE)
    for path in ("/api/v1/", "/api/v1/libraries", "/api/docs", "/admin/", "/static/vectordb/api.css"):
        assert f'"{BASE}{path}"' in page.text
    assert f'href="{BASE}{made}/chunks/a%2F1"' in page.text
    assert 'href="/api' not in page.text
    assert below.get("/static/vectordb/api.css").status_code == 200
    assert below.get("/api/schema").json()["servers"] == [{"url": BASE}]
    for path in ("", "/", "/api/v1"):
        assert below.get(path).headers["Location"] == f"{BASE}/api/v1/"
    assert below.get("/admin").headers["Location"] == f"{BASE}/admin/"
    assert f"Try {BASE}/api/v1/libraries instead" in below.get("/api/v1/collections").json()["detail"]


def test_a_proxy_may_take_the_base_path_away(proxied: Server, below: httpx.Client, made: str) -> None:
    assert httpx.get(f"{proxied.url}{made}", headers=proxied.authorization).json() == below.get(made).json()
    assert httpx.get(f"{proxied.url}/health").status_code == 200
    assert below.get("/health").status_code == 200
    # What only begins alike is another path.
    assert httpx.get(f"{proxied.url}{BASE}s/health", headers=proxied.authorization).status_code == 404


def test_queries_are_answered_below_the_base_path(below: httpx.Client, made: str) -> None:
    answer = below.post(f"{made}/query", json={"vector": [1, 0], "k": 1})
    assert [result["id"] for result in answer.json()["results"]] == ["a/0"]


def test_the_admin_behind_tls(proxied: Server, below: httpx.Client) -> None:
    form = below.get("/admin/login/")
    cookie = form.headers["Set-Cookie"]
    assert "Secure" in cookie
    assert f"Path={BASE}/" in cookie
    assert "SameSite=Strict" in cookie
    assert below.get("/admin/").headers["Location"] == f"{BASE}/admin/login/?next={BASE}/admin/"
    below.cookies.clear()
    token = form.text.partition('name="csrfmiddlewaretoken" value="')[2].partition('"')[0]
    fields = {"csrfmiddlewaretoken": token, "username": "nobody", "password": "wrong"}
    headers = {"Cookie": cookie.partition(";")[0], "Referer": f"https://vectors.example.com{BASE}/admin/login/"}
    answer = below.post("/admin/login/", data=fields, headers=headers | {"Origin": "https://vectors.example.com"})
    assert "Please enter the correct username and password" in answer.text
    refused = below.post("/admin/login/", data=fields, headers=headers | {"Origin": "https://evil.example"})
    assert refused.json()["code"] == "forbidden"
    # Without TLS there is no login.
    plain = httpx.get(f"{proxied.url}{BASE}/admin/login/")
    assert plain.headers["Location"] == f"https://127.0.0.1:{proxied.port}{BASE}/admin/login/"


def test_the_host_is_the_one_that_the_proxy_was_asked_for(below: httpx.Client) -> None:
    assert below.get("/ready", headers={"Host": "inside", "X-Forwarded-Host": "vectors.example.com"}).status_code == 200
    refused = below.get("/ready", headers={"X-Forwarded-Host": "vectors.example.com, evil.example"})
    assert "'evil.example'" in refused.json()["detail"]


def test_every_answer_has_the_headers_that_protect_people(below: httpx.Client, made: str) -> None:
    for path in ("/health", "/api/v1/", "/nowhere", made, "/admin/login/", "/api/docs", "/static/admin/css/base.css"):
        headers = below.get(path, headers=PAGE).headers
        assert headers["Strict-Transport-Security"] == "max-age=31536000"
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert "script-src 'self'; style-src 'self'" in headers["Content-Security-Policy"]
        assert headers["Referrer-Policy"] == "same-origin"
        assert headers.get_list("X-Frame-Options") == ["DENY"]
        # Only files are the same for everybody. Pages of no listed origin may use neither.
        assert ("no-store" in headers["Cache-Control"]) == (not path.startswith("/static"))
        assert "Access-Control-Allow-Origin" not in headers


def test_a_page_of_a_listed_origin_may_use_the_api(below: httpx.Client, made: str) -> None:
    asking = {"Origin": APP, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "x-api-key"}
    preflight = below.options(f"{made}/query", headers=asking)
    assert preflight.headers["Access-Control-Allow-Origin"] == APP
    assert "x-api-key" in preflight.headers["Access-Control-Allow-Headers"]
    assert "POST" in preflight.headers["Access-Control-Allow-Methods"]
    browser = {"Origin": APP, "Sec-Fetch-Site": "cross-site"}
    calls: list[tuple[str, str, Any, int]] = [
        ("POST", f"{made}/query", {"vector": [1, 0]}, 200),
        ("POST", f"{made}/query", {"vector": [1]}, 400),
        ("POST", f"{made}/chunks", {"chunks": [{"id": "b", "embedding": [1, 1]}]}, 200),
        ("DELETE", f"{made}/chunks/b", None, 204),
        ("GET", f"{made}/chunks/b", None, 404),
    ]
    for method, path, body, status in calls:
        answer = below.request(method, path, json=body, headers=browser)
        assert (answer.status_code, answer.headers["Access-Control-Allow-Origin"]) == (status, APP)
        assert "X-Request-ID" in answer.headers["Access-Control-Expose-Headers"]
        assert "Access-Control-Allow-Credentials" not in answer.headers


@pytest.mark.parametrize("origin", ["https://evil.example", "http://app.example.com", f"{APP}.evil.example", "null"])
def test_a_page_of_another_origin_may_not(below: httpx.Client, made: str, origin: str) -> None:
    browser = {"Origin": origin, "Sec-Fetch-Site": "cross-site"}
    refused = below.post(f"{made}/query", json={"vector": [1, 0]}, headers=browser)
    assert refused.status_code == 403
    asking = browser | {"Access-Control-Request-Method": "DELETE"}
    for answer in (refused, below.options(made, headers=asking), below.get(made, headers=browser)):
        assert "Access-Control-Allow-Origin" not in answer.headers


def test_the_admin_is_closed_to_every_other_origin(below: httpx.Client) -> None:
    asking = {"Origin": APP, "Access-Control-Request-Method": "POST"}
    assert "Access-Control-Allow-Origin" not in below.options("/admin/login/", headers=asking).headers


def test_django_finds_nothing_to_complain_about(proxied: Server) -> None:
    checked = proxied.manage("check", "--deploy", "--fail-level", "WARNING")
    assert checked.returncode == 0, checked.stderr
