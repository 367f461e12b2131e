"""Maintenance that is killed while it seals and merges leaves nothing wrong."""

import contextlib
import random
import sqlite3
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from apps.engine.indexes.registry import INDEX_TYPES
from tests.operations.stored_libraries import (
    DIMENSION,
    Library,
    assert_equal_to_the_database,
    assert_nothing_crashed,
    half_done,
)
from tests.server import Server, serving, until

pytestmark = pytest.mark.sqlite

KILLS_OF_MAINTENANCE, KILLS_OF_ALL = 20, 3

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
    """A person who writes to the database directly, and asks for indexes to be rebuilt."""

    def __init__(self, server: Server) -> None:
        self._database = sqlite3.connect(server.folder / "vectordb.sqlite3", isolation_level=None, timeout=30)
        self._rng = np.random.default_rng(3)

    def change(self, library: Library, rebuild: bool) -> None:
        """Give enough rows another vector for maintenance to seal them at once, and delete one."""
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
    """The number of segments and manifests, unfinished ones too."""
    return sum(1 for _ in (server.folder / "index").glob("*/*/*"))


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
        assert half_done(server) > 2, "few were killed while they wrote"
        assert_equal_to_the_database(server)
        server.start()
        with server.client() as client:
            until(lambda: all(library.is_built(client) for library in libraries), "all are built")
        assert server.stop() == 0
        assert_equal_to_the_database(server)
        assert_nothing_crashed(server)
