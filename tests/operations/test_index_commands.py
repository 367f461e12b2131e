"""`manage.py rebuild_index` and `manage.py verify_index` as a person runs them, beside a server and without one."""

import contextlib
import os
import re
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.core.management import execute_from_command_line

from apps.engine.indexes.registry import INDEX_TYPES
from tests.operations.stored_libraries import Library
from tests.server import Server, serving, until

ROWS = 1500


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with a library of each type, an empty one, and one that has no dimension yet."""
    with serving(tmp_path_factory.mktemp("commands") / "data") as running:
        with running.client() as client:
            for kind in INDEX_TYPES:
                Library(kind).create(client, index_type=kind).write(client, ROWS)
            Library("empty").create(client)
            client.post("/libraries", json={"id": "undecided", "name": "U"}).raise_for_status()
        until(running.maintenance, "maintenance runs")
        yield running


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data folder of a server that has ended, with a library of rows, an empty one and one without dimension."""
    folder = tmp_path_factory.mktemp("original") / "data"
    with serving(folder) as server, server.client() as client:
        library = Library("rows").create(client)
        library.write(client, ROWS)
        Library("empty").create(client)
        client.post("/libraries", json={"id": "undecided", "name": "U"}).raise_for_status()
        library.build(client)
        until(lambda: library.is_built(client), "it is built")
    return folder


@pytest.fixture
def stopped(original: Path, folder: Path) -> Server:
    """A server that does not run, with a copy of that folder."""
    shutil.copytree(original, folder)
    return Server(folder)


@pytest.fixture
def blocked(stopped: Server) -> Server:
    """That server, with a file where the folder of index files would be, so that none can be written."""
    shutil.rmtree(stopped.folder / "index")
    (stopped.folder / "index").touch()
    return stopped


@pytest.fixture
def read_only(stopped: Server) -> Iterator[Server]:
    """That server, with a data folder that nobody can write into: not root either, where the tests may mount it so."""
    if os.geteuid():
        for path in [*stopped.folder.rglob("*"), stopped.folder]:
            path.chmod(0o500 if path.is_dir() else 0o400)
        yield stopped
        for path in [stopped.folder, *stopped.folder.rglob("*")]:
            path.chmod(0o700)
        return
    mounts = (["--bind", str(stopped.folder)], ["--options", "remount,ro,bind"])
    if any(subprocess.run(["mount", *how, str(stopped.folder)], check=False).returncode for how in mounts):
        pytest.skip("root can write everywhere, and may not mount a folder read-only")
    yield stopped
    subprocess.run(["umount", str(stopped.folder)], check=True)


def lines(ended: "subprocess.CompletedProcess[str]") -> list[str]:
    """What a command that succeeded wrote."""
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.splitlines()


def assert_refused(ended: "subprocess.CompletedProcess[str]", sentence: str) -> None:
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1] == f"CommandError: {sentence}"
    assert "Traceback" not in ended.stderr


NOTHING_REBUILT = [f"{name}: 0 rows in 0 segments (brute_force)" for name in ("empty", "undecided")]
NOTHING_VERIFIED = [f"{name}: 0 rows, equal to the database (no index files yet)" for name in ("empty", "undecided")]
REBUILT = ["rows: 1,500 rows in 1 segment (kd_tree)", *NOTHING_REBUILT]
VERIFIED = ["rows: 1,500 rows, equal to the database, recall@10 1.0000 (kd_tree)", *NOTHING_VERIFIED]


def test_beside_a_server_all_libraries_are_rebuilt_as_configured_and_verified(server: Server) -> None:
    of_types = [f"{kind}: 1,500 rows in 1 segment ({kind})" for kind in INDEX_TYPES]
    assert lines(server.manage("rebuild_index")) == [*of_types, *NOTHING_REBUILT]
    with server.client() as client:
        for name in [*INDEX_TYPES, "empty", "undecided"]:
            index = client.get(f"/libraries/{name}/stats").json()["index"]
            assert (index["state"], index["rows_pending"]) == ("ready", 0)
    verified = lines(server.manage("verify_index", "--k", "5", "--sample", "50"))
    assert verified[len(INDEX_TYPES) :] == NOTHING_VERIFIED
    for kind, line in zip(INDEX_TYPES, verified, strict=False):
        found = re.fullmatch(rf"{kind}: 1,500 rows, equal to the database, recall@5 (\d\.\d{{4}}) \({kind}\)", line)
        assert found, line
        assert 0.8 < float(found[1]) <= 1


@pytest.mark.any_database
@pytest.mark.parametrize("command", ["rebuild_index", "verify_index"])
def test_a_library_that_is_not_there_is_reported(server: Server, command: str) -> None:
    assert_refused(server.manage(command, "rwos"), "There is no library 'rwos'. POST /api/v1/libraries makes one.")


@pytest.mark.any_database
@pytest.mark.parametrize(("option", "value"), [("--k", "0"), ("--sample", "-1"), ("--sample", "many")])
def test_numbers_that_make_no_sense_are_refused(capsys: pytest.CaptureFixture[str], option: str, value: str) -> None:
    with pytest.raises(SystemExit) as ended:
        execute_from_command_line(["manage.py", "verify_index", f"{option}={value}"])
    assert ended.value.code == 2
    assert f"argument {option}" in capsys.readouterr().err


