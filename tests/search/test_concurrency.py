"""Many clients at once: no request fails, every write is seen by the next read on another connection, and in the end
the server holds exactly what the clients' own models hold.

Each client writes chunks with ids of its own, so it knows at any time what the server must answer about them. Each
request is a connection of its own.
"""

import random
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import numpy as np
import pytest

from tests.server import Server, serving

SECONDS = 4.0
DIMENSION = 8
IDS_PER_CLIENT = 24
LIBRARY = "shared"
PAST = "2001-01-01T00:00:00Z"


class Row(NamedTuple):
    """A chunk as its writer knows it."""

    number: int
    vector: list[float]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Four workers of four threads."""
    with serving(tmp_path_factory.mktemp("running") / "data", VECTORDB_WORKERS=4, VECTORDB_THREADS=4) as server:
        yield server


@pytest.fixture
def server(running: Server) -> Iterator[Server]:
    """The same, with one library whose distances are plain to check."""
    with running.client() as client:
        library = {"id": LIBRARY, "name": "Shared", "dimension": DIMENSION, "metric": "euclidean"}
        client.post("/libraries", json=library).raise_for_status()
        yield running
        client.delete(f"/libraries/{LIBRARY}").raise_for_status()


class Client:
    """One of many: writes to chunks of its own, and reads them back."""

    def __init__(self, server: Server, number: int) -> None:
        self._name = f"client-{number}"
        self._random = random.Random(number)
        # Keeps no connection, so that any worker may get the next request.
        self._client = server.client(limits=httpx.Limits(max_keepalive_connections=0))
        self._number = 0
        self.rows: dict[str, Row] = {}

    def run(self, actions: list[Callable[["Client"], Any]], start: threading.Barrier) -> "Client":
        """Do one action after the other, for as long as the test lasts and at least ten."""
        with self._client:
            start.wait()
            ends = time.monotonic() + SECONDS
            done = 0
            while done < 10 or time.monotonic() < ends:
                self._random.choice(actions)(self)
                done += 1
        return self

    def upsert(self) -> list[str]:
        """Write some chunks, new or present; return their ids."""
        self._number += 1
        ids = self._random.sample(self._ids(), self._random.randint(1, 6))
        rows = {chunk_id: Row(self._number, self._vector()) for chunk_id in ids}
        answer = self._post("chunks", {"chunks": written(rows)})
        known = len(rows.keys() & self.rows.keys())
        assert answer == {"ids": ids, "created": len(ids) - known, "updated": known}
        self.rows |= rows
        return ids

    def upsert_and_read(self) -> None:
        """Write, then find what was written, by its vector."""
        for chunk_id in self.upsert()[:2]:
            nearest = self._query(self.rows[chunk_id].vector, k=1)[0]
            assert (nearest["id"], nearest["distance"]) == (chunk_id, 0)

    def delete(self) -> list[tuple[str, Row | None]]:
        """Delete some chunks, present or not; return what they were."""
        ids = self._random.sample(self._ids(), self._random.randint(1, 4))
        known = [chunk_id for chunk_id in ids if chunk_id in self.rows]
        assert self._post("chunks/delete", {"ids": ids}) == {"deleted": len(known)}
        return [(chunk_id, self.rows.pop(chunk_id, None)) for chunk_id in ids]

    def delete_and_read(self) -> None:
        """Delete, then look for what was deleted."""
        deleted = self.delete()
        for _, row in deleted[:2]:
            if row is not None:
                assert all(result["distance"] > 0 for result in self._query(row.vector, k=1))
        ids = [chunk_id for chunk_id, _ in deleted]
        assert self._post("chunks/get", {"ids": ids}) == {"items": [], "missing": ids}

    def expire_and_read(self) -> None:
        """Let chunks expire, present or not, or else the client's document; they are as if they were deleted."""
        if self._random.random() < 0.5:
            ids = self._random.sample(self._ids(), self._random.randint(1, 4))
            known = [chunk_id for chunk_id in ids if chunk_id in self.rows]
            update = {"ids": ids, "metadata": {}, "expires_at": PAST}
            assert self._post("chunks/update", update) == {"updated": len(known)}
        else:
            ids = self._ids_in_document()
            answer = self._client.patch(self._document(), json={"expires_at": PAST})
            assert answer.status_code == (200 if ids[0] in self.rows else 404)
        for chunk_id in ids:
            self.rows.pop(chunk_id, None)
        assert self._post("chunks/get", {"ids": ids}) == {"items": [], "missing": ids}

    def put_document(self) -> None:
        """Make the client's document, which may have expired, exactly this."""
        self._number += 1
        rows = {chunk_id: Row(self._number, self._vector()) for chunk_id in self._ids_in_document()}
        answer = self._client.put(self._document(), json={"chunks": written(rows)})
        assert answer.status_code == (200 if rows.keys() <= self.rows.keys() else 201)
        self.rows |= rows

    def query(self) -> None:
        """Query; results that are this client's own must be as it wrote them."""
        for result in self._query(self._vector(), k=50):
            assert not result["id"].startswith(f"{self._name}:") or result["id"] in self.rows

    def _query(self, vector: list[float], k: int) -> list[dict[str, Any]]:
        results = self._post("query", {"vector": vector, "k": k})["results"]
        for result in results:
            row = self.rows.get(result["id"])
            if row is not None:
                assert (result["text"], result["metadata"]) == (f"{row.number}", {"number": row.number})
                exact = np.linalg.norm(np.array(row.vector) - np.array(vector))
                assert result["distance"] == pytest.approx(exact, rel=1e-6)
        return list(results)

    def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        response = self._client.post(f"/libraries/{LIBRARY}/{path}", json=body)
        assert response.status_code == 200, response.text
        return dict(response.json())

    def _ids(self) -> list[str]:
        return [f"{self._name}:{i}" for i in range(IDS_PER_CLIENT)]

    def _ids_in_document(self) -> list[str]:
        return [f"{self._name}:in-document-{i}" for i in range(3)]

    def _document(self) -> str:
        return f"/libraries/{LIBRARY}/documents/{self._name}"

    def _vector(self) -> list[float]:
        """A vector that float32 holds exactly, and no other chunk has."""
        return [float(self._random.randrange(1 << 20)) for _ in range(DIMENSION)]


