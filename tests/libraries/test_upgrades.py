"""A database of every earlier version is migrated to this version, and on to one to come, and answers as before."""

import contextlib
import sqlite3
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import psycopg
import pytest
from django.core.management import call_command
from django.db import connection, connections
from django.db.migrations.executor import MigrationExecutor

from apps.libraries.dialects import create_database, dialect_of
from apps.libraries.inputs import ChunksWrite
from apps.libraries.services.chunks import delete_chunks, upsert_chunks
from apps.search.query.service import query
from apps.search.query.spec import QuerySpec
from apps.transfer.backups.make import make_backup
from apps.transfer.backups.restore import restore_backup
from apps.transfer.backups.stores import FolderStore
from tests.libraries import upgrades
from tests.server import Server

COMMITS = ["663240c", "c1b5e67", "0e8051a"]
STATES = ["0001_initial", "0002_index_files", "0003_embedding_model", "0004_reembedding", "0005_table_prefix"]
NEXT_VERSION = {"libraries": "tests.libraries.upgrades.next_version"}

# Ids and scores for the vector (1, 0, 0); ties in the order of creation.
ANSWER = [("call", 1.0), ("whale", 0.8), ("alone", 0.0), ("changed", 0.0)]
REVISION = 8


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A server that does not run, with an empty database of its own."""
    folder = tmp_path / "data"
    folder.mkdir()
    server = Server(folder, makes_database=True)
    yield server
    server.drop_database()


@pytest.fixture
def database(server: Server, django_db_blocker: Any) -> Iterator[None]:
    """The server's database is that of this process too."""
    aliases = [connections[alias] for alias in ("default", "snapshot")]
    before = [alias.settings_dict["NAME"] for alias in aliases]
    name = urlsplit(server.database).path[1:] or server.folder / "vectordb.sqlite3"
    _connect([name, name])
    with django_db_blocker.unblock():
        yield
    _connect(before)


def _connect(names: list[Any]) -> None:
    for alias, name in zip(("default", "snapshot"), names, strict=True):
        connections[alias].close()
        connections[alias].settings_dict["NAME"] = name


def run_script(sql: str) -> None:
    """Run statements on a connection like that of a database shell."""
    if connection.vendor == "postgresql":
        with psycopg.connect(**connection.get_connection_params() | {"cursor_factory": None}) as shell:
            shell.execute(sql)
    else:
        with contextlib.closing(sqlite3.connect(connection.settings_dict["NAME"])) as shell:
            shell.executescript(sql)


def migrate() -> None:
    call_command("migrate", verbosity=0, interactive=False)


def migrate_to_state(name: str) -> Any:
    """Migrate as the version did whose newest migration is `name`; return its models."""
    executor = MigrationExecutor(connection)
    executor.loader.replace_migrations = False
    executor.loader.build_graph()
    executor.migrate([("libraries", name)])
    return executor.loader.project_state([("libraries", name)]).apps


def fill(models: Any, state: str) -> None:
    """Create the triggers of an earlier version, and rows that they log."""
    triggers = upgrades.triggers(COMMITS[-1])
    run_script(triggers if state >= "0005" else triggers.replace("vectordb_", ""))
    library, document, chunk, embedding = (
        models.get_model("libraries", name) for name in ("Library", "Document", "Chunk", "Embedding")
    )
    books = library.objects.create(public_id="books", name="Books", dimension=3)
    whales = document.objects.create(library=books, public_id="whales", title="Moby-Dick")
    vectors = {"call": (1, 0, 0), "whale": (0.8, 0.6, 0), "alone": (0, 1, 0), "gone": (1, 0, 0), "changed": (1, 0, 0)}
    for name, vector in vectors.items():
        of = whales if name in ("call", "whale") else None
        row = chunk.objects.create(library=books, document=of, public_id=name, text=name)
        embedding.objects.create(chunk=row, generation=1, vector=_blob(*vector))
    chunk.objects.filter(public_id="gone").delete()
    embedding.objects.filter(chunk__public_id="changed").update(vector=_blob(0, 0, 1))


