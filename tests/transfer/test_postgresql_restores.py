"""Hosts share a PostgreSQL, whose own programs copy it: who dies leaves it whole, and nobody gets in between."""

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import psycopg
import pytest

from apps.transfer.backups.stores import FolderStore
from tests.server import ROOT, Server, until
from tests.transfer.test_killed import steps

BEING_RESTORED = "A backup is being restored into it. Try again when that is done."


@pytest.fixture
def server(folder: Path) -> Iterator[Server]:
    """A server that does not run, with an empty database."""
    server = Server(folder)
    folder.mkdir(mode=0o700)
    yield server
    server.drop_database()


@pytest.fixture
def other(server: Server, tmp_path: Path) -> Iterator[Server]:
    """One of another host, that shares the database."""
    other = Server(tmp_path / "other", DATABASE_URL=server.database)
    other.folder.mkdir(mode=0o700)
    yield other
    other.drop_database()


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path / "backups")


@pytest.fixture
def backup(server: Server, store: FolderStore) -> str:
    """A backup of a database that has other names by now."""
    write(server, "both", "new")
    made = server.manage("backup", store.shown)
    assert made.returncode == 0, made.stderr
    write(server, "both", "old")
    [backup] = store.ids()
    return f"{store.folder}/{backup}"


def database_of(server: Server) -> str:
    return urlsplit(server.database).path[1:]


def is_unused(server: Server) -> bool:
    """Whether nobody is connected. A connection of who died, or has just closed it, lasts a moment longer."""
    return not connections(server)


def connections(server: Server) -> int:
    """How many are connected."""
    with psycopg.connect(os.environ["DATABASE_URL"]) as looking:
        sql = "SELECT count(*) FROM pg_stat_activity WHERE datname = %s"
        [number] = looking.execute(sql, [database_of(server)]).fetchone() or [0]
        return int(number)


def write(server: Server, *names: str) -> None:
    """Let the database have these names alone."""
    with psycopg.connect(server.database) as opened:
        opened.execute("DELETE FROM vectordb_audit_entry")
        for name in names:
            opened.execute(
                "INSERT INTO vectordb_audit_entry (at, key_id, name, action, library, target, request_id) "
                "VALUES ('2026-01-01', '', '', %s, '', '', '')",
                [name],
            )
    until(lambda: is_unused(server), "nobody is connected")


def names(server: Server) -> set[str]:
    """What `write` has written, once nobody is connected any more."""
    until(lambda: is_unused(server), "nobody is connected")
    with psycopg.connect(server.database) as opened:
        found = {name for (name,) in opened.execute("SELECT action FROM vectordb_audit_entry")}
    until(lambda: is_unused(server), "nobody is connected")
    return found - {"create_job"}


