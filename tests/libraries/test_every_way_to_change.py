"""Whoever changes a chunk, and with whatever tool: a server that runs answers from what is stored now.

The changes are made by a process of its own, the writer, which imports this module and runs the functions in `WAYS`.
The server has one worker, so that the process which answers afterwards is the one that held the old state.
"""

import itertools
import json
import sqlite3
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import numpy as np
import pytest
from django.contrib.auth import get_user_model
from django.core import serializers
from django.core.management import call_command
from django.db import connection, transaction
from django.db.models import QuerySet
from django.test import Client
from django.test.utils import setup_test_environment

from apps.libraries.inputs import ChunksWrite, ChunkUpdate, DocumentInput
from apps.libraries.models import Chunk, Document, Embedding, Library
from apps.libraries.services import chunks as chunk_services
from apps.libraries.services import documents as document_services
from apps.libraries.services import libraries as library_services
from apps.libraries.services import metadata as metadata_services
from apps.libraries.services.metadata import MetadataChange
from tests.server import Server, serving

# The score of a vector by the inner product with this one tells which vector was compared.
PROBE = [1.0, 10.0, 100.0]


class Row(NamedTuple):
    """What a query shows of a chunk; a chunk without a vector is in a list by filter only."""

    text: str
    metadata: dict[str, Any]
    vector: tuple[float, ...] | None
    document: str | None = None


Rows = dict[str, Row]

A = Row("A", {"n": 1}, (1, 0, 0), "d")
B = Row("B", {"n": 2}, (0, 1, 0), "d")
C = Row("C", {"n": 3}, (0, 0, 1))
NEW = Row("new", {"n": 9}, (2, 3, 4))
BARE_NEW = NEW._replace(vector=None)
BEFORE: Rows = {"a": A, "b": B, "c": C}


class Way(NamedTuple):
    """A change to the library whose id it is called with, and what a query shows then (None: the library is gone)."""

    change: Callable[[str], None]
    after: Rows | None
    needs_sqlite: bool


WAYS: dict[str, Way] = {}


def leads_to(after: Rows | None, *, needs_sqlite: bool = False) -> Callable[[Callable[[str], None]], None]:
    """Register the function below as a way to change."""

    def register(change: Callable[[str], None]) -> None:
        WAYS[change.__name__.strip("_")] = Way(change, after, needs_sqlite)

    return register


def chunks(library_id: str, *ids: str) -> "QuerySet[Chunk]":
    return Chunk.objects.filter(library__public_id=library_id, public_id__in=ids)


def embeddings(library_id: str, *ids: str) -> "QuerySet[Embedding]":
    return Embedding.objects.filter(chunk__library__public_id=library_id, chunk__public_id__in=ids)


def blob(*vector: float) -> bytes:
    return np.array(vector, "<f4").tobytes()


def unsaved(library_id: str, public_id: str = "new") -> Chunk:
    library = Library.objects.get(public_id=library_id)
    return Chunk(library=library, public_id=public_id, text=NEW.text, metadata=NEW.metadata)


def another_library(library_id: str) -> Library:
    return Library.objects.create(public_id=f"{library_id}-other", name="Other", dimension=3, metric="dot")


@leads_to({**BEFORE, "a": A._replace(text="edited")})
def _save(library_id: str) -> None:
    chunk = chunks(library_id, "a").get()
    chunk.text = "edited"
    chunk.save()


@leads_to({**BEFORE, "a": A._replace(metadata={"n": [1, "x"]})})
def _save_of_one_field(library_id: str) -> None:
    chunk = chunks(library_id, "a").get()
    chunk.metadata = {"n": [1, "x"]}
    chunk.save(update_fields=["metadata"])


@leads_to({"b": B, "c": C, "renamed": A})
def _save_of_another_id(library_id: str) -> None:
    chunk = chunks(library_id, "a").get()
    chunk.public_id = "renamed"
    chunk.save()


@leads_to({**BEFORE, "new": NEW})
def _save_of_a_new_chunk(library_id: str) -> None:
    chunk = unsaved(library_id)
    chunk.save()
    Embedding.objects.create(chunk=chunk, generation=1, vector=blob(*NEW.vector))


@leads_to({**BEFORE, "new": BARE_NEW})
def _save_of_a_new_chunk_without_a_vector(library_id: str) -> None:
    unsaved(library_id).save()


