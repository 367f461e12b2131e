"""Index files that are lost, damaged or half written, with the server stopped or running: the answers are right,
nothing crashes, and the files are rebuilt by themselves."""

import contextlib
import os
import random
import re
import shutil
import sqlite3
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pytest

from apps.engine.indexes.registry import INDEX_TYPES
from apps.engine.storage.manifest import FORMAT
from apps.engine.vectors import Float32
from tests.api.vectors import base64_of
from tests.engine.approximate import embeddings
from tests.server import Server, serving, until

pytestmark = pytest.mark.sqlite

DIMENSION = 8
# So many dimensions and rows that every type makes what it makes for many rows, and there is a copy in 8-bit codes.
LARGE_DIMENSION = 32
LARGE_ROWS = {"brute_force": 530, "kd_tree": 530, "lsh": 530, "quantized": 2050, "hnsw": 6200}
# A graph that is built quickly.
LARGE_PARAMS = {"hnsw": {"m": 8, "ef_construction": 16}}
ROWS_PER_WRITE = 2000
KILLS_OF_MAINTENANCE, KILLS_OF_ALL = 44, 6


@dataclass
class Library:
    """A library whose vectors are whole numbers, so that a row is at distance 0 of its own vector and of no other."""

    id: str
    dimension: int = DIMENSION
    rows: dict[str, Float32] = field(default_factory=dict)

    @property
    def path(self) -> str:
        return f"/libraries/{self.id}"

    def create(self, client: httpx.Client, **settings: Any) -> "Library":
        body = {"id": self.id, "name": "Files", "dimension": self.dimension, "metric": "euclidean"}
        client.post("/libraries", json=body | settings).raise_for_status()
        return self

    def write(self, client: httpx.Client, count: int, first: int = 0) -> None:
        """Write the rows numbered from `first` on."""
        vectors = np.rint(embeddings(count, self.dimension, seed=first) * np.float32(1 << 20))
        rows = {str(first + i): vector for i, vector in enumerate(vectors)}
        texts = [f"row {i}" + " again" * (i % 3) for i in range(first, first + count)]
        chunks = [
            {"id": i, "text": text, "embedding": base64_of(vector)}
            for (i, vector), text in zip(rows.items(), texts, strict=True)
        ]
        for start in range(0, count, ROWS_PER_WRITE):
            some = {"chunks": chunks[start : start + ROWS_PER_WRITE]}
            client.post(f"{self.path}/chunks", json=some).raise_for_status()
        self.rows |= rows

    def delete(self, client: httpx.Client, row: str) -> None:
        client.delete(f"{self.path}/chunks/{row}").raise_for_status()
        del self.rows[row]

    def build(self, client: httpx.Client) -> None:
        """Ask for the index to be built."""
        client.post(f"{self.path}/reindex", json={}).raise_for_status()

    def index(self, client: httpx.Client) -> dict[str, Any]:
        index: dict[str, Any] = client.get(f"{self.path}/stats").raise_for_status().json()["index"]
        return index

    def is_built(self, client: httpx.Client) -> bool:
        index = self.index(client)
        assert index["state"] != "failed", index["error"]
        return index["state"] == "ready" and not index["rows_pending"]

    def assert_answers(self, client: httpx.Client) -> None:
        """Exact answers are right, others are sound."""
        ids, matrix = list(self.rows), np.array(list(self.rows.values()), np.float64)
        chosen = random.Random(len(ids)).sample(ids, min(len(ids), 12))
        queries = [{"vector": self.rows[i].tolist(), "k": 5, "exact": True, "include": []} for i in chosen]
        answer = client.post(f"{self.path}/query/batch", json={"queries": queries}).raise_for_status().json()
        for one, query in zip(answer["results"], queries, strict=True):
            nearest = np.argsort(np.linalg.norm(matrix - query["vector"], axis=1), kind="stable")[:5]
            assert [result["id"] for result in one["results"]] == [ids[i] for i in nearest]
            assert one["results"][0]["distance"] == 0
        found = client.post(f"{self.path}/query", json={"vector": queries[0]["vector"], "k": 5}).raise_for_status()
        assert len(found.json()["results"]) == 5
        assert {result["id"] for result in found.json()["results"]} <= set(ids)

    def folder(self, server: Server) -> Path:
        """Where the index files are."""
        with contextlib.closing(sqlite3.connect(server.folder / "vectordb.sqlite3")) as database:
            (uid,) = database.execute("SELECT uid FROM vectordb_library WHERE public_id = ?", [self.id]).fetchone()
        return server.folder / "index" / uid

    def manifest(self, server: Server) -> int:
        """The number of the newest manifest; 0 where there is none."""
        folder = self.folder(server) / "manifests"
        numbers = [int(path.name) for path in folder.iterdir() if path.name.isdecimal()] if folder.exists() else []
        return max(numbers, default=0)

    def files(self, server: Server) -> list[Path]:
        """The files of the newest manifest and of its segments."""
        folder, number = self.folder(server), self.manifest(server)
        own = sorted((folder / "manifests" / str(number)).iterdir())
        names = set(re.findall(r'"name":"([0-9a-f]+)"', own[-1].read_text()))
        assert own[-1].name == "manifest.json"
        parts = [path for name in sorted(names) for path in sorted((folder / "segments" / name).rglob("*"))]
        return [path for path in [*own, *parts] if path.is_file()]

    def named_files(self, server: Server) -> dict[str, Path]:
        """The same by what they are, where there is one segment: their paths in its folder, and `manifest.json` and
        `mask`."""
        files = self.files(server)
        named = {_name(path): path for path in files}
        assert len(named) == len(files)
        return named


