"""The maintenance process: one at a time, at work while others read, and gone when it must be, whatever it is doing."""

import contextlib
import json
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.operations.stored_libraries import Library, assert_equal_to_the_database, half_done
from tests.server import Server, holders, is_alive, serving, until

pytestmark = pytest.mark.sqlite

# With so many rows, an index that takes ten seconds and more to build.
ROWS = 20_000
SLOW = {"index_type": "hnsw", "index_params": {"m": 64, "ef_construction": 1024}}
# With a third of the rows, some seconds of the processor.
MANY_LISTS = {"index_type": "ivf", "index_params": {"lists": 1500}}

MAINTAIN = "from django.core.management import execute_from_command_line; execute_from_command_line(['', 'maintain'])"


@pytest.fixture
def server(folder: Path) -> Iterator[Server]:
    """A server that a test may harm."""
    with serving(folder, VECTORDB_LOG_LEVEL="info") as running:
        yield running


def make_slow_library(client: httpx.Client, rows: int = ROWS, settings: dict[str, Any] = SLOW) -> Library:
    """A library for which maintenance builds an index, and will for some time."""
    library = Library("slow").create(client, **settings)
    library.write(client, rows)
    library.build(client)
    until(lambda: is_being_built(library, client), "the rows are sealed, and an index is being built")
    return library


def is_being_built(library: Library, client: httpx.Client) -> bool:
    index = library.index(client)
    sealed = sum(segment["rows"] for segment in index["segments"])
    return index["state"] == "building" and sealed == index["rows_pending"] == len(library.rows)


def is_rebuilt(library: Library, server: Server) -> bool:
    """Whether the newest manifest is of the rebuild that was asked for: merges alone come after it. Seals before it can
    have put all rows into files, too."""
    number = library.manifest(server)
    if not number:
        return False
    path = library.folder(server) / "manifests" / str(number) / "manifest.json"
    return bool(json.loads(path.read_bytes().splitlines()[1])["rebuild"])


def the_maintenance(server: Server) -> psutil.Process:
    until(server.maintenance, "maintenance runs")
    (process,) = server.maintenance()
    return process


def test_reads_and_writes_go_on_while_an_index_is_built_and_maintenance_is_killed(server: Server) -> None:
    with server.client() as client:
        library = make_slow_library(client)
        stop = threading.Event()
        failures: list[BaseException] = []
        answered = []

        def read() -> None:
            with server.client() as reader:
                try:
                    while not stop.is_set():
                        library.assert_answers(reader)
                        answered.append(True)
                except BaseException as failure:
                    failures.append(failure)

        readers = [threading.Thread(target=read) for _ in range(2)]
        for reader in readers:
            reader.start()
        try:
            other = Library("other").create(client)
            before = len(answered)
            for first in range(0, 10_000, 5000):
                other.write(client, 5000, first=first)
                other.assert_answers(client)
            until(lambda: other.manifest(server) > 0, "another library is sealed meanwhile")
            until(lambda: len(answered) > before + 10, "readers get answers meanwhile")
            assert is_being_built(library, client)
            victim = the_maintenance(server)
            victim.kill()
            until(lambda: server.maintenance() not in ([], [victim]), "maintenance runs again")
            other.write(client, 5000, first=10_000)
            other.assert_answers(client)
            before = len(answered)
            until(lambda: len(answered) > before + 10, "readers get answers meanwhile")
            assert library.index(client)["state"] == "building"
        finally:
            stop.set()
            for reader in readers:
                reader.join()
        assert not failures, failures[0]
    processes = server.processes()
    assert server.stop() == 0, "an index is being built, and nobody waits for it"
    assert not any(map(is_alive, processes))
    assert_equal_to_the_database(server)
    assert "Traceback" not in server.log.read_text()


@pytest.mark.parametrize(("settings", "number"), [(SLOW, signal.SIGTERM), (MANY_LISTS, signal.SIGKILL)])
def test_an_index_is_finished_in_the_end_though_its_building_was_interrupted(
    server: Server, settings: dict[str, Any], number: int
) -> None:
    with server.client() as client:
        library = make_slow_library(client, ROWS // 3, settings)
        victim = the_maintenance(server)
        victim.suspend()
        assert is_being_built(library, client)
        victim.send_signal(number)
        with contextlib.suppress(psutil.NoSuchProcess):
            victim.resume()
        library.assert_answers(client)
        until(lambda: library.is_built(client), "the index is built")
        assert [segment["kind"] for segment in library.index(client)["segments"]] == [settings["index_type"]]
        library.assert_answers(client)
    assert half_done(server) == 0
    log = server.log.read_text()
    assert "the maintenance process ended; starting another" in log
    assert "Traceback" not in log


def test_maintenance_ends_with_its_parent_while_an_index_is_built(server: Server) -> None:
    with server.client() as client:
        library = make_slow_library(client)
        until(lambda: is_rebuilt(library, server), "the rebuild is in files, and an index is being built")
        process = the_maintenance(server)
        process.suspend()
        assert is_being_built(library, client)
        before = library.manifest(server)
        server.master().kill()
        process.resume()
        until(lambda: not is_alive(process), "maintenance has ended")
        assert library.manifest(server) == before, "it has not waited for the index"
    server.kill()
    server.start()
    server.kill()
    assert_equal_to_the_database(server)


def test_of_two_that_maintain_one_data_folder_one_works_and_the_other_takes_over(folder: Path) -> None:
    with serving(folder) as server:
        with server.client() as client:
            library = Library("a").create(client)
            library.write(client, 1500)
        server.kill()
        with server.python(MAINTAIN) as first, server.python(MAINTAIN) as second:
            try:
                both = psutil.Process(first.pid), psutil.Process(second.pid)
                until(lambda: holders(folder, *both), "one has the lock")
                holder: list[psutil.Process] = []
                until(lambda: holds_on(folder, holder, *both), "one keeps the lock")
                assert "Another process maintains" in server.manage("maintain", "--once").stderr
                assert "a: 1,500 rows in 1 segment " in server.manage("rebuild_index").stdout
                (working,) = holders(folder, *both)
                (waiting,) = set(both) - {working}
                working.kill()
                until(lambda: holders(folder, waiting), "the other has the lock")
                assert "Another process maintains" in server.manage("maintain", "--once").stderr
                assert "a: 1,500 rows in 1 segment (" in server.manage("rebuild_index").stdout
                waiting.terminate()
                until(lambda: not is_alive(waiting), "it ends when it is asked to")
            finally:
                first.kill()
                second.kill()
        assert_equal_to_the_database(server)


def holds_on(folder: Path, before: list[psutil.Process], *processes: psutil.Process) -> bool:
    """Whether the same process has the lock as when this was asked before."""
    now = holders(folder, *processes)
    same = len(now) == 1 and now == before
    before[:] = now
    return same
