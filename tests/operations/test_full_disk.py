"""A full disk has a way out by the API: deletes go on, and give their room back. Commands say that it is full,
and leave what was there."""

import contextlib
import os
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import faiss
import httpx
import numpy as np
import pytest

from tests.libraries import upgrades
from tests.server import Server, migrated_database, serving, until
from tests.transfer.files import read_all

pytestmark = pytest.mark.sqlite


def insert(client: httpx.Client, library: str, name: str, document: str | None = None) -> httpx.Response:
    """Write 20 chunks of 10 kB."""
    chunks = [{"id": f"{name}-{i}", "text": "x" * 10_000, "embedding": [i, 1]} for i in range(20)]
    if document:
        return client.post(f"/libraries/{library}/documents", json={"id": document, "chunks": chunks})
    return client.post(f"/libraries/{library}/chunks", json={"chunks": chunks})


def fill(disk: Path, *, leave: int = 0) -> None:
    """Leave so much room."""
    ballast = disk / "ballast"
    with contextlib.suppress(OSError), ballast.open("ab", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    os.truncate(ballast, ballast.stat().st_size - leave)


def filled(folder: Path, rows: int) -> Server:
    """A server that does not run, whose library `a` has rows of 10 kB."""
    server = Server(folder, makes_database=True, VECTORDB_BACKUP_BEFORE_MIGRATE="off")
    assert server.manage("migrate", "--verbosity", "0").returncode == 0
    import_rows(server, rows)
    return server


def import_rows(server: Server, rows: int) -> None:
    file = server.folder.with_suffix(".jsonl")
    file.write_text("".join(f'{{"text": "{"x" * 10_000}", "embedding": [{i}, 1]}}\n' for i in range(rows)))
    imported = server.manage("import", str(file), "a", "--create")
    assert imported.returncode == 0, imported.stderr


def look(database: Path, what: str) -> int:
    """A number that a database has, which is sound."""
    with contextlib.closing(sqlite3.connect(database)) as opened:
        assert opened.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        return int(opened.execute(f"SELECT count(*) FROM {what}").fetchone()[0])


def assert_full(client: httpx.Client) -> None:
    refused = insert(client, "large", "late")
    assert (refused.status_code, refused.json()["code"]) == (503, "disk_full")
    assert "delete chunks" in refused.json()["detail"]


def test_deletes_make_room_on_a_full_disk(small_disk: Path) -> None:
    database, reserve, wal = (small_disk / f"vectordb.sqlite3{end}" for end in ("", "-reserve", "-wal"))
    with serving(small_disk) as server, server.client() as client:
        for library in ("small", "large"):
            client.post("/libraries", json={"id": library, "name": "A", "dimension": 2}).raise_for_status()
        for number in range(50):
            insert(client, "large", f"{number}").raise_for_status()
        insert(client, "small", "a", document="a").raise_for_status()
        insert(client, "small", "b").raise_for_status()
        assert reserve.stat().st_size == 2 << 20
        until(lambda: wal.stat().st_size == 0, "maintenance has moved the WAL into the database")
        assert database.stat().st_size > 10_000_000
        fill(small_disk)
        assert_full(client)

        def has_given_the_wal_back() -> bool:
            # Index files that were replaced are deleted meanwhile.
            fill(small_disk)
            return wal.stat().st_size == 0

        until(has_given_the_wal_back, "maintenance gives the room of the WAL back")
        fill(small_disk)

        # Half as many chunks as would have maintenance make the reserve again.
        for number in range(10):
            ids = [f"{number}-{i}" for i in range(10)]
            for _ in range(2):
                # The answer is kept on the full disk, too.
                key = {"Idempotency-Key": f"{number}"}
                deleted = client.post("/libraries/large/chunks/delete", json={"ids": ids}, headers=key)
                assert deleted.json() == {"deleted": 10}
            assert client.delete(f"/libraries/large/chunks/{number}-19").status_code == 204
            assert reserve.stat().st_size == 0
            assert_full(client)
        assert client.delete("/libraries/small/documents/a").status_code == 204
        assert client.post("/libraries/small/chunks/count", json={}).json() == {"count": 20}
        assert client.delete("/libraries/small").status_code == 204
        assert client.delete("/libraries/large").status_code == 204

        until(lambda: reserve.stat().st_size == 2 << 20, "the room is given back, and the reserve is made again")
        client.post("/libraries", json={"id": "new", "name": "New"}).raise_for_status()
        insert(client, "new", "a").raise_for_status()


def test_a_disk_that_writes_have_filled_has_room_for_deletes(small_disk: Path) -> None:
    with serving(small_disk) as server, server.client() as client:
        client.post("/libraries", json={"id": "large", "name": "A", "dimension": 2}).raise_for_status()
        for number in range(320):
            if insert(client, "large", f"{number}").is_error:
                break
        assert_full(client)
        assert client.delete("/libraries/large").status_code == 204
        new = {"id": "new", "name": "New"}
        until(lambda: client.post("/libraries", json=new).is_success, "the room is given back")


def test_an_import_that_fills_the_disk_says_so_and_gives_its_own_room_back(small_disk: Path) -> None:
    rows = b"".join(b'{"id": "%d", "text": "%b", "embedding": [1, 2]}\n' % (i, b"x" * 10_000) for i in range(2400))
    with serving(small_disk, VECTORDB_MAX_BODY_BYTES=1 << 20) as server, server.client() as client:
        client.post("/libraries", json={"id": "a", "name": "A"}).raise_for_status()
        path = "/libraries/a/import?format=jsonl"
        job = client.post(path, content=rows).raise_for_status().json()
        files = [small_disk / "jobs" / job["id"] / "file"]

        def ended() -> bool:
            nonlocal job
            job = client.get(f"/jobs/{job['id']}").json()
            return job["state"] != "running"

        # What else the disk has is as much as the file: there is room for some of the rows.
        (small_disk / "ballast").write_bytes(bytes(20 << 20))
        until(ended, "the job has ended")
        assert job["state"] == "failed"
        assert "disk" in job["error"]
        # Whole batches are there, from the first row on.
        count = client.post("/libraries/a/chunks/count", json={}).json()["count"]
        assert 0 < count == job["result"]["created"] < 2400
        assert client.get(f"/libraries/a/chunks/{count - 1}").status_code == 200
        until(lambda: not any(file.exists() for file in files), "its file is deleted")
        refused = client.post(path, content=iter([rows, rows]))
        assert (refused.status_code, refused.json()["code"]) == (503, "disk_full")
        until(lambda: not list((small_disk / "uploads").iterdir()), "nothing of the body is kept")
        assert client.get("/libraries/a").status_code == 200


def test_a_restore_that_the_disk_has_no_room_for_leaves_the_database(small_disk: Path, tmp_path: Path) -> None:
    server, database = filled(small_disk, 1000), small_disk / "vectordb.sqlite3"
    assert server.manage("backup", str(tmp_path / "backups")).returncode == 0
    [backup] = (tmp_path / "backups").glob("backup-*")
    import_rows(server, 100)
    for leave in (0, 4 << 20):
        fill(small_disk, leave=leave)
        refused = server.manage("restore", str(backup), "--force")
        told = refused.stderr.strip().splitlines()
        assert (refused.returncode, told) == (
            1,
            [f"CommandError: {small_disk} cannot be used: No space left on device"],
        )
        (small_disk / "ballast").unlink()
        assert list(small_disk.glob(".restore-*")) == []
        assert look(database, "vectordb_chunk") == 1100
    restored = server.manage("restore", str(backup), "--force")
    assert restored.returncode == 0, restored.stderr
    assert look(database, "vectordb_chunk") == 1000


def test_an_export_to_a_full_disk_leaves_no_file(small_disk: Path, tmp_path: Path) -> None:
    server = filled(tmp_path / "elsewhere", 500)
    for format in ("jsonl", "zip", "parquet"):
        file = small_disk / f"a.{format}"
        for leave in (0, 2 << 20):
            fill(small_disk, leave=leave)
            refused = server.manage("export", "a", str(file))
            told = refused.stderr.strip().splitlines()
            assert (refused.returncode, told) == (1, [f"CommandError: {file} cannot be used: No space left on device"])
            assert [path.name for path in small_disk.iterdir()] == ["ballast"]


def test_a_migration_that_the_disk_has_no_room_for_leaves_the_database(small_disk: Path) -> None:
    server = Server(small_disk, makes_database=True, VECTORDB_BACKUP_BEFORE_MIGRATE="off")
    database = small_disk / "vectordb.sqlite3"
    with contextlib.closing(sqlite3.connect(database)) as opened:
        opened.executescript(upgrades.dump("0e8051a"))
    before, refused = look(database, "django_migrations"), 0
    for leave in range(0, 1 << 20, 1 << 17):
        fill(small_disk, leave=leave)
        migrated = server.manage("migrate", "--verbosity", "0")
        (small_disk / "ballast").unlink()
        if not migrated.returncode:
            break
        refused += 1
        [told] = migrated.stderr.splitlines()
        assert told.startswith("CommandError: Nothing was migrated. The database cannot be used: ")
        assert told.endswith("Make room on its disk, and try again.")
        assert look(database, "django_migrations") == before
    assert refused > 1
    assert look(database, "django_migrations") > before
    assert look(database, "vectordb_chunk") == 4


def test_a_command_that_finds_no_room_for_the_wal_says_that_the_disk_is_full(small_disk: Path, tmp_path: Path) -> None:
    server = filled(small_disk, 1)
    fill(small_disk)
    refused = server.manage("export", "a", str(tmp_path / "a.jsonl"))
    [told] = refused.stderr.splitlines()
    assert told.endswith("Make room on its disk, and try again.")


def test_a_server_whose_disk_is_full_gives_exports_and_says_that_there_is_no_room_for_a_backup(
    small_disk: Path,
) -> None:
    backups = small_disk / "backups"
    shutil.copy(migrated_database(), small_disk)
    import_rows(Server(small_disk), 500)
    with serving(small_disk) as server, server.client() as client:

        def back_up() -> dict[str, Any]:
            job = client.post("/backups").raise_for_status().json()

            def ended() -> bool:
                nonlocal job
                job = client.get(f"/jobs/{job['id']}").json()
                return bool(job["state"] != "running")

            until(ended, "the job has ended")
            return dict(job)

        fill(small_disk, leave=16 << 20)
        job = back_up()
        assert job["state"] == "failed"
        assert "it needs" in job["error"]
        fill(small_disk)
        refused = client.post("/backups")
        assert (refused.status_code, refused.json()["code"]) == (503, "disk_full")
        told = server.manage("backup").stderr.splitlines()[-1]
        assert told.startswith("CommandError: ")
        assert "it needs" in told
        assert [*backups.iterdir()] == []
        for format in ("jsonl", "zip", "parquet"):
            exported = client.get(f"/libraries/a/export?format={format}").raise_for_status().content
            assert load_rows(format, exported) == 500
        (small_disk / "ballast").unlink()
        until(lambda: insert(client, "a", "late").is_success, "there is room again")
        assert back_up()["state"] == "done"


def load_rows(format: str, data: bytes) -> int:
    """The number of chunks of a whole export."""
    return sum(len(batch.chunks) for batch in read_all(format, data))


def source(act: str, folder: Path, rows: int) -> list[str]:
    """The arguments of a command that reads rows, or files, of 10 kB."""
    match act:
        case "import":
            file = folder / "a.jsonl"
            file.write_text("".join(f'{{"text": "{i} {"x" * 10_000}", "embedding": [{i}, 1]}}\n' for i in range(rows)))
            return ["import", str(file), "a", "--create"]
        case "folder":
            texts = folder / "texts"
            texts.mkdir()
            for i in range(rows):
                (texts / f"{i}.txt").write_text(f"{i} " + "x" * 10_000)
            return ["import", str(texts), "a", "--create"]
        case _:
            index = faiss.IndexFlatIP(2500)
            index.add(np.ones((rows, 2500), np.float32))
            faiss.write_index(index, str(folder / "a.index"))
            (folder / "rows.jsonl").write_text("".join(f'{{"text": "{i}"}}\n' for i in range(rows)))
            return ["migrate_from", "faiss", str(folder / "a.index"), f"--rows={folder / 'rows.jsonl'}"]


@pytest.mark.parametrize(("act", "rows", "leave"), [("import", 1500, 12), ("folder", 80, 6), ("migrate", 1500, 12)])
def test_what_a_full_disk_has_cut_off_goes_on_once_there_is_room(
    small_disk: Path, tmp_path: Path, act: str, rows: int, leave: int
) -> None:
    embedding = {"VECTORDB_EMBEDDING_PROVIDER": "hashing", "VECTORDB_EMBEDDING_MODEL": "hashing-64"}
    server, database = Server(small_disk, **embedding), small_disk / "vectordb.sqlite3"
    shutil.copy(migrated_database(), small_disk)
    command = source(act, tmp_path, rows)
    fill(small_disk, leave=leave << 20)
    refused = server.manage(*command)
    told = refused.stderr.splitlines()[-1]
    assert (refused.returncode, "CommandError: The database cannot be used" in told, "full" in told) == (1, True, True)
    (small_disk / "ballast").unlink()
    assert look(database, "vectordb_job WHERE state = 'running' AND done > 0") == 1
    assert look(database, "vectordb_chunk") > 0
    done = server.manage(*command)
    assert (done.returncode, "goes on behind" in done.stdout) == (0, True), (done.stdout, done.stderr)
    of_row = "document_id" if act == "folder" else "text"
    assert look(database, f"(SELECT DISTINCT {of_row} FROM vectordb_chunk)") == rows
    if act != "folder":
        assert look(database, "vectordb_chunk") == rows
