"""Limits of keys and of refused credentials, on a server of two workers that counts in a Redis."""

import re
import sqlite3
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import httpx
import pytest

from tests.access.callers import in_hours, mistyped
from tests.access.redis_server import RedisServer
from tests.api.problems import assert_refused
from tests.server import Server, serving, until

RUNNING = 3


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(tmp_path_factory.mktemp("redis")) as redis:
        yield redis


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory, redis: RedisServer) -> Iterator[Server]:
    settings = {
        "VECTORDB_AUTH": "on",
        "VECTORDB_LOG_LEVEL": "debug",
        "VECTORDB_FAILED_LOGINS_PER_MINUTE": 6,
        "VECTORDB_KEY_CONCURRENT_REQUESTS": RUNNING,
        "VECTORDB_KEY_WRITES_PER_MINUTE": 1000,
        "VECTORDB_TRUSTED_PROXIES": "127.0.0.1",
        "REDIS_URL": redis.url,
    }
    with serving(tmp_path_factory.mktemp("guarded") / "data", **settings) as server:
        with client_with(server, admin_key(server)) as client:
            client.post("/libraries", json={"id": "made", "name": "Made", "dimension": 2}).raise_for_status()
        yield server


def admin_key(server: Server) -> str:
    return (server.folder / "admin_key").read_text().strip()


def client_with(server: Server, key: str, address: str = "192.0.2.1") -> httpx.Client:
    headers = {"X-API-Key": key, "X-Forwarded-For": address}
    return httpx.Client(base_url=server.api, timeout=60, headers=headers, trust_env=False, verify=False)


def make_key(server: Server, **limits: int) -> str:
    with client_with(server, admin_key(server)) as client:
        body: dict[str, Any] = {"name": "limited", "scopes": ["write"], "limits": limits}
        key: str = client.post("/keys", json=body).raise_for_status().json()["key"]
        return key


def statuses(server: Server, key: str, count: int) -> Counter[int]:
    """Of as many counts by a key, two at a time, each on a connection of its own."""

    def ask(_: int) -> int:
        with client_with(server, key) as client:
            return client.post("/libraries/made/chunks/count", json={}).status_code

    with ThreadPoolExecutor(2) as pool:
        return Counter(pool.map(ask, range(count)))


@pytest.mark.any_database
def test_credentials_that_are_refused_too_often_are_not_looked_at_longer(guarded: Server) -> None:
    wrong = [mistyped(admin_key(guarded)), "vdb_nothing", "a" * 300, admin_key(guarded) + "\u00e9"]
    with client_with(guarded, "", "192.0.2.2") as client:
        answers = [client.get("/libraries", headers={"X-API-Key": wrong[i % 4].encode()}) for i in range(10)]
        assert [answer.status_code for answer in answers] == [401] * 6 + [429] * 4
        problem = assert_refused(answers[-1], 429, "rate_limited")
        assert "192.0.2.2" in problem["detail"]
        assert 0 < int(answers[-1].headers["Retry-After"]) <= 61
        # A good key is, and so is none at all.
        assert client.get("/libraries", headers={"X-API-Key": admin_key(guarded)}).status_code == 200
        del client.headers["X-API-Key"]
        assert {client.get("/libraries").status_code for _ in range(8)} == {401}
    with client_with(guarded, "vdb_nothing", "192.0.2.3") as client:
        assert client.get("/libraries").status_code == 401


@pytest.mark.any_database
def test_a_key_has_its_own_limit_whatever_the_settings(guarded: Server) -> None:
    key = make_key(guarded, writes_per_minute=2)
    with client_with(guarded, key) as client:
        answers = [client.post("/libraries/made/chunks/delete", json={"ids": ["nope"]}) for _ in range(3)]
        assert [answer.status_code for answer in answers] == [200, 200, 429]
        assert answers[0].headers["RateLimit-Policy"] == '"writes";q=2;w=60'
        assert [answer.headers["RateLimit"].partition(";t")[0] for answer in answers] == [
            '"writes";r=1',
            '"writes";r=0',
            '"writes";r=0',
        ]
        assert client.get("/libraries").headers.get("RateLimit") is None
        # A search token is no write.
        token = {"libraries": ["made"], "expires_at": in_hours(1)}
        assert client.post(f"/keys/{key.split('_')[1]}/search-token", json=token).status_code == 200
    with client_with(guarded, make_key(guarded)) as client:
        answer = client.post("/libraries/made/chunks/delete", json={"ids": ["nope"]})
        assert answer.headers["RateLimit-Policy"] == '"writes";q=1000;w=60'


