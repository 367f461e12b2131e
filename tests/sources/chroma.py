"""Chroma: a folder, a server, and a migration that is killed."""

import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from django.core.management import CommandError

from apps.libraries.models import Library
from apps.transfer.sources.chunks import chunk_id_of
from tests.server import Server, until
from tests.sources.conftest import assert_same_answers, random_vectors, stored

chromadb: Any = import_module("chromadb")
pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "snapshot"])

Migrate = Callable[..., str]
ROWS, DIMENSION = 4500, 8
LONG = "x" * 300


def metadata_of(row: int) -> dict[str, Any] | None:
    return {"n": row, "x": row / 3, "is_odd": row % 2 == 1, "tags": ["a", "b"]} if row != 2 else None


def connect(folder: Path) -> Any:
    """A client, with the settings of the command: Chroma shares what is open in a process."""
    settings = import_module("chromadb.config").Settings(anonymized_telemetry=False)
    return chromadb.PersistentClient(str(folder), settings=settings)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the collections `cosine`, `squares`, `products` and `empty`."""
    path: Path = tmp_path_factory.mktemp("chroma")
    client = connect(path)
    for name, space in {"cosine": "cosine", "squares": "l2", "products": "ip"}.items():
        made = client.create_collection(
            name, metadata={"about": "tests"}, configuration={"hnsw": {"space": space}}, embedding_function=None
        )
        rows = ROWS if name == "cosine" else 50
        ids = ["docs/a b#1", " spaced", LONG, *(f"row-{i}" for i in range(3, rows))]
        made.add(
            ids=ids,
            embeddings=random_vectors(rows, DIMENSION),
            documents=[f"Text {i}: Ünïcode" if i != 1 else None for i in range(rows)],
            metadatas=[metadata_of(i) for i in range(rows)],
        )
    client.create_collection("empty", embedding_function=None)
    return path


def test_a_folder_keeps_ids_texts_metadata_vectors_and_metrics(folder: Path, migrate: Migrate) -> None:
    said = migrate("chroma", folder, collection=["cosine"], dry_run=True)
    assert said == f"cosine: {ROWS} rows, dimension 8, compared by cosine, into the new library cosine\n"
    assert not Library.objects.exists()
    said = migrate("chroma", folder, sample=500)
    assert f"cosine: {ROWS} created, 0 updated, 0 left as they were, 0 refused" in said
    assert_same_answers(said, 500, 500)
    assert f"; {ROWS} ids, of which 0 are not there" in said
    metrics = dict(Library.objects.values_list("public_id", "metric"))
    assert metrics == {"cosine": "cosine", "squares": "euclidean", "products": "dot", "empty": "euclidean"}
    assert Library.objects.get(public_id="cosine").metadata == {"about": "tests"}
    # Chroma rounds vectors that it compares by cosine.
    vectors = [pytest.approx(one, rel=1e-6) for one in random_vectors(ROWS, DIMENSION).tolist()]
    spaced, long = chunk_id_of(" spaced"), chunk_id_of(LONG)
    assert stored("cosine", "docs/a b#1", spaced, long, f"row-{ROWS - 1}") == {
        "docs/a b#1": ("Text 0: Ünïcode", metadata_of(0), vectors[0]),
        spaced: ("", {**(metadata_of(1) or {}), "original_id": " spaced"}, vectors[1]),
        long: ("Text 2: Ünïcode", {"original_id": LONG}, vectors[2]),
        f"row-{ROWS - 1}": (f"Text {ROWS - 1}: Ünïcode", metadata_of(ROWS - 1), vectors[-1]),
    }
    # And some numbers of the metadata. All is what it gives back.
    given = connect(folder).get_collection("cosine").get(include=["embeddings", "documents", "metadatas"])
    rows = zip(given["ids"], given["documents"], given["metadatas"], given["embeddings"], strict=True)
    expected = {
        chunk_id_of(key): (text or "", {**(metadata or {}), **original(key)}, np.float32(vector).tolist())
        for key, text, metadata, vector in rows
    }
    assert len(expected) == ROWS
    assert stored("cosine", *expected) == expected


def original(key: str) -> dict[str, str]:
    """What the metadata has beside Chroma's."""
    return {} if chunk_id_of(key) == key else {"original_id": key}


@pytest.fixture
def address(folder: Path) -> Iterator[str]:
    """The URL of a Chroma server."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [Path(sys.executable).parent / "chroma", "run", "--path", folder, "--port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:

        def answers() -> bool:
            with socket.socket() as client:
                return client.connect_ex(("127.0.0.1", port)) == 0

        until(answers, "Chroma's server answers")
        yield f"http://127.0.0.1:{port}"
        process.terminate()


def test_a_server_is_read_as_a_folder_is(address: str, migrate: Migrate) -> None:
    said = migrate("chroma", address, collection=["squares"], library="of-server")
    assert "50 created, 0 updated, 0 left as they were, 0 refused" in said
    assert_same_answers(said, 50, 50)


def test_what_cannot_be_read_is_told(tmp_path: Path, folder: Path, migrate: Migrate) -> None:
    with pytest.raises(CommandError, match=r"it has no file chroma\.sqlite3"):
        migrate("chroma", tmp_path)
    assert not list(tmp_path.iterdir())
    with pytest.raises(CommandError, match=r"There is no collection 'none'; there are: .*cosine"):
        migrate("chroma", folder, collection=["none"])
    with pytest.raises(CommandError, match="cannot be read"):
        migrate("chroma", "http://127.0.0.1:9")


# Migrates in a process that is killed in the transaction of the batch that passes {rows} rows.
_DIE = """
import os, signal
import django
django.setup()
from django.core.management import call_command
from django.db import connection
with connection.cursor() as cursor:
    connection.connection.create_function("die", 0, lambda: os.kill(os.getpid(), signal.SIGKILL))
    cursor.execute("CREATE TEMP TRIGGER killed AFTER UPDATE ON main.vectordb_job WHEN NEW.done > {rows} "
                   "BEGIN SELECT die(); END")
call_command("migrate_from", "chroma", {folder!r}, collection=["cosine"])
"""


def test_a_migration_that_is_killed_goes_on_where_it_was(folder: Path, tmp_path: Path) -> None:
    server = Server(tmp_path / "data", makes_database=True)
    assert server.manage("migrate", "--verbosity", "0").returncode == 0
    for rows in (0, 2000):
        with server.python(_DIE.format(rows=rows, folder=str(folder))) as process:
            process.communicate()
        assert process.returncode == -signal.SIGKILL
    done = server.manage("migrate_from", "chroma", str(folder), "--collection", "cosine")
    assert "goes on behind 2000 rows" in done.stdout, done
    assert f"{ROWS} created, 0 updated, 0 left as they were, 0 refused" in done.stdout
    assert_same_answers(done.stdout, 100, 100)