@leads_to({**BEFORE, "x": BARE_NEW, "y": BARE_NEW})
def _bulk_create_without_vectors(library_id: str) -> None:
    Chunk.objects.bulk_create([unsaved(library_id, "x"), unsaved(library_id, "y")])


@leads_to({"b": B, "c": C})
def _delete(library_id: str) -> None:
    chunks(library_id, "a").get().delete()


@leads_to({"c": C})
def _cascade_from_document(library_id: str) -> None:
    Document.objects.get(library__public_id=library_id, public_id="d").delete()


@leads_to({"c": C})
def _cascade_from_documents(library_id: str) -> None:
    Document.objects.filter(library__public_id=library_id).delete()


@leads_to(None)
def _cascade_from_library(library_id: str) -> None:
    Library.objects.get(public_id=library_id).delete()


@leads_to(None)
def _cascade_from_libraries(library_id: str) -> None:
    Library.objects.filter(public_id=library_id).delete()


@leads_to({"new": NEW})
def _another_library_of_the_same_id(library_id: str) -> None:
    Library.objects.get(public_id=library_id).delete()
    library = Library.objects.create(public_id=library_id, name="Again", dimension=3, metric="dot")
    chunk = Chunk.objects.create(library=library, public_id="new", text=NEW.text, metadata=NEW.metadata)
    Embedding.objects.create(chunk=chunk, generation=1, vector=blob(*NEW.vector))


@leads_to({**BEFORE, "x": NEW, "y": NEW})
def _bulk_create(library_id: str) -> None:
    created = Chunk.objects.bulk_create([unsaved(library_id, "x"), unsaved(library_id, "y")])
    vector = blob(*NEW.vector)
    Embedding.objects.bulk_create([Embedding(chunk=chunk, generation=1, vector=vector) for chunk in created])


@leads_to({**BEFORE, "a": A._replace(text="new", metadata={"n": 9}), "without a vector": BARE_NEW})
def _bulk_create_with_update_conflicts(library_id: str) -> None:
    Chunk.objects.bulk_create(
        [unsaved(library_id, "a"), unsaved(library_id, "without a vector")],
        update_conflicts=True,
        unique_fields=["library", "public_id"],
        update_fields=["text", "metadata"],
    )


@leads_to({**BEFORE, "a": A._replace(vector=(7, 8, 9))})
def _bulk_create_of_embeddings_with_update_conflicts(library_id: str) -> None:
    Embedding.objects.bulk_create(
        [Embedding(chunk=chunks(library_id, "a").get(), generation=1, vector=blob(7, 8, 9))],
        update_conflicts=True,
        unique_fields=["chunk", "generation"],
        update_fields=["vector"],
    )


@leads_to({**BEFORE, "a": A._replace(text="bulk"), "c": C._replace(text="bulk")})
def _bulk_update(library_id: str) -> None:
    changed = list(chunks(library_id, "a", "c"))
    for chunk in changed:
        chunk.text = "bulk"
    Chunk.objects.bulk_update(changed, ["text"])


@leads_to({**BEFORE, "a": A._replace(metadata={}), "b": B._replace(metadata={})})
def _queryset_update(library_id: str) -> None:
    chunks(library_id, "a", "b").update(metadata={})


@leads_to({"b": B})
def _queryset_delete(library_id: str) -> None:
    chunks(library_id, "a", "c").delete()


@leads_to({**BEFORE, "a": A._replace(document=None)})
def _detaching_from_its_document(library_id: str) -> None:
    chunks(library_id, "a").update(document=None, position=None)


@leads_to({**BEFORE, "a": A._replace(vector=(5, 6, 7))})
def _update_of_the_embedding(library_id: str) -> None:
    embeddings(library_id, "a").update(vector=blob(5, 6, 7))


@leads_to({**BEFORE, "a": A._replace(vector=(5, 6, 7))})
def _save_of_the_embedding(library_id: str) -> None:
    embedding = embeddings(library_id, "a").get()
    embedding.vector = blob(5, 6, 7)
    embedding.save()


@leads_to({**BEFORE, "a": A._replace(vector=None)})
def _delete_of_the_embedding(library_id: str) -> None:
    embeddings(library_id, "a").delete()


@leads_to({**BEFORE, "a": A._replace(vector=None), "new": NEW._replace(vector=A.vector)})
def _giving_the_embedding_to_another_chunk(library_id: str) -> None:
    chunk = unsaved(library_id)
    chunk.save()
    embeddings(library_id, "a").update(chunk=chunk)


