"""Idempotency-Key: a request is carried out once, however often it is sent."""

import contextlib
import signal
import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from datetime import timedelta
from itertools import islice
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from django.db import connection
from django.utils import timezone
from pytest_django.fixtures import Settings

from apps.access.idempotency import delete_old_requests, new_attempt
from apps.access.models import IdempotentRequest
from apps.access.requests import SERVER, Refused
from apps.api.idempotency import run_once
from apps.libraries.dialects import dialect_of
from tests.api.problems import assert_refused
from tests.server import Server, serving

NEW: dict[str, Any] = {"title": "T", "chunks": [{"embedding": [1, 0, 0]}]}


def key(name: str) -> dict[str, str]:
    return {"Idempotency-Key": name}


def assert_replayed(replay: httpx.Response, first: httpx.Response) -> None:
    assert "Idempotent-Replayed" not in first.headers
    assert replay.headers["Idempotent-Replayed"] == "true"
    assert (replay.status_code, replay.content) == (first.status_code, first.content)
    for name in ("Location", "ETag", "Content-Type"):
        assert replay.headers.get(name) == first.headers.get(name)


def test_every_post_that_changes_something_is_answered_again_and_done_once(
    client: httpx.Client, library: str, documents: str
) -> None:
    at = f"/libraries/{library}"
    posts: list[tuple[str, dict[str, Any]]] = [
        ("/libraries", {"name": "New"}),
        (documents, NEW),
        (f"{documents}/batch", {"documents": [NEW, NEW]}),
        (f"{at}/chunks", {"chunks": [{"id": "a", "embedding": [1, 0, 0]}, {"embedding": [0, 1, 0]}]}),
        (f"{at}/chunks", {"chunks": [{"embedding": [1, 2]}], "on_invalid": "skip"}),
        (f"{at}/chunks", {"chunks": [{"embedding": [1, 2]}, {"embedding": [1, 2, 3]}], "on_invalid": "skip"}),
        (f"{at}/chunks", {"chunks": [{"embedding": [1, 2, 3], "document_id": "new"}], "create_documents": True}),
        (f"{at}/chunks", {"chunks": [{"id": "a", "metadata": {"m": 1}}], "mode": "update", "profile": True}),
        (f"{at}/chunks/update", {"filter": {}, "metadata": {"n": 1}}),
        (f"{at}/chunks/delete", {"ids": ["a"]}),
        (f"{at}/chunks/delete", {"filter": {"n": 1}}),
        (f"{at}/reindex", {}),
        (f"{at}/reembed", {"embedding": {"provider": "hashing", "model": "hashing-128"}}),
    ]
    for number, (path, body) in enumerate(posts):
        first = client.post(path, json=body, headers=key(f"{library} {number}"))
        assert first.is_success, first.text
        before = client.get("/audit", params={"limit": 1, "library": library}).json()
        assert_replayed(client.post(path, json=body, headers=key(f"{library} {number}")), first)
        assert client.get("/audit", params={"limit": 1, "library": library}).json() == before, path


def test_a_key_belongs_to_one_request_of_one_principal(client: httpx.Client, library: str, documents: str) -> None:
    first = client.post(documents, json=NEW, headers=key(library))
    other = client.post("/keys", json={"name": "Other", "scopes": ["write"]}).json()["key"]
    for path, body in ((documents, NEW | {"title": "U"}), (f"{documents}?format=json", NEW), ("/libraries", NEW)):
        assert_refused(client.post(path, json=body, headers=key(library)), 409, "idempotency_key_reused")
    of_another = client.post(documents, json=NEW, headers=key(library) | {"Authorization": f"Bearer {other}"})
    assert of_another.json()["id"] != first.json()["id"]
    assert_replayed(client.post(documents, json=NEW, headers=key(library)), first)
    for wrong in ("", "x" * 256, "é"):
        refused = client.post(documents, json=NEW, headers={"Idempotency-Key": wrong.encode()})
        assert_refused(refused, 400, "invalid")
    # What changes nothing does not look at it.
    assert client.post(f"/libraries/{library}/chunks/count", json={}, headers=key(library)).json() == {"count": 2}


