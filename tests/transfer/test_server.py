"""A server that is backed up while it is written to, killed, and restored to what it was."""

import contextlib
import re
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from django.db import connection

from apps.operations.management.own import own_commands
from tests.libraries import upgrades
from tests.server import ROOT, Server, until

ROWS, DIMENSION = 1200, 8
BASE = np.random.default_rng(0).normal(size=(ROWS, DIMENSION)).astype(np.float32)
OTHER = np.random.default_rng(1).normal(size=(ROWS, DIMENSION)).astype(np.float32)


def write(client: httpx.Client, rows: dict[str, np.ndarray]) -> None:
    chunks = [{"id": name, "embedding": vector.tolist()} for name, vector in rows.items()]
    client.post("/libraries/a/chunks", json={"chunks": chunks}).raise_for_status()


def index(client: httpx.Client) -> None:
    """Have all rows in index files."""
    client.post("/libraries/a/reindex", json={}).raise_for_status()

    until(lambda: is_built(client, "/libraries/a/stats"), "all rows are in index files")


def is_built(client: httpx.Client, path: str) -> bool:
    """Whether statistics say that all rows are in index files."""
    state = client.get(path).json()["index"]
    return bool(state["state"] == "ready" and state["rows_pending"] == 0 and state["rows_tail"] == 0)


def ended(client: httpx.Client, job: httpx.Response) -> dict[str, Any]:
    """A job of an answer, once it has ended."""
    assert job.status_code == 202, job.text
    path = job.headers["Location"].removeprefix("/api/v1")
    found: dict[str, Any] = {}

    def has_ended() -> bool:
        found.update(client.get(path).raise_for_status().json())
        return found["state"] != "running"

    until(has_ended, "the job has ended")
    return found


@contextlib.contextmanager
def writing(server: Server) -> Iterator[list[str]]:
    """Write chunks w0, w1, ... one after the other while the block runs; gives those that were acknowledged."""
    written: list[str] = []
    failures: list[Exception] = []
    stop = threading.Event()

    def run() -> None:
        with server.client() as client:
            while not stop.is_set():
                name = f"w{len(written)}"
                try:
                    write(client, {name: OTHER[len(written) % ROWS]})
                except Exception as error:
                    failures.append(error)
                    return
                written.append(name)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield written
    finally:
        stop.set()
        thread.join()
    assert failures == []


def assert_answers(client: httpx.Client, rows: dict[str, np.ndarray]) -> None:
    """Compare the nearest rows with those of a plain product."""
    names, vectors = list(rows), np.array(list(rows.values()), np.float64)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    for query in OTHER[:20].astype(np.float64):
        found = client.post("/libraries/a/query", json={"vector": query.tolist(), "k": 5}).raise_for_status().json()
        nearest = [names[row] for row in np.argsort(-(vectors @ query), kind="stable")[:5]]
        assert [result["id"] for result in found["results"]] == nearest


def test_a_restored_server_answers_from_the_state_of_the_backup(folder: Path, tmp_path: Path) -> None:
    server = Server(folder, makes_database=True, VECTORDB_BACKUP_URL=tmp_path / "backups")
    if connection.vendor == "sqlite":
        # An older version made it.
        folder.mkdir()
        with contextlib.closing(sqlite3.connect(folder / "vectordb.sqlite3")) as database:
            database.executescript(upgrades.dump("0e8051a"))
    base = {f"{row}": vector for row, vector in enumerate(BASE)}
    try:
        with server.start().client() as client:
            client.post("/libraries", json={"id": "a", "name": "A", "dimension": DIMENSION}).raise_for_status()
            write(client, base)
            index(client)
            with writing(server) as written:
                until(lambda: len(written) > 3, "some are written")
                job = ended(client, client.post("/backups", json={"test_restore": True}))
                until(lambda: len(written) > 10, "others are written")
            assert job["state"] == "done", job
            [backup] = client.get("/backups").raise_for_status().json()["items"]
            assert backup["id"] == job["result"]["backup"]
            # From here on the history is one that the restored server does not know.
            write(client, {name: OTHER[row] for row, name in enumerate(base)})
            index(client)
            refused = server.manage("restore", backup["id"], "--force")
            assert "A server or another restore uses the data folder" in refused.stderr
        server.kill()
        refused = server.manage("restore", backup["id"])
        assert (refused.returncode, "is not empty. With --force" in refused.stderr) == (1, True)
        restored = server.manage("restore", backup["id"], "--force")
        assert restored.returncode == 0, restored.stderr
        with server.start().client() as client:
            ids = {name for name in written if client.get(f"/libraries/a/chunks/{name}").status_code == 200}
            assert ids == set(written[: len(ids)])
            assert 3 < len(ids) < len(written)
            rows = base | {name: OTHER[row] for row, name in enumerate(written[: len(ids)])}
            assert_answers(client, rows)
            # Of numbers that the other history has, too.
            rows |= {name: OTHER[-row] for row, name in enumerate(written, 1)}
            write(client, {name: rows[name] for name in written})
            assert_answers(client, rows)
            [before] = client.get("/jobs", params={"kind": "backup"}).raise_for_status().json()["items"]
            assert (before["id"], before["state"]) == (job["id"], "failed")
            begun = client.post("/backups")
        server.kill()
        with server.start().client() as client:
            assert ended(client, begun)["state"] == "done"
            assert len(client.get("/backups").json()["items"]) == 2
        if connection.vendor == "sqlite":
            [migration] = (folder / "backups").glob("backup-*/manifest.json")
            assert '"reason": "migration"' in migration.read_text()
            assert f"made before it is migrated: {migration.parent}" in server.log.read_text()
    finally:
        if server.process is not None:
            server.stop()
        server.drop_database()
        shutil.rmtree(tmp_path / "backups", ignore_errors=True)