@leads_to({"a": A._replace(vector=(3, 3, 3)), "b": B._replace(vector=(4, 4, 4)), "c": C._replace(vector=None)})
def _another_generation_of_embeddings(library_id: str) -> None:
    a, b = chunks(library_id, "a", "b").order_by("public_id")
    Embedding.objects.create(chunk=a, generation=2, vector=blob(3, 3, 3))
    Embedding.objects.create(chunk=b, generation=2, vector=blob(4, 4, 4))
    Library.objects.filter(public_id=library_id).update(generation=2)


@leads_to({"a": A, "b": B})
def _moving_to_another_library(library_id: str) -> None:
    chunk = chunks(library_id, "c").get()
    chunk.library = another_library(library_id)
    chunk.save()


@leads_to({"a": A, "b": B})
def _moving_to_another_library_by_update(library_id: str) -> None:
    chunks(library_id, "c").update(library=another_library(library_id))


@leads_to({**BEFORE, "new": NEW})
def _moving_from_another_library(library_id: str) -> None:
    other = another_library(library_id)
    chunk = Chunk.objects.create(library=other, public_id="new", text=NEW.text, metadata=NEW.metadata)
    Embedding.objects.create(chunk=chunk, generation=1, vector=blob(*NEW.vector))
    chunk.library = Library.objects.get(public_id=library_id)
    chunk.save()


@leads_to({**BEFORE, "a": A._replace(text="loaded", vector=(5, 5, 5)), "new": NEW})
def _loaddata(library_id: str) -> None:
    with transaction.atomic():
        created = unsaved(library_id)
        created.save()
        added = Embedding.objects.create(chunk=created, generation=1, vector=blob(*NEW.vector))
        edited = chunks(library_id, "a").get()
        edited.text = "loaded"
        replaced = embeddings(library_id, "a").get()
        replaced.vector = blob(5, 5, 5)
        fixture = serializers.serialize("json", [created, edited, added, replaced])
        transaction.set_rollback(True)
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        file.write(fixture)
        file.flush()
        call_command("loaddata", file.name, verbosity=0)


def run_sql(sql: str, *params: Any) -> None:
    with connection.cursor() as cursor:
        cursor.execute(sql, params)


KEY = "(SELECT id FROM vectordb_library WHERE public_id = %s)"


@leads_to({**BEFORE, "a": A._replace(text="by SQL")})
def _sql_update(library_id: str) -> None:
    run_sql(f"UPDATE vectordb_chunk SET text = 'by SQL' WHERE public_id = 'a' AND library_id = {KEY}", library_id)


@leads_to({"b": B, "c": C})
def _sql_delete(library_id: str) -> None:
    run_sql(f"DELETE FROM vectordb_chunk WHERE public_id = 'a' AND library_id = {KEY}", library_id)


@leads_to({"c": C})
def _sql_delete_of_the_document(library_id: str) -> None:
    run_sql(f"DELETE FROM vectordb_document WHERE library_id = {KEY}", library_id)


@leads_to({**BEFORE, "a": A._replace(document="renamed"), "b": B._replace(document="renamed")})
def _sql_update_of_the_document(library_id: str) -> None:
    run_sql(f"UPDATE vectordb_document SET public_id = 'renamed' WHERE library_id = {KEY}", library_id)


@leads_to({"b": B, "c": C})
def _sql_update_of_the_expiry(library_id: str) -> None:
    run_sql(
        f"UPDATE vectordb_chunk SET expires_at = '2001-01-01 00:00:00' WHERE public_id = 'a' AND library_id = {KEY}",
        library_id,
    )


@leads_to({"c": C})
def _sql_update_of_the_document_s_expiry(library_id: str) -> None:
    run_sql(f"UPDATE vectordb_document SET expires_at = '2001-01-01 00:00:00' WHERE library_id = {KEY}", library_id)


@leads_to(None)
def _sql_delete_of_the_library(library_id: str) -> None:
    run_sql("DELETE FROM vectordb_library WHERE public_id = %s", library_id)


INSERT_NEW = f"""
    INSERT INTO vectordb_chunk (library_id, public_id, text, metadata, created_at, updated_at)
    VALUES ({KEY}, %s, 'new', '{{"n": 9}}', '2024-01-01 00:00:00', '2024-01-01 00:00:00')"""
INSERT_EMBEDDING = f"""
    INSERT INTO vectordb_embedding (chunk_id, generation, vector)
    SELECT id, 1, %s FROM vectordb_chunk WHERE library_id = {KEY} AND public_id = %s"""


