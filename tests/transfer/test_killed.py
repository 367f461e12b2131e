"""Whoever makes or restores a backup may be killed at any step."""

import contextlib
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from apps.transfer.backups.stores import FolderStore
from tests.server import ROOT, Server, migrated_database

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
        return {name for (name,) in opened.execute("SELECT action FROM vectordb_audit_entry")}


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


def test_a_killed_backup_is_none_and_the_next_one_sweeps_it_up(server: Server, tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "backups")
    killed = [(step, store.ids()) for step in steps(server, "backup", store.shown)]
    assert len(killed) > 8, killed
    # Only where the last steps were killed, which tidy up.
    assert [made for _, made in killed[:-3] if made] == []
    made = store.ids()
    assert made
    assert {one.name for one in store.folder.iterdir()} == set(made)
    for one in made:
        assert names(store.folder / one / "database.sqlite3", tmp_path / "scratch") == set()
        store.read_manifest(one)


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
