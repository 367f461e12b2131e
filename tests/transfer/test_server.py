"""A server that is backed up while it is written to, killed, and restored to what it was."""

import contextlib
import shutil
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from django.db import connection

from tests.libraries import upgrades
from tests.server import Server, until

ROWS, DIMENSION = 1200, 8
BASE = np.random.default_rng(0).normal(size=(ROWS, DIMENSION)).astype(np.float32)
OTHER = np.random.default_rng(1).normal(size=(ROWS, DIMENSION)).astype(np.float32)


def write(client: httpx.Client, rows: dict[str, np.ndarray]) -> None:
    chunks = [{"id": name, "embedding": vector.tolist()} for name, vector in rows.items()]
    client.post("/libraries/a/chunks", json={"chunks": chunks}).raise_for_status()


def index(client: httpx.Client) -> None:
    """Have all rows in index files."""
    client.post("/libraries/a/reindex", json={}).raise_for_status()

    def is_built() -> bool:
        state = client.get("/libraries/a/stats").json()["index"]
        return bool(state["state"] == "ready" and state["rows_pending"] == 0 and state["rows_tail"] == 0)

    until(is_built, "all rows are in index files")


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
            assert f"backup of it as it was: {migration.parent}" in server.log.read_text()
    finally:
        if server.process is not None:
            server.stop()
        server.drop_database()
        shutil.rmtree(tmp_path / "backups", ignore_errors=True)


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
        for command in ("serve", "migrate", "versions"):
            refused = server.manage(command)
            assert refused.returncode == 1
            assert "by a newer version of the server" in refused.stderr
            assert "libraries.0099_later" in refused.stderr
            assert len(refused.stderr.splitlines()) == 1
        assert {path.name: path.read_bytes() for path in folder.glob("vectordb.sqlite3")} == before
    finally:
        server.drop_database()
