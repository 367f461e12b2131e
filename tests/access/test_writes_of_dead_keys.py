"""What a key has begun to write when it is revoked, or may do less: nothing of it is committed afterwards."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from datetime import timedelta
from typing import Any

import orjson
import pytest
from django.db import connection, connections
from django.http import HttpResponse
from django.test import Client
from django.utils import timezone
from pytest_django.fixtures import Settings

from apps.access import last_use
from apps.access.authentication import recognize
from apps.access.keys import NewKey, create_key, revoke_key, rotate_key, update_key
from apps.access.models import AuditEntry
from apps.access.requests import NOBODY, SERVER, Refused, current_principal
from apps.access.transactions import write_transaction
from apps.libraries.inputs import DocumentUpdate, Embedding, LibraryCreate, LibraryUpdate, Reembed, Reindex
from apps.libraries.models import Chunk, Document
from apps.libraries.services import chunks, documents, libraries, metadata, reembedding
from apps.search.snapshots import read_rows
from apps.transfer import jobs
from tests.embeddings.service import Answer, Service, embedding_service
from tests.server import until

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "snapshot"])

PATH = "/api/v1/libraries"
OLD = [1.0, 2.0]


@pytest.fixture(autouse=True)
def _leave_no_trace(monkeypatch: pytest.MonkeyPatch, settings: Settings) -> Iterator[None]:
    # When a key was used is written by a thread, to a database that the tests to come do not have.
    monkeypatch.setattr(last_use, "SECONDS_BETWEEN_WRITES", 1e6)
    settings.AUTH = True
    yield
    current_principal.set(SERVER)


def send(key: str, method: str, path: str, body: Any) -> HttpResponse:
    return Client().generic(method, f"{PATH}{path}", orjson.dumps(body), "application/json", headers={"X-API-Key": key})


@pytest.fixture
def service(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    """A service that embeds for the library `notes`, which has the chunk `old` and the document `doc`."""
    with embedding_service(settings, monkeypatch, answer) as running:
        key = create_key(name="Admin", scopes=["admin"]).key
        library = {"id": "notes", "name": "N", "embedding": {"provider": "openai", "model": "m"}}
        assert send(key, "POST", "", library).status_code == 201
        chunk = {"id": "old", "text": "old", "embedding": OLD}
        assert send(key, "POST", "/notes/chunks", {"chunks": [chunk]}).status_code == 200
        document = {"id": "doc", "title": "Old", "chunks": [{"text": "doc", "embedding": OLD}]}
        assert send(key, "POST", "/notes/documents", document).status_code == 201
        current_principal.set(SERVER)
        yield running


def answer(body: dict[str, Any]) -> Answer:
    return Answer({"data": [{"index": i, "embedding": OLD} for i, _ in enumerate(body["input"])]})


def change_while_embedding(service: Service, change: Callable[[], object]) -> None:
    """Let the service make `change`, with a connection of its own, before it answers."""

    def change_first(body: dict[str, Any]) -> Answer:
        try:
            change()
        finally:
            connections.close_all()
        return answer(body)

    service.usual = change_first


def state() -> list[Any]:
    return [
        list(Chunk.objects.order_by("pk").values_list("public_id", "text", "updated_at")),
        list(Document.objects.order_by("pk").values_list("public_id", "title")),
        AuditEntry.objects.count(),
    ]


WRITES = {
    "upsert": ("POST", "/notes/chunks", {"chunks": [{"id": "new", "text": "new"}]}),
    "skip": ("POST", "/notes/chunks", {"chunks": [{"id": "new", "text": "new"}], "on_invalid": "skip"}),
    "update": ("POST", "/notes/chunks", {"chunks": [{"id": "old", "text": "new"}], "mode": "update"}),
    "patch": ("PATCH", "/notes/chunks/old", {"text": "new"}),
    "create document": ("POST", "/notes/documents", {"id": "new", "chunks": [{"text": "new"}]}),
    "replace document": ("PUT", "/notes/documents/doc", {"title": "New", "chunks": [{"text": "new"}]}),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_what_is_embedded_while_its_key_is_revoked_is_not_written(
    service: Service, write: tuple[str, str, dict[str, Any]]
) -> None:
    made = create_key(name="Test", scopes=["write"])
    change_while_embedding(service, lambda: revoke_key(key_id=made.row.public_id))
    before = state()
    response = send(made.key, *write)
    assert len(service.asked) == 1
    assert (response.status_code, response.json()["code"]) == (401, "unauthorized")
    assert "revoked" in response.json()["detail"]
    assert state() == before


LESS: dict[str, Callable[[NewKey], object]] = {
    "expired": lambda made: update_key(
        key_id=made.row.public_id, changes={"expires_at": timezone.now() - timedelta(seconds=1)}
    ),
    "narrowed in scopes": lambda made: update_key(key_id=made.row.public_id, changes={"scopes": "read"}),
    "narrowed in libraries": lambda made: update_key(key_id=made.row.public_id, changes={"libraries": "others"}),
    "rotated": lambda made: rotate_key(key_id=made.row.public_id, overlap_seconds=0),
}


@pytest.mark.parametrize("change", LESS.values(), ids=LESS)
def test_what_is_embedded_while_its_key_loses_the_right_to_it_is_not_written(
    service: Service, change: Callable[[NewKey], object]
) -> None:
    made = create_key(name="Test", scopes=["write"])
    change_while_embedding(service, lambda: change(made))
    before = state()
    assert send(made.key, *WRITES["upsert"]).status_code == 401
    assert state() == before


def test_what_is_embedded_while_its_key_is_rotated_with_an_overlap_is_written(service: Service) -> None:
    made = create_key(name="Test", scopes=["write"])
    change_while_embedding(service, lambda: rotate_key(key_id=made.row.public_id, overlap_seconds=60))
    assert send(made.key, *WRITES["upsert"]).status_code == 200
    assert Chunk.objects.filter(public_id="new").exists()


def test_a_key_changes_rotates_and_revokes_itself() -> None:
    made = create_key(name="Test", scopes=["admin"])
    key_id = made.row.public_id
    ask(made.key)
    update_key(key_id=key_id, changes={"name": "Renamed"})
    ask(made.key)
    rotated = rotate_key(key_id=key_id, overlap_seconds=0)
    assert rotated is not None
    with pytest.raises(Refused, match="not known"):
        create_key(name="Other", scopes=["admin"])
    ask(rotated.key)
    assert revoke_key(key_id=key_id)
    with pytest.raises(Refused, match="not known"):
        create_key(name="Other", scopes=["admin"])


CHANGES: dict[str, Callable[[], object]] = {
    "delete chunk": lambda: chunks.delete_chunk(library_id="a", chunk_id="c"),
    "delete chunks": lambda: chunks.delete_chunks(library_id="a", ids=["c"]),
    "update metadata": lambda: metadata.update_chunks_by_id(
        library_id="a", ids=["c"], change=metadata.MetadataChange({}, "set")
    ),
    "update document": lambda: documents.update_document(library_id="a", document_id="d", update=DocumentUpdate()),
    "delete document": lambda: documents.delete_document(library_id="a", document_id="d"),
    "create library": lambda: libraries.create_library(create=LibraryCreate(id="b", name="B")),
    "update library": lambda: libraries.update_library(library_id="a", update=LibraryUpdate(name="B")),
    "reindex library": lambda: libraries.reindex_library(library_id="a", reindex=Reindex()),
    "delete library": lambda: libraries.delete_library(library_id="a"),
    "reembed library": lambda: reembedding.request_reembedding(
        library_id="a", reembed=Reembed(embedding=Embedding(provider="hashing", model="hashing-128"))
    ),
    "cancel reembedding": lambda: reembedding.cancel_reembedding(library_id="a"),
    "create key": lambda: create_key(name="Other", scopes=["admin"]),
    "update key": lambda: update_key(key_id="other", changes={"name": "Other"}),
    "rotate key": lambda: rotate_key(key_id="other", overlap_seconds=0),
    "revoke key": lambda: revoke_key(key_id="other"),
    "create job": lambda: jobs.create_job(kind="backup"),
    "cancel job": lambda: jobs.cancel_job(job_id="job"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_no_change_begins_for_a_key_that_was_revoked_meanwhile(change: Callable[[], object]) -> None:
    made = create_key(name="Test", scopes=["admin"])
    administrator = copy_context()
    ask(made.key)
    administrator.run(revoke_key, key_id=made.row.public_id)
    with pytest.raises(Refused, match="not known"):
        change()


def ask(key: str) -> None:
    recognize(NOBODY, PATH, "127.0.0.1", f"Bearer {key}", "", read_rows)


# On SQLite, writers have turns.
if connection.vendor == "postgresql":

    def test_a_key_is_revoked_after_the_write_under_way_and_before_those_that_come_later() -> None:
        made = create_key(name="Test", scopes=["write"])
        writes, may_end = threading.Event(), threading.Event()

        def write() -> bool:
            try:
                with write_transaction():
                    writes.set()
                    return may_end.wait(60)
            finally:
                connections.close_all()

        def write_by_key() -> bool:
            ask(made.key)
            return write()

        def revoke() -> bool:
            try:
                return revoke_key(key_id=made.row.public_id)
            finally:
                connections.close_all()

        def waiting() -> int:
            with connection.cursor() as cursor:
                cursor.execute("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")
                (count,) = cursor.fetchone()
            return int(count)

        with ThreadPoolExecutor(3) as pool:
            first = pool.submit(write_by_key)
            try:
                assert writes.wait(60)
                revoked = pool.submit(revoke)
                until(lambda: waiting() == 1, "the revocation waits for the write")
                later = pool.submit(write_by_key)
                until(lambda: waiting() == 2, "the later write waits for the revocation")
                assert not revoked.done()
            finally:
                may_end.set()
            assert first.result()
            assert revoked.result()
            with pytest.raises(Refused, match="not known"):
                later.result()
