"""Limits of requests, as clients meet them on a server of two workers."""

import re
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from django.urls import get_resolver
from pytest_django.fixtures import Settings

from apps.access.limits import kind_of, may_write
from tests.api.problems import assert_refused
from tests.server import Server, serving

pytestmark = pytest.mark.any_database

READS, WRITES = 40, 15


@pytest.fixture(scope="module")
def limited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with limits by address, that believes what its clients say of theirs."""
    settings = {
        "VECTORDB_TRUSTED_PROXIES": "127.0.0.1",
        "VECTORDB_ADDRESS_READS_PER_MINUTE": READS,
        "VECTORDB_ADDRESS_WRITES_PER_MINUTE": WRITES,
    }
    with serving(tmp_path_factory.mktemp("limited") / "data", **settings) as server:
        with client_of(server, "192.0.2.1") as client:
            client.post("/libraries", json={"id": "made", "name": "Made", "dimension": 2}).raise_for_status()
        yield server


def client_of(server: Server, address: str) -> httpx.Client:
    return server.client(headers={"X-Forwarded-For": address})


def test_a_minute_has_exactly_its_requests_on_all_workers(limited: Server) -> None:
    def ask(number: int) -> httpx.Response:
        with client_of(limited, "192.0.2.2") as client:
            if number % 2:
                return client.post("/libraries/made/query", json={"vector": [1, 0]})
            return client.get("/libraries/made/chunks")

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(ask, range(100)))
    assert Counter(answer.status_code for answer in answers) == {200: READS, 429: 100 - READS}
    left = {answer.headers["RateLimit"].partition(";t=")[0] for answer in answers if answer.status_code == 200}
    assert left == {f'"address-reads";r={number}' for number in range(READS)}
    for answer in answers:
        assert answer.headers["RateLimit-Policy"] == f'"address-reads";q={READS};w=60'
        if answer.status_code == 429:
            problem = assert_refused(answer, 429, "rate_limited")
            wait = int(answer.headers["Retry-After"])
            assert 0 < wait <= 61
            assert answer.headers["RateLimit"] == f'"address-reads";r=0;t={wait}'
            assert problem["detail"] == f"This address may make {READS} reads a minute. Wait {wait} s."


def test_writes_and_reads_are_counted_apart(limited: Server) -> None:
    with client_of(limited, "192.0.2.3") as client:
        calls = [("POST", "chunks"), ("DELETE", "chunks/nope"), ("POST", "chunks/delete"), ("PATCH", "")] * 5
        statuses = [client.request(method, f"/libraries/made/{path}", json={}).status_code for method, path in calls]
        assert 429 not in statuses[:WRITES]
        assert set(statuses[WRITES:]) == {429}
        assert client.post("/libraries/made/chunks/count", json={}).status_code == 200


def test_monitoring_and_files_are_not_counted(limited: Server) -> None:
    with client_of(limited, "192.0.2.4") as client:
        for path in ("/health", "/ready", "/static/vectordb/api.css"):
            for _ in range(READS + 1):
                assert client.get(limited.url + path).status_code == 200
        assert client.get("/libraries").headers["RateLimit"] == f'"address-reads";r={READS - 1}'


def test_one_network_of_ipv6_is_one_client(limited: Server) -> None:
    left = []
    for address in ("2001:db8::1", "[2001:db8::ffff]:1234", "2001:db8:0:1::1"):
        with client_of(limited, address) as client:
            left.append(client.get("/libraries").headers["RateLimit"])
    assert left == [f'"address-reads";r={number}' for number in (READS - 1, READS - 2, READS - 1)]


@pytest.mark.parametrize(
    "chain", ["192.0.2.5, 10.0.0.1", "evil, 192.0.2.6", "192.0.2.7:80", ",evil", "1.2.3.4.5, 192.0.2.8"]
)
def test_whatever_a_client_says_of_itself_it_is_counted_by_what_the_proxy_says(limited: Server, chain: str) -> None:
    with client_of(limited, chain) as client:
        first, second = (client.get("/libraries").headers["RateLimit"] for _ in range(2))
        client.headers["X-Forwarded-For"] = f"198.51.100.77, {chain.rpartition(',')[2]}"
        third = client.get("/libraries").headers["RateLimit"]
    assert [int(re.findall(r"r=(\d+)", text)[0]) for text in (second, third)] == [
        int(re.findall(r"r=(\d+)", first)[0]) - 1,
        int(re.findall(r"r=(\d+)", first)[0]) - 2,
    ]


def test_a_worker_that_is_killed_takes_no_counts_along(limited: Server) -> None:
    with client_of(limited, "192.0.2.9") as client:
        client.get("/libraries")
        for worker in limited.workers():
            worker.kill()
        while True:
            try:
                answer = client.get("/libraries")
                break
            except httpx.TransportError:
                continue
    assert answer.headers["RateLimit"] == f'"address-reads";r={READS - 2}'


def test_every_path_of_the_api_is_a_read_a_write_or_a_delete_as_it_says() -> None:
    reading = {"query", "query/batch", "chunks/get", "chunks/count", "chunks/list", "chunks/fields", "chunks/facets"}
    posted = set()
    for pattern in get_resolver().url_patterns:
        for path in getattr(pattern, "url_patterns", []):
            view = getattr(path.callback, "cls", None)
            if view is not None and hasattr(view, "post"):
                posted.add(str(path.pattern))
                url = "/api/v1/" + re.sub(r"<\w+:\w+>", "x", str(path.pattern))
                word = url.removeprefix("/api/v1/libraries/x/")
                is_read = word in reading or url == "/api/v1/keys/x/search-token"
                expected = "read" if is_read else "delete" if word == "chunks/delete" else "write"
                assert kind_of("POST", url) == expected, url
                assert kind_of("GET", url) == kind_of("HEAD", url) == "read"
                assert kind_of("DELETE", url) == "delete"
                assert kind_of("PUT", url) == kind_of("PATCH", url) == "write"
    assert len(posted) > len(reading)


def test_a_message_of_an_agent_is_a_read_that_may_write_where_agents_may(settings: Settings) -> None:
    assert kind_of("POST", "/mcp") == "read"
    for settings.MCP_WRITE in (False, True):
        assert may_write("POST", "/mcp") == settings.MCP_WRITE
        assert not may_write("POST", "/api/v1/libraries/x/query")