def large(client: httpx.Client, name: str, kind: str, first: int = 0) -> Library:
    """A library of an index type with all files that the type has, about to be built."""
    library = Library(name, LARGE_DIMENSION).create(client, index_type=kind, index_params=LARGE_PARAMS.get(kind, {}))
    library.write(client, LARGE_ROWS[kind], first)
    library.build(client)
    return library


def _name(path: Path) -> str:
    if "manifests" in path.parts:
        return path.name if path.suffix == ".json" else "mask"
    return "/".join(path.parts[path.parts.index("segments") + 2 :])


def assert_equal_to_the_database(server: Server) -> None:
    verified = server.manage("verify_index", "--sample", "10")
    assert verified.returncode == 0, verified.stdout + verified.stderr
    assert "DIFFER" not in verified.stdout


def reported_damage(server: Server, since: int = 0) -> Counter[str]:
    """How many lines the log has about damaged files of each library, past `since` characters."""
    return Counter(re.findall(r"WARNING apps\.search\S* .*?index of library (\S+): ", server.log.read_text()[since:]))


def assert_nothing_crashed(server: Server) -> None:
    log = server.log.read_text()
    assert not [word for word in ("Traceback", "ERROR", "CRITICAL", "SIGBUS", "SIGSEGV") if word in log], log


# Done to a file of a library; the other file is the same one of a sound library.
Damage = Callable[[Path, Path], None]


