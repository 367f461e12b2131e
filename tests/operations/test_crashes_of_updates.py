"""kill -9 of a worker, or of all processes, while clients change many chunks at once: acknowledged updates by filter,
merges and expiries are there afterwards, and none is half there."""

import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from tests.server import Server, is_alive, serving, until

pytestmark = pytest.mark.sqlite

CRASHES = 3
CLIENTS = 4
DOCUMENTS = 4
CHUNKS = 30
LIBRARY = "/libraries/updates"
PAST = "2001-01-01T00:00:00Z"


class State(NamedTuple):
    """A document as its client knows it: its edition, None if it has expired, and the metadata of its chunks by id."""

    edition: int | None
    chunks: dict[str, dict[str, Any]]


class Document:
    """A document of one client, which knows what was acknowledged of it, and the write that got no answer."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._written = 0
        self.state = State(None, {})
        self.unanswered: State | None = None

    def write(self, client: httpx.Client) -> None:
        """Make the next change. Raises TransportError where there is no answer."""
        self._written += 1
        (method, path, body), self.unanswered = self._ways()[self._written % 6]()
        response = client.request(method, path, json=body)
        assert response.is_success, response.text
        self.state, self.unanswered = self.unanswered, None

    def _ways(self) -> list[Callable[[], tuple[tuple[str, str, Any], State]]]:
        """The writes, by turns; each leads to a state whatever was before."""
        return [self._expire, self._put, self._merge, self._patch, self._set, self._merge]

    def _put(self) -> tuple[tuple[str, str, Any], State]:
        """Write the document again."""
        metadata = {"number": self._written, "of": {"new": True}}
        chunks = [{"id": chunk_id, "embedding": [1, 0], "metadata": metadata} for chunk_id in self._ids()]
        body = {"metadata": self._metadata(self._written), "chunks": chunks}
        return ("PUT", self._path(), body), State(self._written, dict.fromkeys(self._ids(), metadata))

    def _merge(self) -> tuple[tuple[str, str, Any], State]:
        """Change a part of the metadata of all chunks, which a filter names by their document's."""
        patch = {"of": {"new": None, "merged": self._written}}
        rows = {chunk_id: row | {"of": {"merged": self._written}} for chunk_id, row in self.state.chunks.items()}
        return self._update(metadata=patch, metadata_mode="merge"), State(self.state.edition, rows)

    def _set(self) -> tuple[tuple[str, str, Any], State]:
        """Replace a field of all chunks."""
        rows = {chunk_id: row | {"number": self._written} for chunk_id, row in self.state.chunks.items()}
        return self._update(metadata={"number": self._written}), State(self.state.edition, rows)

    def _patch(self) -> tuple[tuple[str, str, Any], State]:
        """Change the document's metadata."""
        body = {"metadata": self._metadata(self._written)}
        return ("PATCH", self._path(), body), State(self._written, self.state.chunks)

    def _expire(self) -> tuple[tuple[str, str, Any], State]:
        """Let the document expire, or all its chunks."""
        if self._written % 12 == 0:
            return ("PATCH", self._path(), {"expires_at": PAST}), State(None, {})
        return self._update(metadata={}, expires_at=PAST), State(self.state.edition, {})

    def _update(self, **fields: Any) -> tuple[str, str, Any]:
        return "POST", f"{LIBRARY}/chunks/update", {"filter": {"@document.name": self._name}} | fields

    def _ids(self) -> list[str]:
        return [f"{self._name}:{i}" for i in range(CHUNKS)]

    def _metadata(self, edition: int) -> dict[str, Any]:
        return {"name": self._name, "edition": edition}

    def _path(self) -> str:
        return f"{LIBRARY}/documents/{self._name}"

    def settle(self, client: httpx.Client) -> None:
        """Look that what was acknowledged is there; of a write without an answer, all or nothing."""
        document = client.get(self._path())
        edition = None if document.status_code == 404 else document.raise_for_status().json()["metadata"]["edition"]
        items = self._read(client, "chunks/get", {"ids": self._ids()})["items"]
        found = State(edition, {item["id"]: item["metadata"] for item in items})
        assert found in ([self.state] if self.unanswered is None else [self.state, self.unanswered])
        where = {"@document.name": self._name, "@document.edition": edition}
        assert self._read(client, "chunks/count", {"filter": where}) == {"count": len(found.chunks)}
        # The next write is one that needs nothing to be there.
        self._written += -self._written % 6
        self.state, self.unanswered = found, None

    def _read(self, client: httpx.Client, path: str, body: dict[str, Any]) -> dict[str, Any]:
        return dict(client.post(f"{LIBRARY}/{path}", json=body).raise_for_status().json())


def write(server: Server, documents: list[Document], is_over: threading.Event) -> None:
    """Change documents, any of them, until the connection breaks or it is over."""
    with server.client() as client:
        while not is_over.is_set():
            try:
                random.choice(documents).write(client)
            except httpx.TransportError:
                return


def crash(server: Server, is_whole: bool) -> None:
    """Kill a worker, or all processes; return when the server is whole again."""
    if is_whole:
        server.kill()
        server.start()
    else:
        workers = server.workers()
        workers[0].kill()
        until(lambda: not is_alive(workers[0]) and len(server.workers()) == len(workers), "another worker runs")


def test_acknowledged_updates_survive_kill_9(folder: Path) -> None:
    chance = random.Random(14)
    # So many that each write is the last one of some.
    documents = [Document(f"document-{i}") for i in range(CLIENTS * DOCUMENTS)]
    with serving(folder, VECTORDB_THREADS=4) as server, ThreadPoolExecutor(CLIENTS) as pool:
        with server.client() as client:
            client.post("/libraries", json={"id": "updates", "name": "Updates", "dimension": 2}).raise_for_status()
        for turn in range(CRASHES):
            is_over = threading.Event()
            writing = [pool.submit(write, server, documents[i::CLIENTS], is_over) for i in range(CLIENTS)]
            try:
                time.sleep(chance.uniform(0.5, 1.5))
                crash(server, is_whole=turn % 2 == 0)
            finally:
                is_over.set()
            for future in writing:
                future.result()
            with server.clients_of_each_worker(1) as readers:
                for document in documents:
                    for reader in readers:
                        document.settle(reader)
        ended = server.manage("verify_index", "updates")
        assert "equal to the database" in ended.stdout, ended.stderr