def _blob(*vector: float) -> bytes:
    return np.array(vector, "<f4").tobytes()


def answer(vector: list[float] | None = None) -> tuple[list[tuple[str, float]], int]:
    """Ids and scores of a search, and the revision."""
    found = query(library_id="books", spec=QuerySpec(vector=vector or [1.0, 0.0, 0.0]))
    scores = [(result["id"], round(result["score"], 6)) for result in found["results"]]
    return scores, found["meta"]["revision"]


def names_in_database() -> set[str]:
    """The names of tables and indexes, and on PostgreSQL those of sequences and constraints."""
    sql = {
        "sqlite": "SELECT name FROM sqlite_master WHERE type <> 'trigger' AND name NOT LIKE 'sqlite_%'",
        "postgresql": "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace"
        " UNION SELECT conname FROM pg_constraint WHERE connamespace = 'public'::regnamespace",
    }
    with connection.cursor() as cursor:
        cursor.execute(sql[connection.vendor])
        return {name for (name,) in cursor.fetchall()}


def schema() -> dict[str, Any]:
    """Columns and constraints of each table, without names that contain a hash."""
    found = {}
    with connection.cursor() as cursor:
        for table in sorted(connection.introspection.table_names(cursor)):
            if table.startswith("vectordb_"):
                columns = connection.introspection.get_table_description(cursor, table)
                constraints = connection.introspection.get_constraints(cursor, table).values()
                found[table] = (
                    sorted((column.name, column.type_code, column.null_ok) for column in columns),
                    sorted(repr(each | {"columns": _columns(each)}) for each in constraints),
                )
    return found


def unprefixed_names() -> set[str]:
    return {name for name in names_in_database() if not name.startswith(("vectordb_", "auth_", "axes_", "django_"))}


@cache
def schema_of_new_database() -> dict[str, Any]:
    """That of the present database, which is empty and is so again afterwards; of the first that is asked for, as all
    new ones are alike."""
    migrate()
    found = schema()
    assert unprefixed_names() == set()
    drop_tables(found)
    return found


def drop_tables(tables: Iterable[str]) -> None:
    """Drop the tables of libraries; those of Django's own apps stay."""
    with connection.cursor() as cursor:
        for table in tables:
            cursor.execute(f"DROP TABLE {table}" + (" CASCADE" if connection.vendor == "postgresql" else ""))
        cursor.execute("DELETE FROM django_migrations WHERE app IN ('libraries', 'access', 'transfer')")


def _columns(constraint: dict[str, Any]) -> list[str]:
    """Its columns in order; Django tells those of SQLite's primary keys in the order of the table."""
    return sorted(constraint["columns"]) if constraint["primary_key"] else constraint["columns"]


def check_that_writes_are_seen() -> None:
    """Every kind of write is in the next answer, so the triggers are there and log."""
    assert dialect_of(connection).missing_triggers(connection) == []
    before = answer()
    delete_chunks(library_id="books", ids=["alone"])
    run_script(
        "UPDATE vectordb_embedding SET vector = (SELECT vector FROM vectordb_embedding AS e"
        " JOIN vectordb_chunk AS c ON c.id = e.chunk_id WHERE c.public_id = 'call')"
        " WHERE chunk_id = (SELECT id FROM vectordb_chunk WHERE public_id = 'changed')"
    )
    ids, revision = answer()
    assert ids == [("call", 1.0), ("changed", 1.0), ("whale", 0.8)]
    assert revision > before[1]


@pytest.mark.parametrize("commit", COMMITS)
def test_a_database_of_an_earlier_commit_answers_as_before(database: None, commit: str) -> None:
    run_script(upgrades.dump(commit))
    migrate()
    assert answer() == (ANSWER, REVISION)
    check_that_writes_are_seen()
    chunk = {"id": "new", "embedding": [0.0, 0.0, 1.0]}
    upsert_chunks(library_id="books", write=ChunksWrite.model_validate({"chunks": [chunk]}))
    assert ("new", 1.0) in answer([0.0, 0.0, 1.0])[0]


