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


def names(database: Path) -> set[str]:
    """The names of the libraries of a database that is sound, as the next one to open it sees it."""
    with contextlib.closing(sqlite3.connect(database)) as opened:
        assert opened.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        return {name for (name,) in opened.execute("SELECT action FROM vectordb_audit_entry")}


def write(database: Path, name: str) -> None:
    with contextlib.closing(sqlite3.connect(database)) as opened, opened:
        opened.execute(
            "INSERT INTO vectordb_audit_entry (at, key_id, name, action, library, target, request_id) "
            "VALUES ('2026-01-01', '', '', ?, '', '', '')",
            [name],
        )


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
        assert names(store.folder / one / "database.sqlite3") == set()
        store.read_manifest(one)


def test_a_killed_restore_leaves_the_old_database_or_the_new_one(server: Server, tmp_path: Path) -> None:
    database = server.folder / "vectordb.sqlite3"
    write(database, "old and new")
    store = FolderStore(tmp_path / "backups")
    assert server.manage("backup", store.shown).returncode == 0
    [backup] = store.ids()
    found = []
    write(database, "old")
    for _ in steps(server, "restore", f"{store.folder}/{backup}"):
        found.append(names(database))
        assert found[-1] in ({"old and new"}, {"old and new", "old"})
        if len(found[-1]) == 1:
            # The next one has something to restore, too; what it replaces has a WAL.
            write(database, "old")
    assert len(found) > 8
    assert sorted({len(one) for one in found}) == [1, 2]
    assert names(database) == {"old and new"}
    assert [one.name for one in server.folder.glob(".restore-*")] == []