@leads_to({**BEFORE, "new": NEW})
def _sql_insert(library_id: str) -> None:
    run_sql(INSERT_NEW, library_id, "new")
    run_sql(INSERT_EMBEDDING, blob(*NEW.vector), library_id, "new")


@leads_to({**BEFORE, "a": A._replace(text="new", vector=(7, 7, 7))})
def _sql_upsert(library_id: str) -> None:
    run_sql(f"{INSERT_NEW} ON CONFLICT (library_id, public_id) DO UPDATE SET text = excluded.text", library_id, "a")
    upsert = f"{INSERT_EMBEDDING} ON CONFLICT (chunk_id, generation) DO UPDATE SET vector = excluded.vector"
    run_sql(upsert, blob(7, 7, 7), library_id, "a")


def run_in_sqlite(sql: str, **params: Any) -> None:
    """Run one statement with nothing of Django, as from a database shell: no foreign keys, no settings."""
    with closing(sqlite3.connect(connection.settings_dict["NAME"], timeout=20)) as database, database:
        database.execute(sql, params)


_COLUMNS = "library_id, document_id, public_id, text, metadata, position, created_at, updated_at"
_REPLACED = "library_id, document_id, public_id, 'replaced', metadata, position, created_at, updated_at"
_CHUNK_A = "public_id = 'a' AND library_id = (SELECT id FROM vectordb_library WHERE public_id = :library)"


@leads_to({**BEFORE, "a": A._replace(text="shell")}, needs_sqlite=True)
def _database_shell(library_id: str) -> None:
    run_in_sqlite(f"UPDATE vectordb_chunk SET text = 'shell' WHERE {_CHUNK_A}", library=library_id)


@leads_to({"c": C}, needs_sqlite=True)
def _delete_of_a_document_in_a_database_shell(library_id: str) -> None:
    sql = (
        "DELETE FROM vectordb_document WHERE library_id = (SELECT id FROM vectordb_library WHERE public_id = :library)"
    )
    run_in_sqlite(sql, library=library_id)


@leads_to({**BEFORE, "a": A._replace(text="replaced")}, needs_sqlite=True)
def _insert_or_replace_with_its_key(library_id: str) -> None:
    replaced = f"SELECT id, {_REPLACED} FROM vectordb_chunk WHERE {_CHUNK_A}"
    sql = f"INSERT OR REPLACE INTO vectordb_chunk (id, {_COLUMNS}) {replaced}"
    run_in_sqlite(sql, library=library_id)


@leads_to({**BEFORE, "a": A._replace(text="replaced", vector=None)}, needs_sqlite=True)
def _insert_or_replace_with_another_key(library_id: str) -> None:
    sql = f"INSERT OR REPLACE INTO vectordb_chunk ({_COLUMNS}) SELECT {_REPLACED} FROM vectordb_chunk WHERE {_CHUNK_A}"
    run_in_sqlite(sql, library=library_id)


@leads_to({**BEFORE, "a": A._replace(vector=(8, 8, 8))}, needs_sqlite=True)
def _insert_or_replace_of_the_embedding(library_id: str) -> None:
    embedding = f"SELECT id, 1, :vector FROM vectordb_chunk WHERE {_CHUNK_A}"
    sql = f"INSERT OR REPLACE INTO vectordb_embedding (chunk_id, generation, vector) {embedding}"
    run_in_sqlite(sql, library=library_id, vector=blob(8, 8, 8))


@leads_to({"b": A, "c": C}, needs_sqlite=True)
def _update_or_replace(library_id: str) -> None:
    run_in_sqlite(f"UPDATE OR REPLACE vectordb_chunk SET public_id = 'b' WHERE {_CHUNK_A}", library=library_id)


@leads_to({**BEFORE, "a": NEW, "new": NEW})
def _upsert_by_the_services(library_id: str) -> None:
    fields = {"text": NEW.text, "metadata": NEW.metadata, "embedding": list(NEW.vector), "document_id": None}
    write = ChunksWrite.model_validate({"chunks": [{"id": "a", **fields}, {"id": "new", **fields}]})
    chunk_services.upsert_chunks(library_id=library_id, write=write)


@leads_to({**BEFORE, "a": A._replace(metadata={"patched": True})})
def _update_by_the_services(library_id: str) -> None:
    update = ChunkUpdate.model_validate({"metadata": {"patched": True}})
    chunk_services.update_chunk(library_id=library_id, chunk_id="a", update=update)