def test_what_was_refused_and_changed_nothing_may_be_sent_again(client: httpx.Client, library: str) -> None:
    path, body = f"/libraries/{library}-later/chunks", {"chunks": [{"embedding": [1, 0, 0]}]}
    assert_refused(client.post(path, json=body, headers=key(library)), 404, "not_found")
    client.post("/libraries", json={"id": f"{library}-later", "name": "Later"}).raise_for_status()
    done = client.post(path, json=body, headers=key(library))
    assert done.json()["created"] == 1
    assert_replayed(client.post(path, json=body, headers=key(library)), done)


def test_a_secret_is_not_kept_for_a_replay(client: httpx.Client, library: str) -> None:
    body = {"name": library, "scopes": ["read"]}
    first = client.post("/keys", json=body, headers=key(library)).raise_for_status()
    at = first.headers["Location"].removeprefix("/api/v1")
    client.post(f"{at}/rotate", json={}, headers=key(f"{library} rotate")).raise_for_status()
    for path, again, name in (("/keys", body, library), (f"{at}/rotate", {}, f"{library} rotate")):
        refused = client.post(path, json=again, headers=key(name))
        assert "secret" in assert_refused(refused, 409, "idempotency_answer_lost")["detail"]
        assert refused.headers.get("Location") == (first.headers["Location"] if path == "/keys" else None)
    assert [one["name"] for one in client.get("/keys", params={"limit": 500}).json()["items"]].count(library) == 1
    token = {"libraries": [library], "expires_at": (timezone.now() + timedelta(hours=1)).isoformat()}
    for _ in range(2):
        client.post(f"{at}/search-token", json=token, headers=key(library)).raise_for_status()


@contextlib.contextmanager
def no_writer(server: Server, library: str) -> Iterator[None]:
    """Nobody can write to the library in the block."""
    if server.database:
        with psycopg.connect(server.database) as connection:
            connection.execute("SELECT id FROM vectordb_library WHERE public_id = %s FOR UPDATE", [library])
            yield
    else:
        with contextlib.closing(sqlite3.connect(server.folder / "vectordb.sqlite3")) as connection:
            connection.execute("BEGIN IMMEDIATE")
            yield
            connection.rollback()


def test_of_requests_at_once_on_all_workers_one_is_carried_out(
    server: Server, client: httpx.Client, library: str, documents: str
) -> None:
    with server.clients_of_each_worker(2) as clients, ThreadPoolExecutor(len(clients)) as pool:
        with no_writer(server, library):
            sent = [pool.submit(one.post, documents, json=NEW, headers=key(library)) for one in clients]
            for refused in islice(as_completed(sent), len(clients) - 1):
                assert_refused(refused.result(), 409, "idempotency_in_progress")
                assert refused.result().headers["Retry-After"] == "1"
        [first] = [answer.result() for answer in sent if answer.result().is_success]
        for one in clients:
            assert_replayed(one.post(documents, json=NEW, headers=key(library)), first)
    assert len(client.get(documents).json()["items"]) == 1


@pytest.mark.sqlite
def test_of_imports_at_once_with_one_key_one_is_made(server: Server, client: httpx.Client, library: str) -> None:
    path, row = f"/libraries/{library}/import?format=jsonl", b'{"id": "a", "embedding": [1, 0, 0]}'
    with server.clients_of_each_worker(2) as clients, ThreadPoolExecutor(len(clients)) as pool:
        with no_writer(server, library):
            sent = [pool.submit(one.post, path, content=row, headers=key(library)) for one in clients]
            for refused in islice(as_completed(sent), len(clients) - 1):
                assert_refused(refused.result(), 409, "idempotency_in_progress")
        [first] = [answer.result() for answer in sent if answer.result().is_success]
        for one in clients:
            assert_replayed(one.post(path, content=row, headers=key(library)), first)
        assert_refused(client.post(path, content=row * 2, headers=key(library)), 409, "idempotency_key_reused")
    made = client.get("/jobs", params={"library": library}).raise_for_status().json()["items"]
    assert [one["id"] for one in made] == [first.json()["id"]]


