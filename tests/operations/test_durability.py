"""What SQLite's files go through: the sync before an answer, the deletion of a large library, a full disk."""

import contextlib
import itertools
import re
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import numpy as np
import psutil
import pytest

from tests.server import Server, serving, until

pytestmark = pytest.mark.sqlite

MIB = 1 << 20


class Call(NamedTuple):
    """A system call that strace saw, with the seconds at which it began and ended."""

    began: float
    ended: float
    text: str
    result: str


class Exchange(NamedTuple):
    """A request and what its worker did, call by call, until the first byte of the answer."""

    request: str
    calls: list[Call]
    status: str
    answered: float


def calls_of(trace: Path, process: psutil.Process) -> list[Call]:
    """The calls of all threads of a process, in the order in which they began."""
    calls = []
    for thread in process.threads():
        for line in trace.with_suffix(f".{thread.id}").read_text().splitlines():
            if found := re.fullmatch(r"([\d.]+) (.*\)) += (.*) <([\d.]+)>", line):
                began, text, result, seconds = found.groups()
                calls.append(Call(float(began), float(began) + float(seconds), text, result))
    return sorted(calls)


def exchanges(calls: list[Call]) -> Iterator[Exchange]:
    """What a worker did, request by request."""
    request, since = "", list[Call]()
    for call in calls:
        if read := re.match(r'(?:recvfrom|recvmsg|read)\(.*?"([A-Z]+ /\S*) HTTP/1', call.text):
            request, since = read[1], []
        elif sent := re.match(r'(?:sendto|sendmsg|write)\(.*?"HTTP/1\.1 (\d+)', call.text):
            yield Exchange(request, since, sent[1], call.began)
        else:
            since.append(call)


def writes_of(trace: Path, worker: psutil.Process) -> list[Exchange]:
    """What a worker did for requests that write."""
    return [one for one in exchanges(calls_of(trace, worker)) if not one.request.startswith("GET")]


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    """Where strace is to write."""
    assert shutil.which("strace"), "this test needs strace: apt-get install strace (or your system's equivalent)"
    return tmp_path / "trace"


def test_the_log_is_synced_between_a_write_and_its_answer(folder: Path, trace: Path) -> None:
    traced = "trace=read,recvfrom,recvmsg,write,sendto,sendmsg,pwrite64,pwritev,fsync,fdatasync"
    server = Server(folder, VECTORDB_WORKERS=1)
    # A file for each thread: one runs the request, another answers. -ttt and -T say when a call began and ended.
    options = ["-ff", "-ttt", "-T", "--seccomp-bpf", "-qq", "-y", "-s", "200", "-e", "signal=none", "-e", traced]
    server.start(under=["strace", *options, "-o", str(trace)])
    try:
        (worker,) = server.workers()
        requests = [
            ("POST", "", {"id": "a", "name": "A", "dimension": 3}),
            ("PATCH", "/a", {"name": "B"}),
            ("POST", "/a/chunks", {"chunks": [{"id": "x", "embedding": [1, 2, 3]}]}),
            ("POST", "/a/chunks", {"chunks": [{"id": f"{i}", "embedding": [i, 2, 3]} for i in range(500)]}),
            ("PATCH", "/a/chunks/x", {"metadata": {"n": 1}}),
            ("POST", "/a/chunks/delete", {"ids": ["1", "2"]}),
            ("DELETE", "/a/chunks/3", None),
            ("POST", "/a/documents", {"id": "d", "chunks": [{"embedding": [7, 8, 9]}]}),
            ("PUT", "/a/documents/d", {"chunks": [{"embedding": [7, 8, 9]}, {"embedding": [9, 8, 7]}]}),
            ("PATCH", "/a/documents/d", {"title": "D"}),
            ("DELETE", "/a/documents/d", None),
            ("DELETE", "/a", None),
        ]
        with server.client() as client:
            for method, path, body in requests:
                client.request(method, f"/libraries{path}", json=body).raise_for_status()
        # A client has its answer before strace has written the call that sent it.
        until(lambda: len(writes_of(trace, worker)) >= len(requests), "all answers are in the trace")
        written = writes_of(trace, worker)
    finally:
        server.stop()
    assert [exchange.request for exchange in written] == [
        f"{method} /api/v1/libraries{path}" for method, path, _ in requests
    ]
    for exchange in written:
        on_log = [call for call in exchange.calls if "vectordb.sqlite3-wal>" in call.text]
        names = [call.text.split("(")[0] for call in on_log]
        assert exchange.status.startswith("2")
        assert "pwrite64" in names, f"{exchange.request} was answered before it was written to the log"
        assert names[-1] in ("fsync", "fdatasync"), f"{exchange.request} was answered before the log was synced"
        assert on_log[-1].result == "0"
        assert on_log[-1].ended <= exchange.answered, f"{exchange.request} was answered while the log was synced"


