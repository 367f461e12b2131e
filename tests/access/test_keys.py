"""Keys: made, changed, rotated and revoked, by the API, by a command, in the admin."""

import re
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.access.callers import bearer, in_hours, log_in, make_key
from tests.api.problems import assert_refused
from tests.server import Server, serving, until

KEY = re.compile(r"vdb_[0-9A-Za-z]{12}_[0-9A-Za-z]{38}")


def status(client: httpx.Client, key: str) -> int:
    return client.get("/libraries", headers=bearer(key)).status_code


def test_a_key_is_shown_once(client: httpx.Client) -> None:
    body = {
        "name": "Website",
        "scopes": ["read", "write"],
        "libraries": ["docs-*", "one"],
        "expires_at": "2100-01-01T00:00:00Z",
        "limits": {"reads_per_minute": 60},
    }
    answer = client.post("/keys", json=body)
    made = answer.json()
    assert answer.status_code == 201
    assert answer.headers["Location"] == f"/api/v1/keys/{made['id']}"
    key = made.pop("key")
    assert KEY.fullmatch(key)
    assert key.split("_")[1] == made["id"]
    assert made | body == made | {
        "scopes": ["read", "write"],
        "expires_at": "2100-01-01T00:00:00Z",
        "limits": {"reads_per_minute": 60},
        "libraries": ["docs-*", "one"],
        "name": "Website",
    }
    assert made["limits"] == {"reads_per_minute": 60, "writes_per_minute": None}
    assert made["expires_at"] == "2100-01-01T00:00:00.000000Z"
    read = client.get(f"/keys/{made['id']}")
    assert read.json() == made
    assert key not in read.text + client.get("/keys?limit=500").text


@pytest.mark.parametrize(
    ("body", "at"),
    [
        ({"name": ""}, "/name"),
        ({"scopes": []}, "/scopes"),
        ({"scopes": ["search"]}, "/scopes/0"),
        ({"scopes": ["read", "read"]}, "/scopes"),
        ({"libraries": []}, "/libraries"),
        ({"libraries": None}, "/libraries"),
        *(({"libraries": [pattern]}, "/libraries/0") for pattern in ("", "a b", "a/b", "*a", "a**", "a\0", "a" * 129)),
        ({"expires_at": "tomorrow"}, "/expires_at"),
        ({"limits": {"reads_per_minute": 0}}, "/limits/reads_per_minute"),
        ({"limits": {"reads": 1}}, "/limits/reads"),
        ({"key": "mine"}, "/key"),
    ],
)
def test_what_makes_no_key(client: httpx.Client, body: dict[str, Any], at: str) -> None:
    refused = client.post("/keys", json={"name": "Test", "scopes": ["read"]} | body)
    assert_refused(refused, 400, "invalid", at)


def test_keys_are_listed_by_creation_page_by_page(client: httpx.Client) -> None:
    made = [make_key(client, "read")["id"] for _ in range(5)]
    ids: list[str] = []
    cursor = ""
    while True:
        page = client.get(f"/keys?limit=2{cursor}").raise_for_status().json()
        ids += [item["id"] for item in page["items"]]
        if page["next_cursor"] is None:
            break
        cursor = f"&cursor={page['next_cursor']}"
    assert [one for one in ids if one in made] == made
    assert len(ids) == len(set(ids))


def test_a_change_counts_from_the_next_request_on(client: httpx.Client, library: str) -> None:
    made = make_key(client, "read")
    headers, path = bearer(made["key"]), f"/libraries/{library}"
    change = {"name": "Renamed", "scopes": ["write"], "libraries": [library], "expires_at": in_hours(1)}
    assert client.patch(path, json={"description": "a"}, headers=headers).status_code == 403
    changed = client.patch(f"/keys/{made['id']}", json=change).raise_for_status().json()
    assert (changed["name"], changed["scopes"], changed["libraries"]) == ("Renamed", ["write"], [library])
    assert client.patch(path, json={"description": "a"}, headers=headers).status_code == 200
    client.patch(f"/keys/{made['id']}", json={"libraries": ["another"]}).raise_for_status()
    assert client.get(path, headers=headers).status_code == 404
    client.patch(f"/keys/{made['id']}", json={"libraries": None, "expires_at": in_hours(-1)}).raise_for_status()
    assert_refused(client.get(path, headers=headers), 401, "unauthorized")
    client.patch(f"/keys/{made['id']}", json={"expires_at": None}).raise_for_status()
    assert client.get(path, headers=headers).status_code == 200