def written(rows: dict[str, Row]) -> list[dict[str, Any]]:
    """The chunks as they are sent."""
    return [
        {"id": chunk_id, "text": f"{row.number}", "metadata": {"number": row.number}, "embedding": row.vector}
        for chunk_id, row in rows.items()
    ]


def run_together(server: Server, clients: int, actions: list[Callable[[Client], Any]]) -> None:
    """Run that many clients at once; then compare the server with their models, worker by worker."""
    start = threading.Barrier(clients)
    with ThreadPoolExecutor(clients) as pool:
        runs = [pool.submit(Client(server, i).run, actions, start) for i in range(clients)]
        done = [run.result() for run in runs]
    expected = {chunk_id: row for client in done for chunk_id, row in client.rows.items()}
    assert stored(server) == expected
    for worker in range(4):
        assert found_by_vector(server, worker, expected) == expected.keys()
    assert_quiet(server)


def stored(server: Server) -> dict[str, Row]:
    """All chunks, as they are listed."""
    rows: dict[str, Row] = {}
    cursor = ""
    with server.client() as client:
        while cursor is not None:
            params = {"limit": 500, "include": ["metadata", "embedding"]} | ({"cursor": cursor} if cursor else {})
            page = client.get(f"/libraries/{LIBRARY}/chunks", params=params).raise_for_status().json()
            for item in page["items"]:
                rows[item["id"]] = Row(item["metadata"]["number"], item["embedding"])
            cursor = page["next_cursor"]
    return rows


def found_by_vector(server: Server, worker: int, rows: dict[str, Row]) -> set[str]:
    """Those of the chunks that one worker finds by their vectors."""
    found = set()
    items = list(rows.items())
    with server.clients_of_each_worker(1) as clients:
        for start in range(0, len(items), 256):
            some = items[start : start + 256]
            queries = [{"vector": row.vector, "k": 1, "include": []} for _, row in some]
            answer = clients[worker].post(f"/libraries/{LIBRARY}/query/batch", json={"queries": queries})
            for (chunk_id, _), nearest in zip(some, answer.raise_for_status().json()["results"], strict=True):
                if [(result["id"], result["distance"]) for result in nearest["results"]] == [(chunk_id, 0)]:
                    found.add(chunk_id)
    return found


def assert_quiet(server: Server) -> None:
    """The server logged no failure."""
    log = server.log.read_text()
    assert not [word for word in ("locked", "Traceback", "ERROR", "busy", "deadlock") if word in log], log


def test_a_hundred_clients_mixing_writes_deletes_and_queries(server: Server) -> None:
    actions = [Client.upsert_and_read, Client.upsert_and_read, Client.delete_and_read, Client.query, Client.query]
    run_together(server, 100, [*actions, Client.put_document, Client.expire_and_read])


def test_sixteen_clients_that_only_write(server: Server) -> None:
    run_together(server, 16, [Client.upsert, Client.upsert, Client.delete])


@pytest.mark.sqlite
def test_queries_need_no_lock_and_a_write_that_waits_too_long_is_refused(folder: Path) -> None:
    """Also on a connection that is made while somebody holds the write lock."""
    with serving(folder, VECTORDB_BUSY_TIMEOUT=1) as server, server.client() as client:
        client.post("/libraries", json={"id": LIBRARY, "name": "Shared"}).raise_for_status()
        write = {"chunks": [{"id": "a", "embedding": [1, 0]}]}
        client.post(f"/libraries/{LIBRARY}/chunks", json=write).raise_for_status()
        with closing(sqlite3.connect(folder / "vectordb.sqlite3", isolation_level=None)) as writer:
            writer.execute("BEGIN IMMEDIATE")
            answer = client.post(f"/libraries/{LIBRARY}/query", json={"vector": [1, 0]})
            assert [result["id"] for result in answer.raise_for_status().json()["results"]] == ["a"]
            refused = client.post(f"/libraries/{LIBRARY}/chunks", json=write)
            assert (refused.status_code, refused.json()["code"]) == (503, "busy")
            assert int(refused.headers["Retry-After"]) > 0
            writer.execute("ROLLBACK")
        client.post(f"/libraries/{LIBRARY}/chunks", json=write).raise_for_status()