ROWS = 117_659
DOCUMENTS = 1_000
TABLES = ("chunk", "embedding", "document", "change", "library")


def test_a_large_library_is_deleted_in_little_memory_and_gives_its_space_back(folder: Path, trace: Path) -> None:
    with serving(folder) as server:
        with server.client() as client:
            library = {"id": "large", "name": "Large", "dimension": 8}
            client.post("/libraries", json=library).raise_for_status()
            _store_rows(folder / "vectordb.sqlite3")
            stored = _bytes_of(folder)
            assert stored > ROWS * 600
            answer = client.post("/libraries/large/query", json={"vector": [1.0] * 8, "k": 1}).raise_for_status()
            assert answer.json()["meta"]["scanned"] == ROWS
            before = {worker.pid: worker.memory_info().rss for worker in server.workers()}
            for pid in before:
                Path(f"/proc/{pid}/clear_refs").write_text("5")
            client.delete("/libraries/large").raise_for_status()
            for pid, resident in before.items():
                assert _peak_memory(pid) - resident < 100 * MIB
            assert client.post("/libraries/large/query", json={"vector": [1.0] * 8}).status_code == 404
        with contextlib.closing(sqlite3.connect(folder / "vectordb.sqlite3")) as database:
            for table in TABLES:
                # Of a library that is gone, the log keeps that it is.
                rows = "WHERE library_key != 0" if table == "change" else ""
                assert database.execute(f"SELECT count(*) FROM vectordb_{table} {rows}").fetchone() == (0,), table
        server.kill()
    strace = ["strace", "-f", "--seccomp-bpf", "-qq", "-e", "signal=none", "-e", "trace=fsync,fdatasync"]
    maintained = server.manage("maintain", "--once", under=[*strace, "-o", str(trace)])
    assert (maintained.returncode, maintained.stderr) == (0, "")
    assert _bytes_of(folder) < stored / 4
    syncs = len(trace.read_text().splitlines())
    assert syncs < 200, "the space is to be given back many pages at a time"


def _store_rows(path: Path) -> None:
    """Fill the one library with rows of which each has a text of 600 bytes, as fast as SQLite can."""
    vectors = np.random.default_rng(0).normal(size=(ROWS, 8)).astype("<f4")
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        database.execute("PRAGMA synchronous=OFF")
        (key,) = database.execute("SELECT id FROM vectordb_library").fetchone()
        now = "2024-01-01 00:00:00"
        database.executemany(
            "INSERT INTO vectordb_document (id, library_id, public_id, title, source, metadata, created_at, updated_at)"
            " VALUES (?1, ?2, 'd' || ?1, '', '', '{}', ?3, ?3)",
            [(i, key, now) for i in range(DOCUMENTS)],
        )
        database.executemany(
            "INSERT INTO vectordb_chunk"
            " (id, library_id, document_id, public_id, text, metadata, position, created_at, updated_at)"
            " VALUES (?1, ?2, ?3, 'c' || ?1, hex(zeroblob(300)), '{}', ?1, ?4, ?4)",
            [(i, key, i % DOCUMENTS, now) for i in range(ROWS)],
        )
        database.executemany(
            "INSERT INTO vectordb_embedding (chunk_id, generation, vector) VALUES (?, 1, ?)",
            [(i, vector.tobytes()) for i, vector in enumerate(vectors)],
        )