def _cut_in_half(path: Path, other: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def _emptied(path: Path, other: Path) -> None:
    os.truncate(path, 0)


def _flipped(path: Path, at: float) -> None:
    content = bytearray(path.read_bytes())
    content[int(at * (len(content) - 1))] ^= 1
    path.write_bytes(content)


def _flipped_at_the_start(path: Path, other: Path) -> None:
    _flipped(path, 0)


def _flipped_in_the_middle(path: Path, other: Path) -> None:
    _flipped(path, 0.5)


def _flipped_at_the_end(path: Path, other: Path) -> None:
    _flipped(path, 1)


def _removed(path: Path, other: Path) -> None:
    path.unlink()


def _of_another_library(path: Path, other: Path) -> None:
    assert path.read_bytes() != other.read_bytes()
    shutil.copyfile(other, path)


def _all_of_another_library(manifest: Path, other: Path) -> None:
    shutil.rmtree(manifest.parents[2])
    shutil.copytree(other.parents[2], manifest.parents[2])


def _of_another_version(manifest: Path, other: Path) -> None:
    before = manifest.read_bytes()
    after = before.replace(b'"format":%d' % FORMAT, b'"format":%d' % (FORMAT + 1))
    assert after != before
    manifest.write_bytes(after)


def _not_to_be_read(path: Path, other: Path) -> None:
    # root may read it all the same, so it is a folder for root.
    path.chmod(0)
    if os.geteuid() == 0:
        path.unlink()
        path.mkdir(mode=0)


DAMAGES: list[Damage] = [
    _cut_in_half,
    _emptied,
    _flipped_at_the_start,
    _flipped_in_the_middle,
    _flipped_at_the_end,
    _removed,
    _of_another_library,
    _not_to_be_read,
]
# Of each type, first a file that gets every kind of damage, then files that get one. Together they are all there are.
FILES = {
    "brute_force": "exact/planes.npy mask exact/numbers.npy exact/mean.npy exact/longest.npy exact/norms.npy",
    "kd_tree": "index/points.npy index/boxes.npy index/order.npy keys.npy vectors.npy content/columns/columns.npy",
    "lsh": "index/signatures.npy index/frame.npy index/signs.npy index/starts.npy index/rows.npy"
    " content/words/lengths.npy",
    "quantized": "index/codes.faiss index/codes.json index/copies.npy content/columns/columns.json"
    " content/words/tokens.npy content/words/ends.npy",
    "hnsw": "index/graph.faiss index/graph.json index/copies.npy content/words/words.npy content/words/frequencies.npy"
    " content/words/rows.npy",
}
# So many libraries of each type have a damaged file at a time, and so many times.
AT_ONCE, ROUNDS = 5, 3


def damages_of(kind: str) -> list[tuple[str, Damage]]:
    """What is done to libraries of an index type: the name of a file, and its damage."""
    first, *others = FILES[kind].split()
    turn = list(FILES).index(kind)
    once = [(name, DAMAGES[(number + turn) % len(DAMAGES)]) for number, name in enumerate(others)]
    manifest = [("manifest.json", _of_another_version), ("manifest.json", _all_of_another_library)]
    return [*once, *((first, damage) for damage in DAMAGES), *manifest]


def assert_only_rebuilt(server: Server, damaged: list[Library], libraries: list[Library]) -> None:
    """When the server is started, all libraries answer; the files of the damaged ones are rebuilt, and one line of
    the log tells of each."""
    before = {library.id: library.manifest(server) for library in libraries}
    since = len(server.log.read_text())
    server.start()
    with server.clients_of_each_worker(1) as clients:
        for library in libraries:
            for client in clients:
                library.assert_answers(client)
        until(lambda: all(one.manifest(server) > before[one.id] for one in damaged), "files are new")
        until(lambda: all(one.is_built(clients[0]) for one in libraries), "all are built")
        for library in libraries:
            for client in clients:
                library.assert_answers(client)
    reported = reported_damage(server, since)
    assert set(reported) == {library.id for library in damaged}
    assert max(reported.values()) == 1, "two workers and maintenance open a library, and who finds it first tells"


def test_files_that_are_damaged_while_the_server_is_stopped_are_rebuilt(folder: Path) -> None:
    """Each time, some libraries have one damaged file each: in the end there was every kind of file, and every kind of
    damage to each index type. One library of each type stays as it is."""
    with serving(folder, VECTORDB_THREADS=2) as server:
        with server.client() as client:
            victims = {kind: [large(client, f"{kind}-{i}", kind) for i in range(AT_ONCE)] for kind in INDEX_TYPES}
            sound = {kind: large(client, f"{kind}-sound", kind, first=10_000) for kind in INDEX_TYPES}
            damaged = [library for some in victims.values() for library in some]
            libraries = [*damaged, *sound.values()]
            until(lambda: all(library.is_built(client) for library in libraries), "all are built")
            before = {library.id: library.manifest(server) for library in libraries}
            for library in libraries:
                library.delete(client, next(iter(library.rows)))
            # A quiet library is sealed, with the mask of its dead row.
            until(lambda: all(one.manifest(server) > before[one.id] for one in libraries), "masks are there")
        seen: set[str] = set()
        for turn in range(ROUNDS):
            assert server.stop() == 0
            for kind in INDEX_TYPES:
                damages = damages_of(kind)
                assert len(damages) == AT_ONCE * ROUNDS
                others = sound[kind].named_files(server)
                for library, (name, damage) in zip(victims[kind], damages[turn * AT_ONCE :], strict=False):
                    files = library.named_files(server)
                    assert {*files, "mask"} == {*others, "mask"}, "all of its files have been rebuilt"
                    damage(files[name], others[name])
                    seen.add(name)
            assert_only_rebuilt(server, damaged, libraries)
        assert seen == {name for one in sound.values() for name in one.named_files(server)}
        assert server.stop() == 0
        since = len(server.log.read_text())
        assert_equal_to_the_database(server)
        server.start()
        with server.client() as client:
            for library in libraries:
                library.assert_answers(client)
        assert reported_damage(server, since) == {}
        assert_nothing_crashed(server)


@pytest.fixture
def running(folder: Path) -> Iterator[Server]:
    """A server whose workers keep connections."""
    with serving(folder, VECTORDB_THREADS=2) as server:
        yield server


@pytest.fixture
def libraries(running: Server) -> list[Library]:
    """A library of each type, built, and open in both workers."""
    with running.clients_of_each_worker(1) as clients:
        made = [large(clients[0], kind, kind) for kind in INDEX_TYPES]
        until(lambda: all(library.is_built(clients[0]) for library in made), "all are built")
        for library in made:
            for client in clients:
                library.assert_answers(client)
    return made


def replace_by_noise(path: Path) -> None:
    """Put another file of the same size in the place of one; who has mapped it keeps the old one."""
    path.with_suffix(".other").write_bytes(os.urandom(path.stat().st_size))
    path.with_suffix(".other").replace(path)


def assert_rebuilt(server: Server, libraries: list[Library]) -> None:
    """All libraries answer, also after a write and after a new start; their files are rebuilt meanwhile."""
    before = {library.id: library.manifest(server) for library in libraries}
    with server.clients_of_each_worker(1) as clients:
        for library in libraries:
            for client in clients:
                library.assert_answers(client)
            # A library that nobody writes to is looked at once a minute.
            library.write(clients[0], 20, first=10_000)
            for client in clients:
                library.assert_answers(client)
        until(lambda: all(library.manifest(server) > before[library.id] for library in libraries), "files are new")
        until(lambda: all(library.is_built(clients[0]) for library in libraries), "all are built")
        for library in libraries:
            for client in clients:
                library.assert_answers(client)
    assert server.stop() == 0
    assert_equal_to_the_database(server)
    since = len(server.log.read_text())
    server.start()
    with server.client() as client:
        for library in libraries:
            library.assert_answers(client)
    assert reported_damage(server, since) == {}
    assert_nothing_crashed(server)


def test_the_whole_folder_may_be_removed_while_the_server_runs(running: Server, libraries: list[Library]) -> None:
    since = len(running.log.read_text())
    shutil.rmtree(running.folder / "index")
    assert_rebuilt(running, libraries)
    log = running.log.read_text()[since:]
    for library in libraries:
        assert log.count(f"index of library {library.id}: files are gone; they are rebuilt") == 1


def test_files_may_be_removed_or_replaced_while_the_server_runs(running: Server, libraries: list[Library]) -> None:
    for number, library in enumerate(libraries):
        for place, path in enumerate(library.files(running)):
            if (number + place) % 2:
                path.unlink()
            else:
                replace_by_noise(path)
    assert_rebuilt(running, libraries)


def test_files_that_are_damaged_before_a_worker_opens_them_are_rebuilt(running: Server) -> None:
    """Maintenance has opened them before, and notices that they are others now."""
    with running.clients_of_each_worker(1) as (first, second):
        library = Library("late").create(first, index_type="brute_force")
        library.write(first, 500)
        library.build(first)
        until(lambda: library.is_built(first), "it is built")
        for path in library.files(running):
            if path.name == "vectors.npy":
                replace_by_noise(path)
        before = library.manifest(running)
        for client in (first, second):
            library.assert_answers(client)
        library.write(first, 20, first=10_000)
        until(lambda: library.manifest(running) > before, "files are rebuilt")
        for client in (first, second):
            library.assert_answers(client)
    assert_nothing_crashed(running)


class IndexDisk:
    """The disk under the index files: a small one of its own where the tests may mount one.

    Elsewhere it is filled by a limit on the size of the files that maintenance writes.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "index"
        self._folder.mkdir(parents=True)
        mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(self._folder)]
        self._is_mounted = subprocess.run(mount, check=False, capture_output=True).returncode == 0

    def fill(self, server: Server) -> None:
        if self._is_mounted:
            with contextlib.suppress(OSError), (self._folder / "ballast").open("wb", buffering=0) as file:
                while file.write(bytes(4096)):
                    pass
        else:
            self._limit(server, 100)

    def make_room(self, server: Server) -> None:
        if self._is_mounted:
            (self._folder / "ballast").unlink()
        else:
            self._limit(server, psutil.RLIM_INFINITY)

    def _limit(self, server: Server, size: int) -> None:
        until(server.maintenance, "maintenance runs")
        for process in server.maintenance():
            process.rlimit(psutil.RLIMIT_FSIZE, (size, psutil.RLIM_INFINITY))

    def unmount(self) -> None:
        if self._is_mounted:
            subprocess.run(["umount", "--lazy", str(self._folder)], check=True)


@pytest.fixture
def disk(folder: Path) -> Iterator[IndexDisk]:
    """The disk under the index files of `folder`."""
    disk = IndexDisk(folder)
    yield disk
    disk.unmount()


def test_a_full_disk_is_reported_and_harms_neither_reads_nor_writes(folder: Path, disk: IndexDisk) -> None:
    with serving(folder) as server, server.client() as client:
        library = Library("full").create(client)
        library.write(client, 100)
        library.build(client)
        until(lambda: library.is_built(client), "it is built")
        disk.fill(server)
        library.write(client, 5000, first=1000)
        until(lambda: library.index(client)["state"] == "failed", "the failure is reported")
        assert library.index(client)["error"]
        library.assert_answers(client)
        library.write(client, 10, first=20_000)
        library.delete(client, "1000")
        library.assert_answers(client)
        disk.make_room(server)
        until(lambda: library.index(client)["state"] == "ready", "it is built, by itself")
        index = library.index(client)
        assert (index["error"], index["rows_pending"], index["rows_indexed"]) == (None, 0, len(library.rows))
        library.assert_answers(client)
        assert server.stop() == 0
        assert_equal_to_the_database(server)


# Forks a maintenance process for each line that it reads, and says when that has ended: so it starts at once.
MAINTAIN = """
import os, sys
import django
django.setup()
from django.core.management import call_command
from apps.engine import kernels
kernels.load()
for _ in sys.stdin:
    child = os.fork()
    if not child:
        call_command("maintain")
    print(child, flush=True)
    os.waitpid(child, 0)
    print("ended", flush=True)
"""


class Shell:
    """Somebody who writes to the database directly, and has_checkpoints for indexes to be rebuilt."""

    def __init__(self, server: Server) -> None:
        self._database = sqlite3.connect(server.folder / "vectordb.sqlite3", isolation_level=None, timeout=30)
        self._rng = np.random.default_rng(3)

    def change(self, library: Library, rebuild: bool) -> None:
        """Give so many rows another vector that they are sealed at once, and delete one."""
        self._database.execute("BEGIN IMMEDIATE")
        joined = "vectordb_chunk AS chunk JOIN vectordb_library AS library ON library.id = library_id"
        of_library = f"SELECT chunk.id FROM {joined} WHERE library.public_id = ?"
        keys = self._rng.permutation([key for (key,) in self._database.execute(of_library, [library.id])])
        vectors = self._rng.integers(1, 1 << 20, (4200, DIMENSION)).astype("<f4")
        changes = [(vector.tobytes(), int(key)) for vector, key in zip(vectors, keys, strict=False)]
        self._database.executemany("UPDATE vectordb_embedding SET vector = ? WHERE chunk_id = ?", changes)
        self._database.execute("DELETE FROM vectordb_chunk WHERE id = ?", [int(keys[0])])
        if rebuild:
            self._database.execute("UPDATE vectordb_library SET rebuild = rebuild + 1")
        self._database.execute("COMMIT")

    def close(self) -> None:
        self._database.close()


def wait_for_some_instant(server: Server, chance: random.Random, most: int) -> None:
    """Wait until maintenance has begun some of its next segments and manifests, and then for as long as it may take to
    write one, or to build one."""
    before, more = entries(server), chance.randint(1, most)
    deadline = time.monotonic() + 10
    while entries(server) < before + more and time.monotonic() < deadline:
        time.sleep(0.0005)
    time.sleep(chance.choice([0.002, 0.01, 0.3]) * chance.random())


def entries(server: Server) -> int:
    """How many segments and manifests there are, half done ones too."""
    return sum(1 for _ in (server.folder / "index").glob("*/*/*"))


def half_done(server: Server) -> int:
    """How many segments and manifests are there that nobody has finished."""
    folders = [path for path in (server.folder / "index").iterdir() if (path / "manifests").exists()]
    manifests = [path for folder in folders for path in (folder / "manifests").iterdir()]
    named = "".join((path / "manifest.json").read_text() for path in manifests if path.name.isdecimal())
    segments = [path.name for folder in folders for path in (folder / "segments").iterdir()]
    return sum(name not in named for name in segments) + sum(not path.name.isdecimal() for path in manifests)


def test_what_is_killed_at_any_instant_of_sealing_and_merging_leaves_nothing_wrong(folder: Path) -> None:
    chance = random.Random(50)
    with serving(folder) as server, contextlib.ExitStack() as stack:
        shell = Shell(server)
        stack.callback(shell.close)
        with server.client() as client:
            libraries = [Library(kind).create(client, index_type=kind) for kind in ("auto", [*INDEX_TYPES][-1])]
            for library in libraries:
                library.write(client, 6500)
        for _ in range(KILLS_OF_ALL):
            shell.change(chance.choice(libraries), rebuild=True)
            wait_for_some_instant(server, chance, most=4)
            server.kill()
            server.start()
        server.kill()
        with server.python(MAINTAIN) as maintain:
            assert maintain.stdin is not None
            assert maintain.stdout is not None
            for _ in range(KILLS_OF_MAINTENANCE):
                rebuild = chance.random() < 0.5
                shell.change(chance.choice(libraries), rebuild)
                print(file=maintain.stdin, flush=True)
                process = psutil.Process(int(maintain.stdout.readline()))
                # What is sealed is a segment and a manifest; of a rebuild, a merge makes another of each.
                wait_for_some_instant(server, chance, most=4 if rebuild else 2)
                process.kill()
                assert maintain.stdout.readline() == "ended\n"
            maintain.stdin.close()
        assert half_done(server) > 5, "few were killed while they wrote"
        assert_equal_to_the_database(server)
        server.start()
        with server.client() as client:
            until(lambda: all(library.is_built(client) for library in libraries), "all are built")
        assert server.stop() == 0
        assert_equal_to_the_database(server)
        assert_nothing_crashed(server)
