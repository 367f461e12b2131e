"""kill -9 of all processes while clients write: what was acknowledged is there, and no batch is half there."""

import contextlib
import random
import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.server import Server, serving

pytestmark = pytest.mark.sqlite

CRASHES = 6
CLIENTS = 4
ROWS_PER_BATCH = 8
LIBRARY = "crashes"

Batch = dict[str, list[float]]


class Client:
    """Writes batches one after the other, new ones and ones over old rows, and knows which were acknowledged.

    The vectors are whole numbers, so that no two rows have the same one and a row is found by its vector at distance 0.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._random = random.Random(name)
        self._written = 0
        self.stored: Batch = {}
        self.unanswered: Batch = {}

    def write_until_the_crash(self, server: Server) -> None:
        """Write until the connection breaks; the batch of that moment is the one that got no answer."""
        with server.client() as client:
            while True:
                self.unanswered = self._batch()
                chunks = [{"id": chunk_id, "embedding": vector} for chunk_id, vector in self.unanswered.items()]
                try:
                    response = client.post(f"/libraries/{LIBRARY}/chunks", json={"chunks": chunks})
                except httpx.TransportError:
                    return
                assert response.status_code == 200, response.text
                self.stored |= self.unanswered
                self.unanswered = {}

    def _batch(self) -> Batch:
        self._written += 1
        # Every other batch goes over the rows of one of ten earlier ones.
        slot = f"old-{self._random.randrange(10)}" if self._written % 2 else f"new-{self._written}"
        return {f"{self._name}:{slot}:{row}": self._vector() for row in range(ROWS_PER_BATCH)}

    def _vector(self) -> list[float]:
        return [float(self._random.randrange(1, 1 << 20)) for _ in range(8)]

    def settle(self, client: httpx.Client) -> None:
        """Look whether the batch without an answer is there: all of it, or nothing."""
        if self.unanswered:
            before = {chunk_id: self.stored[chunk_id] for chunk_id in self.unanswered if chunk_id in self.stored}
            found = read(client, list(self.unanswered))
            assert found in (before, self.unanswered)
            self.stored |= found
            self.unanswered = {}


def read(client: httpx.Client, ids: list[str]) -> Batch:
    """Those of the chunks that are there, with their vectors."""
    body = {"ids": ids, "include": ["embedding"]}
    answer = client.post(f"/libraries/{LIBRARY}/chunks/get", json=body).raise_for_status().json()
    return {item["id"]: item["embedding"] for item in answer["items"]}


def assert_found_by_vector(client: httpx.Client, rows: Batch) -> None:
    """Each row is the nearest to its own vector."""
    items = list(rows.items())
    for start in range(0, len(items), 256):
        some = items[start : start + 256]
        queries = [{"vector": vector, "k": 1, "include": []} for _, vector in some]
        answer = client.post(f"/libraries/{LIBRARY}/query/batch", json={"queries": queries}).raise_for_status().json()
        nearest: list[Any] = [result for one in answer["results"] for result in one["results"]]
        assert [(row["id"], row["distance"]) for row in nearest] == [(chunk_id, 0) for chunk_id, _ in some]


def crash(server: Server, chance: random.Random) -> None:
    """Let the clients write for a while, then kill all processes: at once, or one by one in any order."""
    try:
        time.sleep(chance.uniform(0.05, 0.5))
        processes = server.processes() if chance.random() < 0.5 else []
        chance.shuffle(processes)
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
    finally:
        server.kill()


def test_acknowledged_writes_survive_kill_9(folder: Path) -> None:
    chance = random.Random(20)
    clients = [Client(f"client-{i}") for i in range(CLIENTS)]
    with serving(folder, VECTORDB_THREADS=2) as server, ThreadPoolExecutor(CLIENTS) as pool:
        with server.client() as client:
            library = {"id": LIBRARY, "name": "Crashes", "dimension": 8, "metric": "euclidean"}
            client.post("/libraries", json=library).raise_for_status()
        for _ in range(CRASHES):
            known = {chunk_id for client in clients for chunk_id in client.stored}
            writing = [pool.submit(client.write_until_the_crash, server) for client in clients]
            crash(server, chance)
            for future in writing:
                future.result()
            server.start()
            with server.client() as reader:
                for client in clients:
                    client.settle(reader)
                stored = {chunk_id: vector for client in clients for chunk_id, vector in client.stored.items()}
                assert_found_by_vector(reader, {i: stored[i] for i in stored if i not in known or ":old-" in i})
                count = reader.post(f"/libraries/{LIBRARY}/chunks/count", json={}).raise_for_status().json()
                assert count == {"count": len(stored)}
            with contextlib.closing(sqlite3.connect(folder / "vectordb.sqlite3")) as database:
                assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        with server.client() as reader:
            assert_found_by_vector(reader, stored)
    assert len(stored) > CRASHES * ROWS_PER_BATCH
