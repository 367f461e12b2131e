"""What the database itself promises: its triggers, its refusals, its settings, and which of its failures may pass."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.management import call_command
from django.db import DatabaseError, IntegrityError, ProgrammingError, connection, connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import Max
from django.db.utils import ConnectionHandler
from django.test import Client
from django.utils import timezone

from apps.libraries.dialects import Failure, check_database, create_database, dialect_of, failure_of, note_if_damaged
from apps.libraries.dialects.damage import forget_damage
from apps.libraries.models import Change, Chunk, Document, Embedding, Library, Reembedding

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "snapshot"])

TRIGGERS = {
    "sqlite": "SELECT name, tbl_name FROM sqlite_master WHERE type = 'trigger'",
    "postgresql": "SELECT tgname, relname FROM pg_trigger JOIN pg_class ON pg_class.oid = tgrelid"
    " WHERE NOT tgisinternal",
}


@pytest.fixture
def chunk() -> Chunk:
    """A chunk with an embedding, in a document of a library of dimension 2."""
    library = Library.objects.create(public_id="a", name="A", dimension=2)
    document = Document.objects.create(library=library, public_id="d")
    chunk = Chunk.objects.create(library=library, document=document, public_id="x")
    Embedding.objects.create(chunk=chunk, generation=1, vector=bytes(8))
    return chunk


def execute(sql: str, *params: Any) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(sql, params)
        return cursor.fetchall() if cursor.description else []


def entries() -> int:
    """The number of entries of the log that name chunks."""
    return Change.objects.exclude(library_key=0).count()


def drop_trigger(name: str, table: str) -> None:
    execute(f"DROP TRIGGER {name}" + (f" ON {table}" if connection.vendor == "postgresql" else ""))


def test_a_trigger_that_is_missing_is_reported_and_migrate_brings_it_back() -> None:
    client = Client()
    triggers = sorted(execute(TRIGGERS[connection.vendor]))
    assert len(triggers) >= 8
    for name, table in triggers:
        assert client.get("/ready").json()["checks"]["database"] == "ok"
        drop_trigger(name, table)
        answer = client.get("/ready")
        assert answer.status_code == 503
        assert answer.json()["checks"]["database"] == f"triggers are missing ({name}): run manage.py migrate"
        call_command("migrate", verbosity=0)
    assert sorted(execute(TRIGGERS[connection.vendor])) == triggers


def test_migrate_puts_a_trigger_right_that_does_something_else(chunk: Chunk) -> None:
    if connection.vendor == "sqlite":
        execute("DROP TRIGGER vectordb_chunk_log_update")
        execute("CREATE TRIGGER vectordb_chunk_log_update AFTER UPDATE ON vectordb_chunk BEGIN SELECT 1; END")
    else:
        execute(
            "CREATE OR REPLACE FUNCTION vectordb_chunk_log_update() RETURNS trigger LANGUAGE plpgsql"
            " AS $$ BEGIN RETURN NULL; END $$"
        )
    before = entries()
    Chunk.objects.update(text="unseen")
    assert entries() == before
    call_command("migrate", verbosity=0)
    Chunk.objects.update(text="seen")
    assert entries() == before + 1


def test_migrate_leaves_the_log_as_it_is(chunk: Chunk) -> None:
    before = list(Change.objects.values_list("seq", "token"))
    call_command("migrate", verbosity=0)
    assert list(Change.objects.values_list("seq", "token")) == before


def test_each_entry_of_the_log_has_a_token_of_its_own(chunk: Chunk) -> None:
    for _ in range(5):
        Chunk.objects.update(position=1)
    tokens = Change.objects.values_list("token", flat=True)
    assert len(set(tokens)) == len(tokens) >= 6


@pytest.mark.parametrize(
    ("change", "is_logged"),
    [
        ({"public_id": "renamed"}, True),
        ({"metadata": {"kind": "note"}}, True),
        ({"expires_at": datetime(2100, 1, 1, tzinfo=UTC)}, True),
        ({"title": "Another", "source": "Another"}, False),
        ({"public_id": "d", "metadata": {}, "expires_at": None}, False),
    ],
)
def test_a_change_of_a_document_that_its_chunks_inherit_is_logged_for_them(
    chunk: Chunk, change: dict[str, Any], is_logged: bool
) -> None:
    assert chunk.document is not None
    Chunk.objects.create(library=chunk.library, public_id="alone")
    Document.objects.create(library=chunk.library, public_id="other", metadata={"n": 1})
    newest = Change.objects.latest("seq").seq
    Document.objects.filter(pk=chunk.document.pk).update(**change)
    logged = [(one.library_key, one.chunk_key) for one in Change.objects.filter(seq__gt=newest)]
    assert logged == [(chunk.library.pk, chunk.pk)] * is_logged


@pytest.mark.parametrize(
    ("change", "is_logged"),
    [
        ({"public_id": "renamed"}, True),
        ({"index_type": "lsh"}, True),
        ({"index_params": {"bits": 64}}, True),
        ({"dimension": 4}, True),
        ({"manifest": 1}, True),
        ({"rebuild": 1}, True),
        ({"name": "Another", "description": "Another", "metadata": {"a": 1}, "updated_at": timezone.now()}, False),
        ({"index_type": "auto", "index_params": {}, "manifest": 0}, False),
    ],
)
def test_a_change_of_a_library_that_maintenance_looks_at_is_logged(change: dict[str, Any], is_logged: bool) -> None:
    Library.objects.create(public_id="other", name="Other")
    library = Library.objects.create(public_id="a", name="A", dimension=3)
    newest = Change.objects.latest("seq").seq
    Library.objects.filter(pk=library.pk).update(**change)
    logged = [(one.library_key, one.chunk_key) for one in Change.objects.filter(seq__gt=newest)]
    assert logged == [(0, library.pk)] * is_logged


def test_libraries_that_come_and_go_are_logged() -> None:
    before = Change.objects.aggregate(seq=Max("seq"))["seq"] or 0
    library = Library.objects.create(public_id="a", name="A", dimension=3)
    Chunk.objects.create(library=library, public_id="x")
    key = library.pk
    library.delete()
    added = Change.objects.filter(seq__gt=before).order_by("seq")
    assert list(added.values_list("library_key", "chunk_key")) == [(0, key)] * 2


@pytest.mark.sqlite
def test_a_document_that_replaces_another_of_its_key_is_logged_for_its_chunks(chunk: Chunk) -> None:
    assert chunk.document is not None
    before = entries()
    execute(
        "INSERT OR REPLACE INTO vectordb_document (id, library_id, public_id, title, source, metadata, created_at,"
        " updated_at) SELECT id, library_id, public_id, title, source, '{\"n\": 2}', created_at, updated_at"
        " FROM vectordb_document"
    )
    assert entries() == before + 1


@pytest.mark.parametrize("length", [4, 12, 16])
def test_a_vector_of_another_length_is_refused(chunk: Chunk, length: int) -> None:
    with pytest.raises(IntegrityError, match=r"4 x library\.dimension bytes"):
        execute("UPDATE vectordb_embedding SET vector = %s", bytes(length))
    execute("DELETE FROM vectordb_embedding")
    with pytest.raises(IntegrityError, match=r"4 x library\.dimension bytes"):
        execute(
            "INSERT INTO vectordb_embedding (chunk_id, generation, vector) VALUES (%s, 1, %s)", chunk.pk, bytes(length)
        )
    assert execute("SELECT count(*) FROM vectordb_embedding") == [(0,)]


@pytest.mark.parametrize("length", [0, 3, 9])
def test_a_vector_of_no_float32_values_is_refused_in_every_generation(chunk: Chunk, length: int) -> None:
    with pytest.raises(IntegrityError):
        execute(
            "INSERT INTO vectordb_embedding (chunk_id, generation, vector) VALUES (%s, 2, %s)", chunk.pk, bytes(length)
        )


def test_another_generation_may_have_another_length(chunk: Chunk) -> None:
    execute("INSERT INTO vectordb_embedding (chunk_id, generation, vector) VALUES (%s, 2, %s)", chunk.pk, bytes(12))
    assert Embedding.objects.count() == 2


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE vectordb_chunk SET library_id = -1",
        "UPDATE vectordb_chunk SET document_id = -1",
        "UPDATE vectordb_document SET library_id = -1",
        "UPDATE vectordb_embedding SET chunk_id = -1",
        "INSERT INTO vectordb_embedding (chunk_id, generation, vector) VALUES (-1, 1, vector_of_two)",
        "UPDATE vectordb_library SET dimension = 0",
        "UPDATE vectordb_library SET metric = 'manhattan'",
        "UPDATE vectordb_library SET name = ''",
        "UPDATE vectordb_library SET public_id = ''",
    ],
)
def test_rows_that_make_no_sense_are_refused(chunk: Chunk, statement: str) -> None:
    blob = "zeroblob(8)" if connection.vendor == "sqlite" else "decode(repeat('00', 8), 'hex')"
    before = entries()
    with pytest.raises(IntegrityError), transaction.atomic():
        execute(statement.replace("vector_of_two", blob))
    assert entries() == before


def test_ids_are_unique_in_their_library(chunk: Chunk) -> None:
    with pytest.raises(IntegrityError):
        Chunk.objects.create(library=chunk.library, public_id="x")
    with pytest.raises(IntegrityError):
        Document.objects.create(library=chunk.library, public_id="d")
    with pytest.raises(IntegrityError):
        Library.objects.create(public_id="a", name="B")


def test_embeddings_of_other_generations_are_not_logged(chunk: Chunk) -> None:
    before = entries()
    other = Embedding.objects.create(chunk=chunk, generation=2, vector=bytes(12))
    Embedding.objects.filter(generation=2).update(vector=bytes(16))
    Embedding.objects.filter(generation=2).update(generation=3)
    Embedding.objects.filter(generation=3).delete()
    assert entries() == before
    other.save(force_insert=True)
    Embedding.objects.filter(generation=1).delete()
    assert entries() == before + 1
    # What becomes of the current generation, and what was of it, is.
    Embedding.objects.filter(generation=2).update(generation=1, vector=bytes(8))
    assert entries() == before + 2
    Embedding.objects.update(generation=2)
    assert entries() == before + 3


def test_the_switch_to_another_generation_is_one_entry(chunk: Chunk) -> None:
    before = entries()
    Library.objects.update(name="B", generation=1)
    assert entries() == before
    Library.objects.update(generation=2)
    assert entries() == before + 1


@pytest.mark.parametrize("moves", [False, True])
def test_what_was_made_of_another_text_or_for_another_library_is_forgotten(chunk: Chunk, moves: bool) -> None:
    other = Library.objects.create(public_id="b", name="B", dimension=2)
    for library in (chunk.library, other):
        Reembedding.objects.create(library=library, generation=2, provider="hashing", model="hashing-64")
    Embedding.objects.create(chunk=chunk, generation=2, vector=bytes(256))
    Chunk.objects.update(text=chunk.text, position=7, metadata={"n": 1})
    assert Embedding.objects.count() == 2
    Chunk.objects.update(**{"library": other, "document": None} if moves else {"text": "another"})
    assert list(Embedding.objects.values_list("generation", flat=True)) == [1]


def _left() -> dict[str, int]:
    return {model.__name__: model.objects.count() for model in (Library, Document, Chunk, Embedding, Reembedding)}


@pytest.mark.parametrize(
    ("table", "left"),
    [
        ("library", {"Library": 0, "Document": 0, "Chunk": 0, "Embedding": 0, "Reembedding": 0}),
        ("document", {"Library": 1, "Document": 0, "Chunk": 0, "Embedding": 0, "Reembedding": 1}),
        ("chunk", {"Library": 1, "Document": 1, "Chunk": 0, "Embedding": 0, "Reembedding": 1}),
    ],
)
def test_no_orphan_is_left_by_plain_sql(chunk: Chunk, table: str, left: dict[str, int]) -> None:
    Reembedding.objects.create(library=chunk.library, generation=2, provider="hashing", model="hashing-64")
    Embedding.objects.create(chunk=chunk, generation=2, vector=bytes(256))
    before = entries()
    execute(f"DELETE FROM vectordb_{table}")
    assert _left() == left
    assert entries() == 0 if table == "library" else entries() > before


@pytest.mark.sqlite
def test_no_orphan_is_left_by_a_tool_that_does_not_check_foreign_keys(chunk: Chunk) -> None:
    with closing(sqlite3.connect(connection.settings_dict["NAME"])) as tool:
        assert tool.execute("PRAGMA foreign_keys").fetchone() == (0,)
        tool.execute("DELETE FROM vectordb_library")
        tool.commit()
    assert set(_left().values()) == {0}
    assert entries() == 0


def test_the_snapshot_connection_refuses_to_write(chunk: Chunk) -> None:
    with pytest.raises(DatabaseError, match=r"readonly database|read-only transaction") as refused:
        connections["snapshot"].cursor().execute("DELETE FROM vectordb_chunk")
    connections["snapshot"].close()
    assert not isinstance(refused.value, IntegrityError)
    assert Chunk.objects.count() == 1


@pytest.mark.sqlite
@pytest.mark.parametrize("alias", ["default", "snapshot"])
def test_an_acknowledged_write_is_on_disk(alias: str) -> None:
    with connections[alias].cursor() as cursor:
        found = {
            name: cursor.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("journal_mode", "synchronous", "foreign_keys", "query_only", "busy_timeout")
        }
    assert found == {
        "journal_mode": "wal",
        "synchronous": 2,
        "foreign_keys": 1,
        "query_only": int(alias == "snapshot"),
        "busy_timeout": settings.BUSY_TIMEOUT * 1000,
    }


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Callable[[], BaseDatabaseWrapper]]:
    """Makes connections, with the settings of `default`, to one database that is empty yet."""
    made = []

    def make() -> BaseDatabaseWrapper:
        database = settings.DATABASES["default"] | {"NAME": str(tmp_path / "fresh.sqlite3")}
        made.append(ConnectionHandler({"default": database})["default"])
        create_database(made[-1])
        return made[-1]

    yield make
    for wrapper in made:
        wrapper.close()


@pytest.mark.sqlite
def test_a_fresh_database_has_large_pages_and_can_shrink(fresh: Callable[[], BaseDatabaseWrapper]) -> None:
    database = fresh()
    with database.cursor() as cursor:
        cursor.execute("CREATE TABLE t (x)")
    database.close()
    header = Path(database.settings_dict["NAME"]).read_bytes()[:100]
    # The offsets are those of the file format: page size, version of a WAL reader, incremental vacuum.
    assert int.from_bytes(header[16:18], "big") == 8192
    assert header[19] == 2
    assert int.from_bytes(header[64:68], "big") == 1


# Rows of about a page each, some more of them than upkeep frees in one step.
FILL = (
    "WITH RECURSIVE number (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM number WHERE i < 2600)"
    " INSERT INTO t SELECT zeroblob(7000) FROM number"
)


@pytest.mark.sqlite
def test_upkeep_gives_the_pages_of_deleted_rows_back(fresh: Callable[[], BaseDatabaseWrapper]) -> None:
    database = fresh()
    path = Path(database.settings_dict["NAME"])
    with database.cursor() as cursor:
        cursor.execute("PRAGMA synchronous = OFF")
        cursor.execute("CREATE TABLE t (x)")
        cursor.execute(FILL)
        dialect_of(database).upkeep(database)
        assert path.stat().st_size > 20_000_000
        cursor.execute("DELETE FROM t WHERE rowid > 100")
        dialect_of(database).upkeep(database)
        assert path.stat().st_size < 8_000_000
        assert cursor.execute("SELECT count(*) FROM t").fetchone() == (100,)


@pytest.mark.sqlite
def test_upkeep_ends_for_a_database_that_cannot_shrink(fresh: Callable[[], BaseDatabaseWrapper]) -> None:
    # As `sqlite3 new.sqlite3 < dump.sql` makes it: auto_vacuum cannot be set any more.
    database = fresh()
    with closing(sqlite3.connect(database.settings_dict["NAME"])) as tool:
        tool.execute("CREATE TABLE t (x)")
        tool.execute(FILL)
        tool.execute("DELETE FROM t")
        tool.commit()
    database.ensure_connection()
    steps = iter(range(100_000))
    database.connection.set_progress_handler(lambda: next(steps, None) is None, 1)
    dialect_of(database).upkeep(database)


@pytest.mark.sqlite
def test_upkeep_is_put_off_where_another_holds_the_database(fresh: Callable[[], BaseDatabaseWrapper]) -> None:
    holder, database = fresh(), fresh()
    with database.cursor() as cursor:
        cursor.execute("PRAGMA synchronous = OFF")
        cursor.execute("PRAGMA busy_timeout = 1")
        cursor.execute("CREATE TABLE t (x)")
        cursor.execute(FILL)
        cursor.execute("DELETE FROM t")
    holder.cursor().execute("BEGIN IMMEDIATE")
    with pytest.raises(DatabaseError) as failed:
        dialect_of(database).upkeep(database)
    assert failure_of(failed.value) is Failure.BUSY


@pytest.mark.sqlite
def test_a_database_that_another_holds_is_busy(fresh: Callable[[], BaseDatabaseWrapper]) -> None:
    holder, other = fresh(), fresh()
    with holder.cursor() as cursor:
        cursor.execute("CREATE TABLE t (x)")
    with other.cursor() as cursor:
        cursor.execute("PRAGMA busy_timeout = 1")
        holder.cursor().execute("BEGIN IMMEDIATE")
        with pytest.raises(DatabaseError) as failed:
            cursor.execute("BEGIN IMMEDIATE")
    assert failure_of(failed.value) is Failure.BUSY


@pytest.mark.sqlite
def test_a_table_that_another_statement_holds_is_busy(fresh: Callable[[], BaseDatabaseWrapper]) -> None:
    database = fresh()
    with database.cursor() as cursor, database.cursor() as reader:
        cursor.execute("CREATE TABLE t (x)")
        cursor.execute("INSERT INTO t VALUES (1), (2)")
        reader.execute("SELECT x FROM t")
        reader.fetchone()
        with pytest.raises(DatabaseError) as failed:
            cursor.execute("DROP TABLE t")
    assert failure_of(failed.value) is Failure.BUSY


@pytest.mark.sqlite
def test_a_reader_that_would_write_after_another_wrote_is_busy(fresh: Callable[[], BaseDatabaseWrapper]) -> None:
    reader, writer = fresh(), fresh()
    with reader.cursor() as cursor, writer.cursor() as other:
        other.execute("CREATE TABLE t (x)")
        cursor.execute("BEGIN DEFERRED")
        cursor.execute("SELECT count(*) FROM t").fetchall()
        other.execute("INSERT INTO t VALUES (1)")
        with pytest.raises(DatabaseError) as failed:
            cursor.execute("INSERT INTO t VALUES (2)")
    # SQLite says so by an extended code, SQLITE_BUSY_SNAPSHOT.
    assert failure_of(failed.value) is Failure.BUSY


@pytest.mark.sqlite
def test_a_full_disk_is_told_apart(fresh: Callable[[], BaseDatabaseWrapper]) -> None:
    database = fresh()
    with database.cursor() as cursor:
        cursor.execute("CREATE TABLE t (x)")
        cursor.execute("PRAGMA max_page_count = 10")
        with pytest.raises(DatabaseError) as failed:
            cursor.execute("INSERT INTO t VALUES (zeroblob(1000000))")
        assert failure_of(failed.value) is Failure.FULL
        assert cursor.execute("SELECT count(*) FROM t").fetchone() == (0,)


@pytest.mark.sqlite
def test_files_that_cannot_be_used_are_told_apart(fresh: Callable[[], BaseDatabaseWrapper], tmp_path: Path) -> None:
    (tmp_path / "fresh.sqlite3").mkdir()
    with pytest.raises(DatabaseError) as failed:
        fresh().ensure_connection()
    assert failure_of(failed.value) is Failure.UNAVAILABLE


@pytest.mark.parametrize("below", [".", "below"])
def test_a_data_folder_that_cannot_be_made_is_refused(settings: Any, below: str) -> None:
    settings.DATA_DIR = Path(__file__) / below
    with pytest.raises(ImproperlyConfigured, match=r"VECTORDB_DATA_DIR=.* a folder that can be created and written"):
        create_database(connection)


@pytest.fixture
def note() -> Iterator[Path]:
    """The file that says that the database is damaged; gone after the test."""
    yield settings.DATA_DIR / "database_damaged"
    forget_damage()


def meet_damage(state: str) -> None:
    """Fail as on a damaged page; on PostgreSQL with the error `state`."""
    if connection.vendor == "postgresql":
        execute(f"DO $$ BEGIN RAISE EXCEPTION 'a page is invalid' USING ERRCODE = '{state}'; END $$")
    with closing(sqlite3.connect(":memory:")) as other, connection.wrap_database_errors:
        other.deserialize(b"SQLite format 3\0" + bytes(4080))
        other.execute("SELECT * FROM sqlite_master")


@pytest.mark.parametrize("state", ["XX001", "XX002"])
def test_what_the_disk_did_is_told_apart_and_stops_all_writes(chunk: Chunk, note: Path, state: str) -> None:
    with pytest.raises(DatabaseError) as failed:
        meet_damage(state)
    assert failure_of(failed.value) is Failure.DAMAGED
    note_if_damaged(failed.value)
    assert note.exists()
    assert Library.objects.count() == 1
    with pytest.raises(DatabaseError) as refused:
        Library.objects.create(public_id="b", name="B")
    assert failure_of(refused.value) is Failure.DAMAGED
    with pytest.raises(DatabaseError), transaction.atomic():
        Chunk.objects.update(text="other")
    assert Client().get("/ready").status_code == 503
    assert check_database() == []
    Library.objects.create(public_id="b", name="B")
    assert Client().get("/ready").json()["checks"]["database"] == "ok"


def test_a_mistake_is_no_passing_failure(chunk: Chunk) -> None:
    with pytest.raises(DatabaseError) as failed:
        execute("SELECT nothing FROM nowhere")
    assert failure_of(failed.value) is None
    with pytest.raises(IntegrityError) as refused:
        Library.objects.create(public_id="a", name="B")
    assert failure_of(refused.value) is None
    assert failure_of(ProgrammingError("made by Django itself")) is None
