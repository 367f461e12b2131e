"""The files of the database go away under a running server: nothing acknowledged is lost in silence."""

import contextlib
import itertools
import shutil
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.search.database import copy_database
from tests.server import Server, holders, serving, until

pytestmark = pytest.mark.sqlite


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of two workers with the library "a", for all tests here: each leaves it ready."""
    with serving(tmp_path_factory.mktemp("files") / "data") as server:
        with server.client() as client:
            client.post("/libraries", json={"id": "a", "name": "A", "dimension": 2}).raise_for_status()
        until(lambda: has_all_processes(server), "all processes have started")
        yield server
        assert "Traceback" not in server.log.read_text()


class Writers:
    """Two threads for each worker that write chunks for as long as the block runs, and what became of each chunk."""

    def __init__(self, server: Server, prefix: str) -> None:
        self.acknowledged: set[str] = set()
        self.refused: list[str] = []
        self.begun: set[str] = set()
        self.lock = threading.Lock()
        self._ids, self._stop = (f"{prefix}{number}" for number in itertools.count()), threading.Event()
        self._clients = server.clients_of_each_worker(2)

    def __enter__(self) -> "Writers":
        self._threads = [threading.Thread(target=self._write, args=[client]) for client in self._clients.__enter__()]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exception: Any) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        self._clients.__exit__(*exception)

    def _write(self, client: httpx.Client) -> None:
        while not self._stop.is_set():
            with self.lock:
                chunk_id = next(self._ids)
                self.begun.add(chunk_id)
            with contextlib.suppress(httpx.TransportError):  # as from a worker that was killed
                written = write(client, chunk_id)
                if written.status_code == 503:
                    assert written.json()["code"] == "database_unavailable"
                    self.refused.append(chunk_id)
                else:
                    assert written.status_code == 200
                    self.acknowledged.add(chunk_id)


def has_all_processes(server: Server) -> bool:
    """Whether nobody is starting: who is to maintain is a copy of its parent at first."""
    return len(server.maintenance()) == 1 and len(server.workers()) == 2


def write(client: httpx.Client, chunk_id: str) -> httpx.Response:
    return client.post("/libraries/a/chunks", json={"chunks": [{"id": chunk_id, "text": "x", "embedding": [1, 2]}]})


def stored(client: httpx.Client) -> set[str]:
    """The ids of all chunks."""
    ids, cursor = set(), ""
    while cursor is not None:
        page = client.get("/libraries/a/chunks", params={"limit": 100} | ({"cursor": cursor} if cursor else {}))
        ids |= {chunk["id"] for chunk in page.raise_for_status().json()["items"]}
        cursor = page.json()["next_cursor"]
    return ids


def assert_unavailable(server: Server) -> None:
    """By each worker: it writes nothing, answers no query with what was, and is not ready."""
    with server.clients_of_each_worker(1) as clients:
        for client in clients:
            query = client.post("/libraries/a/query", json={"vector": [1, 2], "k": 1})
            for refused in (write(client, "late"), query, client.get("/libraries")):
                assert (refused.status_code, refused.json()["code"]) == (503, "database_unavailable")
                assert "Put the data folder back" in refused.json()["detail"]
                assert "vectordb.sqlite3" in refused.json()["detail"]
            ready = client.get(f"{server.url}/ready")
            assert (ready.status_code, "files" in ready.json()["checks"]["database"]) == (503, True)


def is_ready_everywhere(server: Server) -> bool:
    # Of workers that are being replaced, one may end while it is looked at.
    with contextlib.suppress(httpx.HTTPError, psutil.Error), server.clients_of_each_worker(1) as clients:
        return len(clients) == 2 and all(client.get(f"{server.url}/ready").status_code == 200 for client in clients)
    return False


def test_a_folder_that_is_removed_takes_no_write(running: Server, tmp_path: Path) -> None:
    folder, backup = running.folder, tmp_path / "backup.sqlite3"
    copy_database(folder / "vectordb.sqlite3", backup)
    with running.client() as client:
        kept = stored(client)
    with Writers(running, "removed-") as writers:
        until(lambda: len(writers.acknowledged) > 20, "the writers write")
        while folder.exists():
            shutil.rmtree(folder, ignore_errors=True)
        with writers.lock:
            begun = set(writers.begun)
        until(lambda: len(writers.refused) > 50, "writes are refused")
        # Those that begin now have files of their own to open.
        running.workers()[0].kill()
        [maintenance] = running.maintenance()
        maintenance.kill()
        maintenance.wait()
        until(lambda: len(running.workers()) == 2, "the worker is replaced")
        until(
            lambda: "maintain.lock cannot be used" in running.log.read_text(), "maintenance has looked for the folder"
        )
        assert not writers.acknowledged - begun
    assert_unavailable(running)
    assert not folder.exists()

    folder.mkdir(mode=0o700)
    assert_unavailable(running)
    shutil.copy(backup, folder / "vectordb.sqlite3")
    until(lambda: is_ready_everywhere(running), "all workers serve the folder that was put there")
    with running.client() as client:
        write(client, "new").raise_for_status()
        running.kill()
        running.start()
        assert stored(client) == kept | {"new"}


def test_a_folder_that_is_moved_is_used_again_when_it_is_back(running: Server, tmp_path: Path) -> None:
    until(lambda: has_all_processes(running), "all processes have started")
    until(lambda: holders(running.folder, *running.maintenance()), "maintenance has found the folder")
    workers, [maintenance] = running.workers(), running.maintenance()
    with running.client() as client:
        write(client, "before").raise_for_status()
        since = len(running.log.read_text())
        running.folder.rename(tmp_path / "elsewhere")
        for _ in range(5):
            assert_unavailable(running)
        # Steps of maintenance that are due meanwhile tell that they failed.
        told = [line for line in running.log.read_text()[since:].splitlines() if "the files of the database" in line]
        assert 1 <= len(told) <= len(workers) + 1, "each process tells it once"
        assert not running.folder.exists()
        (tmp_path / "elsewhere").rename(running.folder)
        write(client, "after").raise_for_status()
        assert {"before", "after"} <= stored(client)
        assert is_ready_everywhere(running)
    assert (running.workers(), running.maintenance()) == (workers, [maintenance])


@pytest.mark.parametrize("end", ["-shm", "-wal"])
def test_a_lost_file_loses_no_acknowledged_write(running: Server, end: str, tmp_path: Path) -> None:
    lost = running.folder / f"vectordb.sqlite3{end}"
    with Writers(running, f"lost{end}-") as writers:
        until(lambda: len(writers.acknowledged) >= 100, "100 writes are acknowledged")
        lost.unlink()
        running.workers()[0].kill()
        until(lambda: writers.refused, "writes are refused")
        until(lambda: is_ready_everywhere(running), "all workers are ready again")
        count = len(writers.acknowledged)
        until(lambda: len(writers.acknowledged) > count + 20, "writes are taken again")
    with running.client() as client:
        assert writers.acknowledged <= stored(client)
    # What a start after a crash finds.
    for name in ("vectordb.sqlite3-wal", "vectordb.sqlite3"):
        shutil.copy(running.folder / name, tmp_path / name)
    with contextlib.closing(sqlite3.connect(tmp_path / "vectordb.sqlite3")) as database:
        assert writers.acknowledged <= {row[0] for row in database.execute("SELECT public_id FROM vectordb_chunk")}
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