@leads_to({**BEFORE, "a": A._replace(metadata={"n": 1, "m": 2}), "c": C._replace(metadata={"n": 3, "m": 2})})
def _update_of_metadata_by_the_services(library_id: str) -> None:
    change = MetadataChange({"m": 2}, "set")
    metadata_services.update_chunks_by_id(library_id=library_id, ids=["a", "c"], change=change)


@leads_to({"b": B})
def _delete_by_the_services(library_id: str) -> None:
    chunk_services.delete_chunks(library_id=library_id, ids=["a", "c"])


@leads_to({"a": A._replace(text="again"), "c": C})
def _replacing_the_document_by_the_services(library_id: str) -> None:
    chunk = {"id": "a", "text": "again", "metadata": A.metadata, "embedding": list(A.vector)}
    document = DocumentInput.model_validate({"chunks": [chunk]})
    document_services.replace_document(library_id=library_id, document_id="d", document=document)


@leads_to(None)
def _delete_of_the_library_by_the_services(library_id: str) -> None:
    library_services.delete_library(library_id=library_id)


def admin() -> Client:
    """A browser in which an administrator is logged in."""
    user, _ = get_user_model().objects.get_or_create(username="admin", is_staff=True, is_superuser=True)
    client = Client()
    client.force_login(user)
    return client


def submit(client: Client, path: str, **changes: Any) -> None:
    """Open the page of a form, change fields, and press Save."""
    page = client.get(path)
    assert page.status_code == 200, page.content
    formsets = [inline.formset for inline in page.context["inline_admin_formsets"]]
    forms = [page.context["adminform"].form]
    forms += [form for formset in formsets for form in (formset.management_form, *formset.initial_forms)]
    fields = {field.html_name: field.value() for form in forms for field in form}
    answer = client.post(path, {name: value for name, value in fields.items() if value is not None} | changes)
    assert answer.status_code == 302, answer.context["errors"]


def delete_selected(model: str, rows: "QuerySet[Any]") -> None:
    """Tick rows of an admin list, choose "Delete selected", and confirm."""
    form = {"action": "delete_selected", "_selected_action": [str(row.pk) for row in rows], "post": "yes"}
    answer = admin().post(f"/admin/libraries/{model}/", form)
    assert answer.status_code == 302, answer.content


@leads_to({**BEFORE, "a": A._replace(text="by admin")})
def _text_in_the_admin(library_id: str) -> None:
    submit(admin(), f"/admin/libraries/chunk/{chunks(library_id, 'a').get().pk}/change/", text="by admin")


@leads_to({**BEFORE, "a": A._replace(metadata={"by": ["admin"]})})
def _metadata_in_the_admin(library_id: str) -> None:
    key = chunks(library_id, "a").get().pk
    submit(admin(), f"/admin/libraries/chunk/{key}/change/", metadata='{"by": ["admin"]}')


@leads_to({"b": B, "c": C})
def _delete_in_the_admin(library_id: str) -> None:
    path = f"/admin/libraries/chunk/{chunks(library_id, 'a').get().pk}/delete/"
    assert admin().post(path, {"post": "yes"}).status_code == 302


@leads_to({"b": B})
def _admin_action_on_chunks(library_id: str) -> None:
    delete_selected("chunk", chunks(library_id, "a", "c"))


@leads_to({"c": C})
def _admin_action_on_documents(library_id: str) -> None:
    delete_selected("document", Document.objects.filter(library__public_id=library_id))


@leads_to(None)
def _admin_action_on_libraries(library_id: str) -> None:
    delete_selected("library", Library.objects.filter(public_id=library_id))


if connection.vendor == "postgresql":

    @leads_to({})
    def _truncate(library_id: str) -> None:
        run_sql("TRUNCATE vectordb_chunk, vectordb_embedding")


def obey() -> None:
    """What the writer does: make the changes that are asked for on its standard input, one a line."""
    setup_test_environment()
    for line in sys.stdin:
        name, library_id = json.loads(line)
        try:
            WAYS[name].change(library_id)
            answer = ""
        except Exception:
            answer = traceback.format_exc()
        print(json.dumps(answer), flush=True)  # noqa: T201


