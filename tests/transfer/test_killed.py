"""Whoever makes or restores a backup, exports, imports or migrates may be killed at any step."""

import contextlib
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest

from apps.transfer.backups.manifest import UnknownBackup
from apps.transfer.backups.stores import FolderStore, open_store
from tests.server import ROOT, Server, migrated_database
from tests.transfer.files import file_without_ids

pytestmark = pytest.mark.sqlite


@pytest.fixture
def server(folder: Path) -> Server:
    """A server that does not run, with an empty database."""
    server = Server(folder)
    folder.mkdir(mode=0o700)
    shutil.copy(migrated_database(), folder)
    return server


def steps(server: Server, act: str, argument: str) -> Iterator[int]:
    """Do an act, killed at each of its steps; yields after each time the number of the step."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.transfer.killed", act, argument],
        env=server.environ | {"DJANGO_SETTINGS_MODULE": "vectordb.settings"},
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for line in process.stdout:
            what, number = line.split()
            if what == "ended":
                assert number == "0"
                break
            yield int(number)
            process.stdin.write("\n")
            process.stdin.flush()


def names(database: Path, scratch: Path) -> set[str]:
    """What `write` has written into a database, as the next one to open it sees it; it is sound, and left alone."""
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    for suffix in ("", "-wal"):
        if Path(f"{database}{suffix}").exists():
            shutil.copy(f"{database}{suffix}", scratch / f"database{suffix}")
    with contextlib.closing(sqlite3.connect(scratch / "database")) as opened:
        assert opened.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        return {name for (name,) in opened.execute("SELECT action FROM vectordb_audit_entry")} - {"create_job"}


_INSERT = """
INSERT INTO vectordb_audit_entry (at, key_id, name, action, library, target, request_id)
VALUES ('2026-01-01', '', '', ?, '', '', '')"""


def write(database: Path, *names: str) -> None:
    """Let the database itself have these names alone."""
    with contextlib.closing(sqlite3.connect(database)) as opened, opened:
        opened.execute("DELETE FROM vectordb_audit_entry")
        opened.executemany(_INSERT, [[name] for name in names])


def write_to_wal(database: Path, name: str) -> None:
    """Write a name as a process does that dies: it is in the WAL alone."""
    code = "import os, sqlite3, sys; database = sqlite3.connect(sys.argv[1]); database.execute(*eval(sys.argv[2])); "
    code += "database.commit(); os._exit(0)"
    subprocess.run([sys.executable, "-c", code, database, repr((_INSERT, [name]))], check=True)


def test_what_root_makes_in_the_folder_of_another_user_is_that_users(server: Server, tmp_path: Path) -> None:
    user = os.geteuid() or 65534
    os.chown(server.folder, user, -1)
    for path in server.folder.iterdir():
        os.chown(path, user, -1)
    assert server.manage("backup").returncode == 0
    [backup] = (server.folder / "backups").iterdir()
    restored = server.manage("restore", str(backup), "--force")
    assert restored.returncode == 0, restored.stderr
    owners = {str(path.relative_to(server.folder)): path.stat().st_uid for path in server.folder.rglob("*")}
    assert {"serving.lock", "folder_id", "vectordb.sqlite3", "vectordb.sqlite3.before-restore"} <= set(owners)
    assert {path: owner for path, owner in owners.items() if owner != user} == {}


@pytest.mark.parametrize("scheme", ["", "local://"])
def test_a_killed_backup_is_none_and_the_next_one_sweeps_it_up(server: Server, tmp_path: Path, scheme: str) -> None:
    folder = tmp_path / "backups"
    folder.mkdir()
    # Of another program.
    (folder / "backup-20260101T000000000").mkdir()
    store = open_store(f"{scheme}{folder}")
    partial: set[str] = set()
    killed = []
    for step in steps(server, "backup", store.shown):
        killed.append((step, store.ids()))
        left = {one.name for one in folder.glob("backup-*")} - {"backup-20260101T000000000", *store.ids()}
        for one in left - partial:
            with pytest.raises(UnknownBackup, match="is no backup: it has no manifest"):
                store.read_manifest(one)
        partial |= left
    assert len(killed) > 8, killed
    # Uploads alone are seen before they are whole.
    assert bool(partial) == bool(scheme)
    made = store.ids()
    assert made
    # Those after whose manifest the process was killed, as it tidied up, are whole and stay.
    assert [step for step, shown in killed if not set(shown) <= set(made)] == []
    assert killed[len(killed) // 3][1] == []
    assert {one.name for one in folder.iterdir()} == {"backup-20260101T000000000", *made}
    assert not (server.folder / "backups").exists() or [*(server.folder / "backups").iterdir()] == []
    for one in made:
        assert names(folder / one / "database.sqlite3", tmp_path / "scratch") == set()
        store.read_manifest(one)


@pytest.mark.parametrize("scheme", ["", "local://"])
def test_what_a_killed_deletion_leaves_is_deleted_by_the_next_backup(
    server: Server, tmp_path: Path, scheme: str
) -> None:
    folder = tmp_path / "backups"
    # Of another program.
    (folder / "backup-20260101T000000000").mkdir(parents=True)
    store = open_store(f"{scheme}{folder}")
    assert server.manage("backup", store.shown).returncode == 0
    [backup] = store.ids()
    left = []
    for _ in steps(server, "delete", f"{store.shown}/{backup}"):
        left.append((store.ids(), any(folder.rglob("database.sqlite3"))))
    # It was whole, then it was none, and its copy was still there.
    assert left[0] == ([backup], True)
    assert left[-1] == ([], True)
    assert server.manage("backup", store.shown).returncode == 0
    assert {one.name for one in folder.iterdir()} == {"backup-20260101T000000000", *store.ids()}
    assert not (server.folder / "backups").exists() or [*(server.folder / "backups").iterdir()] == []


def test_a_killed_restore_leaves_the_old_database_or_the_new_one(server: Server, tmp_path: Path) -> None:
    database, store = server.folder / "vectordb.sqlite3", FolderStore(tmp_path / "backups")
    write(database, "both", "new")
    assert server.manage("backup", store.shown).returncode == 0
    [backup] = store.ids()
    found = [{"both", "new"}]
    for _ in steps(server, "restore", f"{store.folder}/{backup}"):
        found.append(names(database, tmp_path / "scratch"))
        if "new" in found[-1]:
            # The next one has something to replace, too.
            write(database, "both")
            write_to_wal(database, "old")
    assert len(found) > 8
    assert {tuple(sorted(one)) for one in found} == {("both", "new"), ("both", "old")}
    assert names(database, tmp_path / "scratch") == {"both", "new"}
    assert [one.name for one in server.folder.glob(".restore-*")] == []


def test_the_database_that_is_kept_is_the_one_before_a_killed_restore(server: Server, tmp_path: Path) -> None:
    database, store = server.folder / "vectordb.sqlite3", FolderStore(tmp_path / "backups")
    kept = server.folder / "vectordb.sqlite3.before-restore"
    write(database, "both", "new")
    assert server.manage("backup", store.shown).returncode == 0
    [backup] = store.ids()
    write(database, "both")
    write_to_wal(database, "old")
    replaced = 0
    for _ in steps(server, "restore", f"{store.folder}/{backup}"):
        # Repeated, until it ends.
        replaced += "new" in names(database, tmp_path / "scratch")
        assert not kept.exists()
    assert replaced
    assert names(kept, tmp_path / "scratch") == {"both", "old"}
    write(database, "both", "newer")
    again = server.manage("restore", f"{store.folder}/{backup}", "--force")
    assert again.stdout.endswith(
        f"What was there before is {kept}, until the next restore. Delete it when you do not need it.\n"
    )
    assert names(kept, tmp_path / "scratch") == {"both", "newer"}
    assert {path.name for path in server.folder.glob("*.before-restore*")} == {kept.name}


@pytest.mark.parametrize("act", ["export", "replace"])
def test_a_killed_export_leaves_a_whole_file_or_what_was_there(server: Server, tmp_path: Path, act: str) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(f'{{"id": "{i}", "embedding": [{i}, 1]}}\n' for i in range(3000)))
    assert server.manage("import", str(rows), "a", "--create").returncode == 0
    assert server.manage("export", "a", str(tmp_path / "whole.zip")).returncode == 0
    whole = (tmp_path / "whole.zip").read_bytes()
    folder = tmp_path / "exports"
    folder.mkdir()
    file, before = folder / "a.zip", b"before" if act == "replace" else None
    seen: list[bytes | None] = []
    drafts: list[Path] = []

    def reset() -> None:
        # A draft that is there would be deleted first, and the steps be others.
        for path in folder.iterdir():
            path.unlink()
        if before is not None:
            file.write_bytes(before)

    reset()
    for _ in steps(server, act, str(file)):
        seen.append(file.read_bytes() if file.exists() else None)
        drafts += {*folder.iterdir()} - {file}
        reset()
    assert set(seen) == {before, whole}
    assert drafts
    assert [path.read_bytes() for path in folder.iterdir()] == [whole]


ROWS = 6500


def run_killed(server: Server, act: str, argument: Path, rows: int = ROWS) -> tuple[int, dict[str, Any]]:
    """Do an act again and again, each time killed some statements later, until its job has ended. Return at how many
    places it has gone on, and the job's result."""
    resumed = set()
    database = server.folder / "vectordb.sqlite3"
    jobs = "SELECT state, done, result FROM vectordb_job"
    with contextlib.closing(steps(server, act, str(argument))) as killed:
        for _ in killed:
            with contextlib.closing(sqlite3.connect(database)) as opened:
                found = opened.execute(jobs).fetchall()
            # Killed behind the last statement that matters.
            if found and found[0][0] != "running":
                break
            resumed |= {done for _, done, _ in found}
    with contextlib.closing(sqlite3.connect(database)) as opened:
        assert opened.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        [(state, _, result)] = opened.execute(jobs).fetchall()
        assert state == "done"
        count = "SELECT count(*), count(DISTINCT text) FROM vectordb_chunk"
        assert opened.execute(count).fetchone() == (rows, rows)
        assert opened.execute("SELECT count(*) FROM vectordb_embedding").fetchone() == (rows,)
    return len(resumed - {0}), json.loads(result)


