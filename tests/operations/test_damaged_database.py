"""A database file that the disk has damaged: told as that, not ready, and written to no more."""

import contextlib
import re
import shutil
import sqlite3
from pathlib import Path

import pytest

from tests.server import Server, serving, until

pytestmark = pytest.mark.sqlite


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with a library of some chunks."""
    folder = tmp_path_factory.mktemp("original") / "data"
    with serving(folder) as server, server.client() as client:
        client.post("/libraries", json={"id": "a", "name": "A", "dimension": 2}).raise_for_status()
        chunks = [{"id": f"{i}", "text": "x" * 500, "embedding": [i, 1]} for i in range(500)]
        client.post("/libraries/a/chunks", json={"chunks": chunks}).raise_for_status()
    with contextlib.closing(sqlite3.connect(folder / "vectordb.sqlite3")) as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return folder


@pytest.fixture
def folder(original: Path, folder: Path) -> Path:
    """A copy of it."""
    shutil.copytree(original, folder)
    return folder


def damage(file: Path, table: str) -> None:
    """Overwrite the root page of a table."""
    with contextlib.closing(sqlite3.connect(file)) as database:
        (root,) = database.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", [table]).fetchone()
        (size,) = database.execute("PRAGMA page_size").fetchone()
    with file.open("r+b") as pages:
        pages.seek((root - 1) * size)
        pages.write(b"\xa5" * size)


def assert_writes_are_refused(server: Server) -> None:
    """By every worker, also where the damage is elsewhere."""
    with server.clients_of_each_worker(1) as clients:
        for number, client in enumerate(clients):
            refused = client.post("/libraries", json={"id": f"new-{number}", "name": "New"})
            assert (refused.status_code, refused.json()["code"]) == (503, "database_damaged")
            assert int(refused.headers["Retry-After"]) > 0
            assert "vectordb.sqlite3" in refused.json()["detail"]
            assert "backup" in refused.json()["detail"]
            ready = client.get(f"{server.url}/ready")
            assert ready.status_code == 503
            assert "damaged" in ready.json()["checks"]["database"]


def test_damage_is_told_and_stops_all_writes_until_a_backup_is_restored(folder: Path) -> None:
    file = folder / "vectordb.sqlite3"
    assert Server(folder).manage("backup").returncode == 0
    [backup] = (folder / "backups").iterdir()
    damage(file, "vectordb_chunk")
    # It is ready until somebody meets the damage, which maintenance may do at once.
    with serving(folder, path="/health") as server:
        with server.client() as client:
            met = client.get("/libraries/a/chunks")
            assert (met.status_code, met.json()["code"]) == (503, "database_damaged")
            assert [one["id"] for one in client.get("/libraries").raise_for_status().json()["items"]] == ["a"]
        assert_writes_are_refused(server)
        assert str(file) in server.log.read_text()
        assert "Traceback" not in server.log.read_text()
        checked = server.manage("check_database")
        assert checked.returncode == 1
        assert "restore a backup" in checked.stderr
        server.stop()
        again = server.manage("serve")
        assert again.returncode == 1
        assert "restore a backup" in again.stderr
        restored = server.manage("restore", "--force", str(backup))
        assert restored.returncode == 0, restored.stderr
        server.start()
        with server.client() as client:
            client.post("/libraries", json={"id": "new", "name": "New"}).raise_for_status()
            assert client.post("/libraries/a/chunks/count", json={}).json() == {"count": 500}
        assert server.manage("check_database").stdout == "The database is sound.\n"


def test_a_damaged_database_is_kept_when_a_backup_takes_its_place(folder: Path) -> None:
    server, file = Server(folder), folder / "vectordb.sqlite3"
    assert server.manage("backup").returncode == 0
    [backup] = (folder / "backups").iterdir()
    file.write_bytes(b"no header" + file.read_bytes()[9:])
    damaged = file.read_bytes()
    restored = server.manage("restore", "--force", str(backup))
    kept = folder / "vectordb.sqlite3.before-restore"
    assert f"What was there before is {kept}" in restored.stdout, restored.stderr
    assert kept.read_bytes() == damaged
    assert server.manage("check_database").stdout == "The database is sound.\n"
    assert "What was there before" in server.manage("restore", "--force", str(backup)).stdout
    assert [path.name for path in folder.glob("*.before-restore*")] == [kept.name]


def test_damage_that_only_a_backup_meets_stops_all_writes(folder: Path) -> None:
    with serving(folder) as server:
        damage(folder / "vectordb.sqlite3", "auth_user")
        for _ in range(2):
            refused = server.manage("backup")
            assert refused.returncode == 1
            said = rf"CommandError: .*{folder}/\S+: it is damaged, so no backup is made(: [^.]*)?\. Restore a .*"
            assert re.fullmatch(said, refused.stderr.splitlines()[-1]), refused.stderr
        assert list((folder / "backups").iterdir()) == []
        # What can be read is still had out, without a row among the jobs.
        exported = server.manage("export", "a", str(folder / "a.jsonl"))
        assert (exported.returncode, len((folder / "a.jsonl").read_text().splitlines())) == (0, 502), exported.stderr
        assert "export runs without a job: The database vectordb.sqlite3 is damaged" in exported.stderr
        assert_writes_are_refused(server)


def test_damage_that_the_job_of_a_backup_meets_stops_all_writes(folder: Path) -> None:
    with serving(folder) as server:
        damage(folder / "vectordb.sqlite3", "auth_user")
        with server.client() as client:
            path = client.post("/backups").raise_for_status().headers["Location"].removeprefix("/api/v1")
            until(lambda: client.get(path).json()["state"] != "running", "the job has ended")
            job = client.get(path).json()
            assert (job["state"], "it is damaged, so no backup is made" in job["error"]) == ("failed", True), job
        assert list((folder / "backups").iterdir()) == []
        assert_writes_are_refused(server)