@pytest.mark.sqlite
@pytest.mark.parametrize("commit", ["c1b5e67", "7b5bc53"])
def test_a_data_folder_of_an_earlier_version_answers_as_before(folder: Path, commit: str) -> None:
    answers = upgrades.unpack_folder(commit, folder)
    libraries = {answer["library"] for answer in answers}

    def find(client: httpx.Client, answer: dict[str, Any]) -> list[list[Any]]:
        found = client.post(f"/libraries/{answer['library']}/query", json=answer["query"]).raise_for_status().json()
        return [[result["id"], round(result["score"], 4)] for result in found["results"]]

    server = Server(folder)
    try:
        with server.start().client() as client:
            assert [find(client, answer) for answer in answers] == [answer["results"] for answer in answers]
            for library in libraries:
                client.post(f"/libraries/{library}/reindex", json={}).raise_for_status()
            for library in libraries:
                until(lambda path=f"/libraries/{library}/stats": is_built(client, path), "all rows are in index files")
            assert [find(client, answer) for answer in answers] == [answer["results"] for answer in answers]
        server.stop()
        verified = server.manage("verify_index")
        assert (verified.returncode, verified.stdout.count("equal to the database")) == (0, 3), verified.stdout
        # The version's own, or the one of this version before it migrated.
        backup = max((folder / "backups").glob("backup-*"))
        restored = server.manage("restore", str(backup), "--force")
        assert (restored.returncode, re.search(r": 3 libraries, [1-9]\d* chunks", restored.stdout) is not None) == (
            0,
            True,
        )
        with server.start().client() as client:
            assert [find(client, answer) for answer in answers] == [answer["results"] for answer in answers]
    finally:
        if server.process is not None:
            server.stop()


@pytest.mark.sqlite
def test_the_command_migrate_makes_a_backup_first_as_serve_does(folder: Path) -> None:
    server = Server(folder)
    new = server.manage("migrate")
    assert (new.returncode, "backup" in new.stdout, (folder / "backups").exists()) == (0, False, False)
    shutil.rmtree(folder)
    upgrades.unpack_folder("c1b5e67", folder)
    assert server.manage("migrate", "--plan").returncode == 0
    assert not (folder / "backups").exists()
    said = r"CommandError: The database is of an older version of the server: it lacks .* Run `manage.py migrate`, or"
    for command in (["backup"], ["export", "a", "-"]):
        refused = server.manage(*command)
        assert (refused.returncode, re.match(said, refused.stderr) is not None) == (1, True), refused.stderr
    migrated = server.manage("migrate")
    assert migrated.returncode == 0, migrated.stderr
    [backup] = (folder / "backups").iterdir()
    said = f"This is a backup of the database, made before it is migrated: {backup}\n"
    assert migrated.stdout.startswith(said)
    assert '"reason": "migration"' in (backup / "manifest.json").read_text()
    assert server.manage("migrate").returncode == 0
    assert [*(folder / "backups").iterdir()] == [backup]


def test_a_database_of_a_newer_version_is_not_touched(folder: Path) -> None:
    server = Server(folder, makes_database=True)
    try:
        assert server.manage("migrate", "--verbosity", "0").returncode == 0
        add = "from django.db import connection as c; import django; django.setup(); c.cursor().execute("
        add += (
            "\"INSERT INTO django_migrations (app, name, applied) VALUES ('libraries', '0099_later', '2030-01-01')\")"
        )
        with server.python(add) as process:
            process.communicate()
        assert process.returncode == 0
        before = {path.name: path.read_bytes() for path in folder.glob("vectordb.sqlite3")}
        sentence = r"The database was migrated by a newer version of the server: .*libraries\.0099_later.*\n"
        for command in ("serve", "migrate", "versions", "maintain", "create_key a --scope read", "createsuperuser"):
            refused = server.manage(*command.split())
            assert refused.returncode == 1
            assert re.fullmatch(f"CommandError: {sentence}", refused.stderr), (command, refused.stderr)
        gunicorn = [sys.executable, "-m", "gunicorn", "--bind", f"127.0.0.1:{server.port}", "--no-control-socket"]
        refused = subprocess.run(
            [*gunicorn, "vectordb.wsgi"], env=server.environ, cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert refused.returncode != 0
        assert re.search(f"^{sentence}", refused.stderr, re.MULTILINE), refused.stderr
        assert {path.name: path.read_bytes() for path in folder.glob("vectordb.sqlite3")} == before
        # The way back, and what only looks.
        assert server.manage("check_database").returncode == 0
        assert "There is no " in server.manage("restore", f"{folder}/backup-20260101T000000000", "--force").stderr
    finally:
        server.drop_database()


@pytest.mark.any_database
def test_a_command_uses_no_database_of_a_newer_version_unless_it_looks_or_replaces_it() -> None:
    free = {name for name, command in own_commands().items() if not command.requires_migrations_checks}
    # The first two refuse by themselves.
    assert free == {"serve", "migrate", "versions", "check_database", "restore", "completion"}