@pytest.mark.parametrize("commit", COMMITS)
def test_a_backup_of_an_earlier_schema_counts_its_rows_and_takes_the_place_of_a_database_of_it(
    database: None, server: Server, settings: Any, tmp_path: Path, commit: str
) -> None:
    settings.DATA_DIR, store = server.folder, FolderStore(tmp_path / "backups")
    run_script(upgrades.dump(commit))
    made = make_backup(store=store, reason="migration")
    assert (made.libraries, made.chunks) == (2, 4)
    run_script("DELETE FROM " + ("chunk" if "chunk" in made.rows else "vectordb_chunk"))
    assert restore_backup(source=f"{store.folder}/{made.id}", force=True).backup == made
    migrate()
    assert answer() == (ANSWER, REVISION)


@pytest.mark.parametrize("state", STATES)
def test_a_database_of_every_earlier_schema_is_upgraded_to_this_version_and_the_next(
    database: None, settings: Any, state: str
) -> None:
    create_database(connection)
    of_new_database = schema_of_new_database()
    fill(migrate_to_state(state), state)
    migrate()
    assert schema() == of_new_database
    assert unprefixed_names() == set()
    ids, revision = answer()
    assert ids == ANSWER

    settings.MIGRATION_MODULES = NEXT_VERSION
    migrate()
    assert answer() == (ANSWER, revision)
    check_that_writes_are_seen()


def test_nobody_writes_between_the_steps_of_a_migration(
    database: None, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_script(upgrades.dump("c1b5e67"))
    migrate()
    refused = []

    def write() -> None:
        parameters = connection.get_connection_params()
        shell: Any
        if connection.vendor == "postgresql":
            refusal: type[Exception] = psycopg.errors.LockNotAvailable
            shell = psycopg.connect(**parameters | {"cursor_factory": None, "options": "-c lock_timeout=50ms"})
        else:
            refusal = sqlite3.OperationalError
            shell = sqlite3.connect(parameters["database"], timeout=0)
        with contextlib.closing(shell), pytest.raises(refusal) as error:
            shell.execute("DELETE FROM vectordb_chunk")
        refused.append(error)

    monkeypatch.setattr(upgrades, "interruptions", [write])
    settings.MIGRATION_MODULES = NEXT_VERSION
    migrate()
    assert len(refused) == 1
    assert answer() == (ANSWER, REVISION)


_KILLED = """
import os, signal, django
from django.conf import settings
from django.core.management import call_command
settings.MIGRATION_MODULES = {"libraries": "tests.libraries.upgrades.next_version"}
django.setup()
from tests.libraries import upgrades
upgrades.interruptions.append(lambda: os.kill(os.getpid(), signal.SIGKILL))
call_command("migrate", verbosity=0)
"""


@pytest.mark.parametrize("commit", COMMITS)
def test_after_a_migration_was_killed_in_the_middle_the_next_one_goes_on(
    database: None, server: Server, commit: str
) -> None:
    run_script(upgrades.dump(commit))
    before = names_in_database()
    with server.python(_KILLED) as process:
        assert process.wait(timeout=120) == -9
    assert names_in_database() == before
    migrate()
    assert answer() == (ANSWER, REVISION)


def test_two_processes_that_start_at_once_do_not_get_in_each_others_way(database: None, server: Server) -> None:
    run_script(upgrades.dump("663240c"))
    code = "import django; django.setup(); from django.core.management import call_command; call_command('migrate')"
    starting = [server.python(code) for _ in range(2)]
    applied = [process.communicate(timeout=120)[0].count("libraries.0005_table_prefix... OK") for process in starting]
    assert [process.returncode for process in starting] == [0, 0]
    assert sorted(applied) == [0, 1]
    assert answer() == (ANSWER, REVISION)