# Sends each of `requests`, (event, path, key), within a process of its own that is killed at the event; prints how each
# ended. Forks share what takes long to load.
_DIE = """
import os, signal
import django
django.setup()
from django.db import connection
from django.test import Client
from django.urls import get_resolver
get_resolver().url_patterns
for event, path, key in {requests}:
    process = os.fork()
    if not process:
        with connection.cursor() as cursor:
            connection.connection.create_function("die", 0, lambda: os.kill(os.getpid(), signal.SIGKILL))
            cursor.execute(f"CREATE TEMP TRIGGER killed {{event}} BEGIN SELECT die(); END")
        client = Client(headers={{"Host": "localhost"}})
        client.post(path, '{body}', content_type="application/json", headers={{"Idempotency-Key": key}})
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]))
"""


@pytest.mark.sqlite
def test_kill_9_before_and_after_the_commit_loses_nothing_and_repeats_nothing(folder: Path) -> None:
    body = '{"chunks": [{"embedding": [1, 0]}]}'
    events = {
        "before": "AFTER INSERT ON main.vectordb_chunk",
        "marked": "AFTER INSERT ON main.vectordb_idempotent_request",
        "committed": "AFTER UPDATE ON main.vectordb_idempotent_request",
    }
    with serving(folder, VECTORDB_AUTH="off") as server, server.client() as client:

        def post(path: str, name: str) -> httpx.Response:
            headers = key(name) | {"Content-Type": "application/json"}
            return client.post(path, content=body, headers=headers)

        client.post("/libraries", json={"id": "a", "name": "A"}).raise_for_status()
        requests = [(event, "/api/v1/libraries/a/documents", name) for name, event in events.items()]
        # A write of chunks has its answer in the same transaction.
        requests.append((events["committed"], "/api/v1/libraries/a/chunks", "chunks"))
        with server.python(_DIE.format(requests=requests, body=body)) as process:
            statuses, _ = process.communicate()
        assert statuses.split() == [str(-signal.SIGKILL)] * 3 + ["0"]
        again = {name: post("/libraries/a/documents", name) for name in events}
        assert again["before"].status_code == again["marked"].status_code == 201
        assert_refused(again["committed"], 409, "idempotency_answer_lost")
        assert client.post("/libraries/a/chunks/count", json={}).json() == {"count": 4}
        replay = post("/libraries/a/chunks", "chunks")
        assert (replay.headers.get("Idempotent-Replayed"), replay.json()["created"]) == ("true", 1)
        client.post("/libraries/a/chunks/delete", json={"ids": replay.json()["ids"]}).raise_for_status()
        server.kill()
        server.start()
        assert_replayed(post("/libraries/a/documents", "before"), again["before"])
        assert_refused(post("/libraries/a/documents", "committed"), 409, "idempotency_answer_lost")
        assert client.post("/libraries/a/chunks/count", json={}).json() == {"count": 3}


@pytest.mark.sqlite
@pytest.mark.django_db(transaction=True)
def test_between_its_change_and_its_answer_a_request_still_runs() -> None:
    attempt = new_attempt(SERVER, "k", b"")
    columns = {"principal": attempt.principal, "key": attempt.key, "fingerprint": attempt.fingerprint}
    row = IdempotentRequest.objects.create(token=attempt.token, **columns)
    dialect = dialect_of(connection)
    assert dialect.try_lock(connection, attempt.lock_key)
    try:
        with pytest.raises(Refused) as refused:
            run_once(dict, "k", SERVER, b"", frees=False)
        assert refused.value.code == "idempotency_in_progress"
        row.status, row.body = 200, b'{"n": 1}'
        row.save()
        assert run_once(dict, "k", SERVER, b"", frees=False) == {"n": 1}
    finally:
        dialect.unlock(connection, attempt.lock_key)


@pytest.mark.django_db
def test_old_requests_are_deleted(settings: Settings) -> None:
    settings.IDEMPOTENCY_HOURS = 2
    now = timezone.now()
    for hours in (3, 2.1, 1.9):
        at = now - timedelta(hours=hours)
        IdempotentRequest.objects.create(principal="p", key=f"{hours}", created_at=at)
    assert [delete_old_requests(limit=1) for _ in range(3)] == [1, 1, 0]
    assert [row.key for row in IdempotentRequest.objects.all()] == ["1.9"]