def test_a_revoked_key_is_dead_on_every_worker_at_once(server: Server) -> None:
    with server.clients_of_each_worker(2) as clients, ThreadPoolExecutor(len(clients)) as pool:
        body = {"id": "revoking", "name": "Revoking", "dimension": 2}
        clients[0].post("/libraries", json=body).raise_for_status()
        for _ in range(5):
            made = make_key(clients[0], "read")

            def ask(client: httpx.Client, key: str = made["key"]) -> int:
                query = client.post("/libraries/revoking/query", json={"vector": [1, 0]}, headers=bearer(key))
                return query.status_code

            assert set(pool.map(ask, clients)) == {200}
            assert clients[0].delete(f"/keys/{made['id']}").status_code == 204
            assert set(pool.map(ask, clients)) == {401}
            assert_refused(clients[0].delete(f"/keys/{made['id']}"), 404, "not_found")


def test_after_a_rotation_the_secret_before_ends_when_it_was_told_to(client: httpx.Client) -> None:
    first = make_key(client, "read")
    rotate = f"/keys/{first['id']}/rotate"
    second = client.post(rotate, json={"overlap_seconds": 3600}).raise_for_status().json()
    assert status(client, first["key"]) == status(client, second["key"]) == 200
    third = client.post(rotate, json={"overlap_seconds": 1}).raise_for_status().json()
    assert (status(client, first["key"]), status(client, third["key"])) == (401, 200)
    until(lambda: status(client, second["key"]) == 401, "the overlap is over")
    assert status(client, third["key"]) == 200
    fourth = client.post(rotate).raise_for_status().json()
    assert (status(client, third["key"]), status(client, fourth["key"])) == (401, 200)
    assert_refused(client.post(rotate, json={"overlap_seconds": -1}), 400, "invalid", "/overlap_seconds")
    assert_refused(client.post("/keys/nope/rotate", json={}), 404, "not_found")


def test_a_key_expires_by_the_clock(client: httpx.Client) -> None:
    made = make_key(client, "read", expires_at=in_hours(1.5 / 3600))
    statuses = {status(client, made["key"])}
    while 401 not in statuses:
        statuses.add(status(client, made["key"]))
        time.sleep(0.05)
    assert statuses <= {200, 401}


def test_a_key_of_some_libraries_makes_no_others(client: httpx.Client) -> None:
    headers = bearer(make_key(client, "admin", libraries=["mine-*"])["key"])
    for library_id in ("yours-1", "mine", None):
        body = {"name": "New"} | ({} if library_id is None else {"id": library_id})
        assert_refused(client.post("/libraries", json=body, headers=headers), 403, "forbidden")
    assert client.post("/libraries", json={"id": "mine-1", "name": "New"}, headers=headers).status_code == 201
    assert client.delete("/libraries/mine-1", headers=headers).status_code == 204


def test_the_command_makes_keys(server: Server, client: httpx.Client) -> None:
    made = server.manage("create_key", "By command", "--scope", "read", "--library", "docs-*", "--days", "1")
    assert (made.returncode, made.stderr) == (0, "")
    assert KEY.fullmatch(made.stdout.strip())
    assert status(client, made.stdout.strip()) == 200
    refused = server.manage("create_key", "By command", "--scope", "read", "--library", "a b")
    assert (refused.returncode, refused.stderr.splitlines()[-1]) == (
        1,
        "CommandError: --library 'a b' must be the id of a library, or the beginning of ids with an asterisk behind, "
        "such as docs-*.",
    )


def test_guessing_passwords_is_stopped(server: Server) -> None:
    with httpx.Client(base_url=server.url, trust_env=False, verify=False) as browser:
        browser.get("/api/login")
        typed = {"username": "somebody", "password": "wrong", "csrfmiddlewaretoken": browser.cookies["csrftoken"]}
        statuses = [browser.post("/api/login", data=typed).status_code for _ in range(12)]
        assert statuses == [200] * 9 + [429] * 3
        refused = browser.post("/api/login", data=typed)
        assert_refused(refused, 429, "too_many_logins")
        assert int(refused.headers["Retry-After"]) == 900
        other = browser.post("/api/login", data=typed | {"username": "somebody else"})
        assert other.status_code == 200


def test_without_keys_everybody_is_an_admin(tmp_path: Any) -> None:
    with serving(tmp_path / "data", VECTORDB_AUTH="off", VECTORDB_WORKERS=1) as server, server.client() as client:
        assert server.authorization == {}
        assert client.get("/keys").json() == {"items": [], "next_cursor": None}
        assert client.post("/libraries", json={"id": "a", "name": "A"}, headers=bearer("nonsense")).status_code == 201


def test_a_page_shows_who_is_logged_in_and_lets_out(server: Server) -> None:
    code = "from django.contrib.auth.models import User; User.objects.create_superuser('alice', password='a pass word')"
    assert server.manage("shell", "-c", code).returncode == 0
    page = {"Accept": "text/html"}
    with log_in(server, "alice", "a pass word") as browser:
        assert "Log alice out" in browser.get("/api/v1/libraries", headers=page).text
        out = browser.post("/api/logout", data={"csrfmiddlewaretoken": browser.cookies["csrftoken"]})
        assert out.headers["Location"] == "/api/v1/"
        assert browser.get("/api/v1/libraries", headers=page).status_code == 401