@pytest.mark.parametrize("format", ["zip", "parquet"])
def test_a_killed_import_goes_on_and_stores_every_row_once(server: Server, tmp_path: Path, format: str) -> None:
    file = tmp_path / f"rows.{format}"
    file.write_bytes(file_without_ids(format, ROWS))
    resumed, report = run_killed(server, "import", file)
    assert resumed >= 3
    assert (report["created"], report["updated"], report["left"], report["refused"]) == (ROWS, 0, 0, 0)


def test_a_killed_import_of_a_folder_goes_on_and_tells_of_every_file_once(folder: Path, tmp_path: Path) -> None:
    server = Server(folder, VECTORDB_EMBEDDING_PROVIDER="hashing", VECTORDB_EMBEDDING_MODEL="hashing-64")
    folder.mkdir(mode=0o700)
    shutil.copy(migrated_database(), folder)
    texts, count = tmp_path / "texts", 12
    texts.mkdir()
    for i in range(count):
        (texts / f"{i}.txt").write_text(f"Text number {i}.")
    resumed, report = run_killed(server, "folder", texts, count)
    assert resumed >= 3
    assert (report["created"], report["updated"], report["documents"], report["refused"]) == (count, 0, count, 0)


def test_a_killed_migration_goes_on_and_stores_every_row_once(server: Server, tmp_path: Path) -> None:
    index = faiss.IndexFlatIP(2)
    index.add(np.ones((ROWS, 2), np.float32))
    faiss.write_index(index, str(tmp_path / "rows.index"))
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(f'{{"text": "{i}"}}\n' for i in range(ROWS)))
    resumed, result = run_killed(server, "migrate", tmp_path / "rows.index")
    assert resumed >= 3
    report, comparison = result["report"], result["comparison"]
    assert (report["created"], report["updated"], report["left"], report["refused"]) == (ROWS, 0, 0, 0)
    assert (comparison["different"], comparison["worse"]) == (0, 0)