def _peak_memory(pid: int) -> int:
    """The most memory, in bytes, that a process has had since its peak was reset."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found
    return int(found[1]) * 1024


def _bytes_of(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.iterdir())


class Disk:
    """The disk under a data folder: a small one of its own where the tests may mount one.

    Elsewhere it is filled by a limit on the size of the workers' files, which their writes meet in the same places.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(folder)]
        self.is_mounted = subprocess.run(mount, check=False, capture_output=True).returncode == 0
        self._folder = folder
        self._ballast = folder / "ballast"

    def fill(self, server: Server) -> None:
        """Leave no room at all."""
        if self.is_mounted:
            with contextlib.suppress(OSError), self._ballast.open("wb", buffering=0) as file:
                while file.write(bytes(4096)):
                    pass
        else:
            files = [file for file in self._folder.iterdir() if not file.name.endswith("-reserve")]
            self._limit(server, max(file.stat().st_size for file in files))

    def make_room(self, server: Server) -> None:
        """Undo `fill`."""
        if self.is_mounted:
            self._ballast.unlink()
        else:
            self._limit(server, psutil.RLIM_INFINITY)

    def _limit(self, server: Server, size: int) -> None:
        for worker in server.workers():
            worker.rlimit(psutil.RLIMIT_FSIZE, (size, psutil.RLIM_INFINITY))

    def unmount(self) -> None:
        if self.is_mounted:
            subprocess.run(["umount", "--lazy", str(self._folder)], check=True)


@pytest.fixture
def disk(folder: Path) -> Iterator[Disk]:
    """The disk under `folder`."""
    disk = Disk(folder)
    yield disk
    disk.unmount()


def test_a_full_disk_refuses_writes_and_loses_nothing(folder: Path, disk: Disk) -> None:
    with serving(folder) as server:
        with server.client() as client:
            library = {"id": "a", "name": "A", "dimension": 64, "metric": "euclidean"}
            client.post("/libraries", json=library).raise_for_status()
            writer = Writer(client)
            while len(writer.stored) < 5 * Writer.ROWS:
                assert writer.write().status_code == 200
            disk.fill(server)
            refused = [answer for answer in (writer.write() for _ in range(40)) if answer.status_code != 200]
            assert len(refused) > 20
            for answer in refused:
                assert answer.status_code == 503
                assert int(answer.headers["Retry-After"]) > 0
                assert answer.json()["code"] in ("disk_full", "database_unavailable")
            assert not disk.is_mounted or "disk_full" in {answer.json()["code"] for answer in refused}
            assert client.get("/libraries/a").status_code == 200
            writer.assert_all_is_there()
            disk.make_room(server)
            assert writer.write().status_code == 200
            writer.assert_all_is_there()
            with contextlib.closing(sqlite3.connect(folder / "vectordb.sqlite3")) as database:
                assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        server.kill()
        server.start()
        with server.client() as client:
            Writer(client, writer.stored).assert_all_is_there()


class Writer:
    """Writes batches, and knows which were acknowledged."""

    ROWS = 50

    def __init__(self, client: httpx.Client, stored: dict[str, list[float]] | None = None) -> None:
        self._client = client
        self._random = np.random.default_rng(1)
        self._numbers = itertools.count()
        self.stored = stored or {}

    def write(self) -> httpx.Response:
        """Write one batch of some 100 KB; answers what the server said."""
        vectors = self._random.integers(1, 1 << 20, (self.ROWS, 64)).astype(float).tolist()
        batch = {str(next(self._numbers)): vector for vector in vectors}
        chunks: list[dict[str, Any]] = [{"id": i, "text": "x" * 2000, "embedding": row} for i, row in batch.items()]
        answer = self._client.post("/libraries/a/chunks", json={"chunks": chunks})
        if answer.status_code == 200:
            self.stored |= batch
        return answer

    def assert_all_is_there(self) -> None:
        """What was acknowledged is found by its vector, and nothing else is stored."""
        items = list(self.stored.items())
        for start in range(0, len(items), 256):
            some = items[start : start + 256]
            queries = [{"vector": vector, "k": 1} for _, vector in some]
            answer = self._client.post("/libraries/a/query/batch", json={"queries": queries}).raise_for_status()
            nearest = [result for one in answer.json()["results"] for result in one["results"]]
            assert [(row["id"], row["distance"]) for row in nearest] == [(chunk_id, 0) for chunk_id, _ in some]
        count = self._client.post("/libraries/a/chunks/count", json={}).raise_for_status().json()
        assert count == {"count": len(items)}