@pytest.mark.any_database
def test_the_log_holds_no_secret_and_no_line_of_a_client(guarded: Server) -> None:
    key, forged = make_key(guarded), "x%0AFORGED%0D%0AFORGED%E2%80%A8FORGED"
    with client_with(guarded, key) as client:
        client.get(f"/libraries/{forged}")
        client.get(
            f"/libraries/made/chunks/{forged}?limit={forged}", headers={"User-Agent": "\x85FORGED\u2028".encode()}
        )
        client.post("/libraries/made/query", json={"chunk_id": "a\nFORGED", "text": "b\nFORGED"})
        client.get(
            f"/libraries?key={key}", headers={"Authorization": f"Bearer {key}", "traceparent": "\x85FORGED".encode()}
        )
        client.post(
            "/libraries/made/chunks", json={"chunks": [{"id": "k", "text": key, "embedding": [1, 1], "x": key}]}
        )
        client.get("/libraries", headers={"X-API-Key": mistyped(key)})
    lines = guarded.log.read_text(errors="replace").splitlines()
    assert not [line for line in lines if line.lstrip().startswith("FORGED")]
    holding = [line for line in lines if re.search(r"vdb_\w{12}_\w{30}", line) or "a-secret" in line]
    # The server has printed the key that it made.
    assert [line.partition(":")[0] for line in holding] == ["The admin key, which is printed this once"]


@pytest.mark.any_database
def test_the_log_has_the_address_of_who_guesses_a_key_or_a_password(guarded: Server) -> None:
    typed = {"username": "mallory", "password": "guessed-4711"}
    with client_with(guarded, mistyped(admin_key(guarded)), "192.0.2.77") as client:
        client.get("/libraries", headers={"X-Request-ID": "guesses-a-key"})
        # A body without a length may be too large for memory: its head is answered before the rest is here.
        head = {"Content-Type": "application/x-ndjson"}
        assert client.post("/libraries/made/import", content=iter([b"x"]), headers=head).status_code == 401
        login = guarded.url + "/api/login"
        client.get(login)
        typed["csrfmiddlewaretoken"] = client.cookies["csrftoken"]
        client.post(login, data=typed, headers={"X-Request-ID": "guesses-a-password"})
    until(lambda: "INFO request request_id=guesses-a-password" in guarded.log.read_text(), "the last request is logged")
    log = guarded.log.read_text()
    found = [line for line in log.splitlines() if "INFO request " in line and "address=192.0.2.77" in line]
    assert len(found) == 4
    [warning] = [line for line in log.splitlines() if "AXES: New login failure" in line]
    assert "mallory" in warning
    assert "192.0.2.77" in warning
    assert "guessed-4711" not in log


@pytest.mark.sqlite
def test_what_a_killed_worker_ran_is_not_counted_on(guarded: Server) -> None:
    key = make_key(guarded)

    def write(number: int) -> httpx.Response:
        with client_with(guarded, key) as client:
            return client.post("/libraries/made/chunks", json={"chunks": [{"id": f"{number}", "embedding": [1, 1]}]})

    with closing(sqlite3.connect(guarded.folder / "vectordb.sqlite3", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with ThreadPoolExecutor(2 * RUNNING) as pool:
            # They wait for the other writer, as many as may.
            waiting = [pool.submit(write, number) for number in range(2 * RUNNING)]
            until(lambda: sum(one.done() for one in waiting) == RUNNING, "the others are refused")
            refused = [one.result() for one in waiting if one.done()]
            problem = assert_refused(refused[0], 429, "rate_limited")
            assert "VECTORDB_KEY_CONCURRENT_REQUESTS" in problem["detail"]
            assert {answer.headers["Retry-After"] for answer in refused} == {"1"}
            # Another key is not hindered.
            with client_with(guarded, admin_key(guarded)) as client:
                assert client.get("/libraries/made").status_code == 200
            for worker in guarded.workers():
                worker.kill()
            until(lambda: all(one.done() for one in waiting), "their clients know")
        other.execute("ROLLBACK")
    until(lambda: len(guarded.workers()) == 2, "there are new workers")
    with ThreadPoolExecutor(RUNNING) as pool:
        assert {answer.status_code for answer in pool.map(write, range(RUNNING))} == {200}


@pytest.mark.any_database
def test_limits_hold_in_redis_and_on_when_it_is_gone(guarded: Server, redis: RedisServer) -> None:
    assert statuses(guarded, make_key(guarded, reads_per_minute=20), 50) == {200: 20, 429: 30}
    other = make_key(guarded, reads_per_minute=20)
    assert statuses(guarded, other, 5) == {200: 5}
    redis.kill()
    # The host begins anew, and counts exactly: its workers together.
    assert statuses(guarded, other, 50) == {200: 20, 429: 30}
    lines = [line for line in guarded.log.read_text().splitlines() if "Redis does not answer" in line]
    assert 1 <= len(lines) <= 2, "one of each worker"
