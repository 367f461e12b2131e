"""Index files that are lost or damaged, with the server stopped or running, and a full disk: the answers are right,
nothing crashes, and the files are rebuilt by themselves."""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from apps.engine.indexes.registry import INDEX_TYPES
from apps.engine.storage.manifest import FORMAT
from tests.operations.stored_libraries import (
    Library,
    assert_equal_to_the_database,
    assert_nothing_crashed,
    large,
    reported_damage,
)
from tests.server import Server, serving, until

pytestmark = pytest.mark.sqlite

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
# Of each type, first a file that gets three kinds of damage, then files that get one. Together they are all there are.
FILES = {
    "brute_force": "exact/planes.npy mask exact/numbers.npy exact/mean.npy exact/longest.npy exact/norms.npy",
    "kd_tree": "index/points.npy index/boxes.npy index/order.npy keys.npy vectors.npy content/columns/columns.npy",
    "lsh": "index/signatures.npy index/recall.json index/frame.npy index/signs.npy index/starts.npy index/rows.npy",
    "quantized": "index/codes.bin index/codes.json index/copies.npy content/columns/columns.json"
    " content/words/tokens.npy content/words/ends.npy",
    "hnsw": "index/graph.faiss index/graph.json index/copies.npy content/words/words.npy content/words/frequencies.npy"
    " content/words/rows.npy",
    "ivf": "index/lists.npy index/lists.json index/centres.npy index/pieces.npy content/words/lengths.npy vectors.npy",
}
# So many libraries of each type have a damaged file at a time, and so many times.
AT_ONCE, ROUNDS = 5, 2


def damages_of(kind: str) -> list[tuple[str, Damage]]:
    """What is done to libraries of an index type: the name of a file, and its damage."""
    first, *others = FILES[kind].split()
    turn = list(FILES).index(kind)
    once = [(name, DAMAGES[(number + turn) % len(DAMAGES)]) for number, name in enumerate(others)]
    manifest = [("manifest.json", _of_another_version), ("manifest.json", _all_of_another_library)]
    return [*once, *((first, DAMAGES[(3 * turn + number) % len(DAMAGES)]) for number in range(3)), *manifest]


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
    damage. One library of each type stays as it is."""
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


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server whose workers keep connections, for the tests that leave it running and its libraries built."""
    with serving(tmp_path_factory.mktemp("running") / "data", VECTORDB_THREADS=2) as server:
        yield server


@pytest.fixture(scope="module")
def made(running: Server) -> list[Library]:
    """A library of each type."""
    with running.client() as client:
        return [large(client, kind, kind) for kind in INDEX_TYPES]


@pytest.fixture
def libraries(running: Server, made: list[Library]) -> list[Library]:
    """The same, built, and open in both workers."""
    with running.clients_of_each_worker(1) as clients:
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
            library.write(clients[0], 20, first=10_000 + len(library.rows))
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


def test_the_whole_folder_may_be_removed_while_the_server_runs(
    running: Server, libraries: list[Library], tmp_path: Path
) -> None:
    since = len(running.log.read_text())
    # At once: maintenance may be sweeping it.
    (running.folder / "index").rename(tmp_path / "removed")
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