@pytest.fixture(scope="module")
def one_worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of one worker."""
    with serving(tmp_path_factory.mktemp("ways") / "data", VECTORDB_WORKERS=1) as server:
        yield server


@pytest.fixture(scope="module")
def writer(one_worker: Server) -> Iterator["subprocess.Popen[str]"]:
    """A process that has nothing to do with the server but the database."""
    with one_worker.python(f"import django; django.setup(); from {__name__} import obey; obey()") as process:
        yield process
        assert process.stdin
        process.stdin.close()


_numbers = itertools.count()


@pytest.fixture
def api(one_worker: Server) -> Iterator[httpx.Client]:
    """A client of a new library that holds `BEFORE`."""
    library_id = f"way-{next(_numbers)}"
    with one_worker.client() as client:
        library = {"id": library_id, "name": "Test", "dimension": 3, "metric": "dot"}
        client.post("/libraries", json=library).raise_for_status()
        client.base_url = client.base_url.join(f"libraries/{library_id}/")
        attached = [written(chunk_id, row) for chunk_id, row in BEFORE.items() if row.document]
        client.post("documents", json={"id": "d", "chunks": attached}).raise_for_status()
        client.post("chunks", json={"chunks": [written("c", C)]}).raise_for_status()
        yield client


def written(chunk_id: str, row: Row) -> dict[str, Any]:
    return {"id": chunk_id, "text": row.text, "metadata": row.metadata, "embedding": row.vector}


def make_change(writer: "subprocess.Popen[str]", name: str, client: httpx.Client) -> None:
    """Have the writer make a change to the client's library."""
    assert writer.stdin
    assert writer.stdout
    library_id = Path(client.base_url.path).name
    writer.stdin.write(json.dumps([name, library_id]) + "\n")
    writer.stdin.flush()
    error = json.loads(writer.stdout.readline())
    assert not error, error


def answered(client: httpx.Client) -> tuple[Rows, int]:
    """What a query shows of the library, and its revision; each score must be that of the vector shown."""
    query = {"vector": PROBE, "k": 100, "include": ["text", "metadata", "embedding"]}
    answer = client.post("query", json=query).raise_for_status().json()
    for result in answer["results"]:
        assert result["score"] == np.dot(PROBE, result["embedding"])
    every = {"filter": '{"@id": {"$exists": true}}', "include": ["text", "metadata", "embedding"]}
    listed = client.get("chunks", params=every).raise_for_status().json()["items"]
    bare = [chunk for chunk in listed if chunk["embedding"] is None]
    rows = {
        chunk["id"]: Row(
            chunk["text"], chunk["metadata"], chunk["embedding"] and tuple(chunk["embedding"]), chunk["document_id"]
        )
        for chunk in [*answer["results"], *bare]
    }
    assert len(rows) == len(listed) == len(answer["results"]) + len(bare)
    return rows, answer["meta"]["revision"]


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.sqlite] * way.needs_sqlite) for name, way in WAYS.items()]
)
def test_the_server_answers_from_the_changed_data(
    name: str, api: httpx.Client, writer: "subprocess.Popen[str]"
) -> None:
    before, revision = answered(api)
    assert before == BEFORE
    make_change(writer, name, api)
    if WAYS[name].after is None:
        assert api.post("query", json={"vector": PROBE}).status_code == 404
    else:
        after, moved = answered(api)
        assert after == WAYS[name].after
        assert moved > revision


@pytest.mark.sqlite
def test_another_history_with_the_same_numbers_is_told_apart(api: httpx.Client, one_worker: Server) -> None:
    """As after a backup was put back and written to: the log's last entry has the same number, and is another one."""
    _, revision = answered(api)
    with closing(sqlite3.connect(one_worker.folder / "vectordb.sqlite3", timeout=20)) as database, database:
        database.execute("DELETE FROM vectordb_change WHERE seq = ?", [revision])
        database.execute("UPDATE sqlite_sequence SET seq = ? WHERE name = 'vectordb_change'", [revision - 1])
        library_id = Path(api.base_url.path).name
        joined = "vectordb_chunk AS chunk JOIN vectordb_library AS library ON library.id = library_id"
        chunk = f"SELECT chunk.id FROM {joined} WHERE library.public_id = ?"
        sql = f"UPDATE vectordb_embedding SET vector = ? WHERE chunk_id = ({chunk} AND chunk.public_id = 'a')"
        database.execute(sql, [blob(9, 9, 9), library_id])
    assert answered(api) == ({**BEFORE, "a": A._replace(vector=(9, 9, 9))}, revision)