class Held:
    """A command that is held at the end of a call of a program with `option`; of psql, before it commits."""

    def __init__(self, server: Server, scratch: Path, program: str, option: str, *arguments: str) -> None:
        scratch.mkdir()
        self.fifo, script = scratch / "fifo", scratch / program
        os.mkfifo(self.fifo)
        real = shutil.which(program)
        held = f'"{real}" "$@" --file="{self.fifo}"' if program == "psql" else f'"{real}" "$@" && cat "{self.fifo}"'
        script.write_text(f'#!/bin/sh\ncase "$*" in *{option}*) {held};; *) exec "{real}" "$@";; esac\n')
        script.chmod(0o755)
        self.process = subprocess.Popen(
            [sys.executable, str(ROOT / "manage.py"), *arguments],
            env=server.environ | {"PATH": f"{scratch}{os.pathsep}{os.environ['PATH']}"},
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._writer = -1
        until(self._open, f"{program} is held")
        self.programs = psutil.Process(self.process.pid).children(recursive=True)

    def _open(self) -> bool:
        if self.process.poll() is not None:
            raise RuntimeError(self.process.communicate()[1])
        # Without a reader it cannot be opened.
        with contextlib.suppress(OSError):
            self._writer = os.open(self.fifo, os.O_WRONLY | os.O_NONBLOCK)
        return self._writer >= 0

    def release(self) -> None:
        os.close(self._writer)

    def end(self) -> tuple[int, str]:
        """Return the status of the command, and what it says."""
        _, told = self.process.communicate(timeout=120)
        return self.process.returncode, told


Hold = Callable[..., Held]


@pytest.fixture
def hold(server: Server, tmp_path: Path) -> Iterator[Hold]:
    """Start a command that is held; in the end it is gone."""
    with contextlib.ExitStack() as stack:

        def start(program: str, option: str, *arguments: str) -> Held:
            held = Held(server, tmp_path / "held", program, option, *arguments)
            stack.callback(held.process.communicate)
            stack.callback(held.process.kill)
            return held

        yield start


@pytest.mark.parametrize(("program", "option"), [("pg_restore", "/dev/null"), ("psql", "--single")])
def test_while_a_backup_is_restored_no_other_is_and_no_server_starts(
    program: str, option: str, server: Server, other: Server, backup: str, hold: Hold
) -> None:
    held = hold(program, option, "restore", backup, "--force")
    for command in (
        ["restore", backup, "--force"],
        ["serve"],
        ["create_key", "a", "--scope=read"],
    ):
        refused = other.manage(*command)
        assert (refused.returncode, BEING_RESTORED in refused.stderr) == (1, True), refused.stderr
        assert len(refused.stderr.splitlines()) == 1
    held.release()
    assert held.end() == (0, "")
    assert names(server) == {"both", "new", "restore_backup"}


def test_a_server_of_another_host_keeps_restores_away(server: Server, other: Server, backup: str) -> None:
    other.start()
    try:
        refused = server.manage("restore", backup, "--force")
        assert "is in use. Stop what uses it, and try again." in refused.stderr
    finally:
        other.stop()
    until(lambda: is_unused(server), "nobody is connected")
    assert server.manage("restore", backup, "--force").returncode == 0


def test_a_restore_waits_for_a_connection_that_is_being_closed(server: Server, backup: str) -> None:
    with ThreadPoolExecutor() as threads:
        with psycopg.connect(server.database):
            restored = threads.submit(server.manage, "restore", backup, "--force")
            until(lambda: restored.done() or connections(server) == 2, "the restore is connected, too")
        assert restored.result().returncode == 0, restored.result().stderr


def test_a_restore_that_is_killed_while_psql_works_keeps_others_away_until_that_is_done(
    server: Server, other: Server, backup: str, hold: Hold
) -> None:
    held = hold("psql", "--single", "restore", backup, "--force")
    held.process.kill()
    assert held.end() == (-9, "")
    for one in (server, other):
        refused = one.manage("restore", backup, "--force")
        assert (refused.returncode, BEING_RESTORED in refused.stderr) == (1, True), refused.stderr
    held.release()
    assert names(server) == {"both", "new", "restore_backup"}
    assert server.manage("restore", backup, "--force").returncode == 0
    assert [*server.folder.glob(".restore-*")] == []


def test_a_restore_whose_psql_is_killed_leaves_the_old_database_and_says_so(
    server: Server, backup: str, hold: Hold
) -> None:
    held = hold("psql", "--single", "restore", backup, "--force")
    for program in held.programs:
        program.kill()
    status, told = held.end()
    assert (status, "psql failed: status -9" in told) == (1, True), told
    held.release()
    assert names(server) == {"both", "old"}
    assert server.manage("restore", backup, "--force").returncode == 0
    assert names(server) == {"both", "new", "restore_backup"}
    assert [*server.folder.glob(".restore-*")] == []


def test_a_killed_restore_leaves_the_old_database_or_the_new_one(server: Server, backup: str) -> None:
    found = []
    for _ in steps(server, "restore", backup):
        found.append(names(server))
        if "new" in found[-1]:
            # The next one has something to replace, too.
            write(server, "both", "old")
    assert len(found) > 8
    assert {tuple(sorted(one)) for one in found} <= {("both", "new"), ("both", "old")}
    assert names(server) == {"both", "new"}
    assert [*server.folder.iterdir()] == [server.folder / "serving.lock"]


def test_a_killed_backup_is_none_and_the_next_one_sweeps_it_up(server: Server, store: FolderStore) -> None:
    killed = []
    for step in steps(server, "backup", store.shown):
        killed.append((step, store.ids()))
    assert len(killed) > 8, killed
    made = store.ids()
    assert made
    # Those after whose manifest the process was killed, as it tidied up, are whole and stay.
    assert [step for step, shown in killed if not set(shown) <= set(made)] == []
    assert killed[len(killed) // 3][1] == []
    assert {one.name for one in store.folder.iterdir()} == set(made)
    for one in made:
        until(lambda: is_unused(server), "nobody is connected")
        assert server.manage("restore", f"{store.folder}/{one}", "--force").returncode == 0


@pytest.mark.parametrize("is_program_killed", [False, True])
def test_a_backup_that_is_killed_while_pg_dump_works_is_none(
    is_program_killed: bool, server: Server, store: FolderStore, hold: Hold
) -> None:
    held = hold("pg_dump", "--snapshot", "backup", store.shown)
    for process in held.programs if is_program_killed else [held.process]:
        process.kill()
    status, _ = held.end()
    assert status == (1 if is_program_killed else -9)
    held.release()
    assert [*store.folder.glob("backup-*")] == []
    assert server.manage("backup", store.shown).returncode == 0
    assert [one.name for one in store.folder.iterdir()] == store.ids()


def scratch_databases(server: Server) -> set[str]:
    """Those that are made to restore a backup of the server for a test."""
    with psycopg.connect(os.environ["DATABASE_URL"]) as looking:
        [number] = looking.execute(
            "SELECT oid FROM pg_database WHERE datname = %s", [database_of(server)]
        ).fetchone() or [0]
        found = looking.execute(
            "SELECT datname FROM pg_database WHERE datname LIKE %s", [f"vectordb_restore_test_{number}_%"]
        )
        return {name for (name,) in found}


def test_the_database_of_a_test_that_was_killed_is_dropped_by_the_next_one(
    server: Server, store: FolderStore, hold: Hold
) -> None:
    backup = ("backup", store.shown, "--test-restore")
    held = hold("pg_restore", "--exit-on-error", *backup)
    before = scratch_databases(server)
    # One that is under way is left alone.
    assert server.manage(*backup).returncode == 0
    assert scratch_databases(server) == before
    assert len(before) == 1
    held.process.kill()
    assert held.end() == (-9, "")
    held.release()
    # Its backup is whole, and was not tested.
    assert len(store.ids()) == 2
    assert server.manage(*backup).returncode == 0
    assert scratch_databases(server) == set()