def test_without_libraries_there_is_nothing_to_do(folder: Path) -> None:
    server = Server(folder)
    try:
        assert server.manage("migrate").returncode == 0
        for command in ("rebuild_index", "verify_index"):
            assert lines(server.manage(command)) == ["There are no libraries."]
    finally:
        server.drop_database()


@pytest.mark.sqlite
def test_a_failure_of_an_earlier_attempt_is_not_told_again(server: Server) -> None:
    with server.client() as client:
        library = Library("blocked").create(client)
        library.write(client, 10)
        segments = library.folder(server) / "segments"
        segments.parent.mkdir(parents=True)
        segments.touch()
        library.build(client)
        until(lambda: library.index(client)["state"] == "failed", "the failure is reported")
        segments.unlink()
        assert lines(server.manage("rebuild_index", "blocked")) == ["blocked: 10 rows in 1 segment (brute_force)"]
        assert library.index(client)["state"] == "ready"


@pytest.mark.sqlite
def test_without_a_server_all_libraries_are_rebuilt_and_verified(stopped: Server) -> None:
    shutil.rmtree(stopped.folder / "index")
    assert lines(stopped.manage("rebuild_index")) == REBUILT
    assert lines(stopped.manage("verify_index")) == VERIFIED


@pytest.mark.sqlite
def test_maintenance_that_runs_once_builds_what_is_to_be_built(stopped: Server) -> None:
    shutil.rmtree(stopped.folder / "index")
    assert lines(stopped.manage("maintain", "--once")) == []
    assert lines(stopped.manage("verify_index")) == VERIFIED


@pytest.mark.sqlite
def test_maintenance_that_runs_once_says_by_its_status_that_not_all_was_done(blocked: Server) -> None:
    ended = blocked.manage("maintain", "--once")
    assert ended.returncode == 1
    assert "building failed: " in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.sqlite
def test_a_row_that_differs_is_reported_and_is_right_after_a_rebuild(stopped: Server) -> None:
    """Somebody has removed the triggers, and with them the log of what changed."""
    with contextlib.closing(sqlite3.connect(stopped.folder / "vectordb.sqlite3")) as database, database:
        for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            database.execute(f'DROP TRIGGER "{name}"')
        keys = [key for (key,) in database.execute("SELECT id FROM vectordb_chunk ORDER BY id LIMIT 3")]
        vector = "SELECT vector FROM vectordb_embedding WHERE chunk_id = ?"
        other = f"UPDATE vectordb_embedding SET vector = ({vector}) WHERE chunk_id = ?"
        database.execute(other, [keys[0], keys[1]])
        database.execute("DELETE FROM vectordb_embedding WHERE chunk_id = ?", [keys[2]])
        database.execute("UPDATE vectordb_chunk SET text = 'another' WHERE id = ?", [keys[0]])
    ended = stopped.manage("verify_index")
    assert_refused(ended, "The database is right. Rebuild: manage.py rebuild_index rows")
    assert ended.stdout.splitlines()[0].startswith("rows: 1,500 rows, 2 ROWS DIFFER, WORDS DIFFER, recall@10 ")
    assert ended.stdout.splitlines()[1:] == NOTHING_VERIFIED
    assert lines(stopped.manage("rebuild_index", "rows")) == ["rows: 1,500 rows in 2 segments (kd_tree)"]
    assert "rows: 1,500 rows, equal to the database" in lines(stopped.manage("verify_index", "rows"))[0]


@pytest.mark.sqlite
def test_files_that_cannot_be_used_are_reported_and_the_rows_are_verified(stopped: Server) -> None:
    for path in (stopped.folder / "index").glob("*/segments/*/keys.npy"):
        path.write_bytes(b"")
    ended = stopped.manage("verify_index", "rows")
    line = "rows: 1,500 rows, equal to the database, recall@10 1.0000 (index files cannot be used)"
    assert lines(ended) == [line]
    (warning,) = ended.stderr.splitlines()
    assert "index of library rows: " in warning
    assert "keys.npy does not have its size or checksum; the rows serve instead" in warning
    assert lines(stopped.manage("verify_index", "rows")) == [line]


@pytest.mark.sqlite
def test_why_an_index_could_not_be_built_is_reported(blocked: Server) -> None:
    ended = blocked.manage("rebuild_index", "rows")
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1].startswith("CommandError: The index of library rows could not be built: ")
    assert "File exists" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.sqlite
@pytest.mark.parametrize("command", [["maintain", "--once"], ["rebuild_index"]])
def test_a_data_folder_that_is_read_only_is_reported_in_one_sentence(read_only: Server, command: list[str]) -> None:
    ended = read_only.manage(*command)
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1].startswith("CommandError: ")
    assert "cannot be used: " in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.sqlite
def test_a_read_only_data_folder_is_verified_or_reported_in_one_sentence(read_only: Server) -> None:
    """SQLite reads such a database where its last user has closed it well."""
    ended = read_only.manage("verify_index")
    if ended.returncode:
        assert ended.stderr.splitlines()[-1].startswith("CommandError: The database cannot be used: ")
    else:
        assert lines(ended) == VERIFIED
    assert "Traceback" not in ended.stderr
