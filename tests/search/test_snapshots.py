"""A query shows one state of its library: never rows of two revisions, nor scores of another revision than the rows.

One writer keeps rewriting the same 20 rows, each time in one transaction, while readers on every worker query. Each row
of revision r says r in its text and metadata, and its vector makes r part of its score.
"""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.server import Server, serving

SECONDS = 2.0
ROWS = 20
STEP = 100_000
# The inner product with the vector of row i in revision r is r + i * STEP: a whole number that float32 holds exactly.
PROBE = [1, STEP, 0]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Four workers of four threads."""
    folder = tmp_path_factory.mktemp("snapshots") / "data"
    with serving(folder, VECTORDB_WORKERS=4, VECTORDB_THREADS=4) as running:
        yield running


def chunk(row: int, revision: int) -> dict[str, Any]:
    return {"text": str(revision), "metadata": {"revision": revision, "row": row}, "embedding": [revision, row, 1]}


def upsert_chunks(client: httpx.Client, library: str, revision: int) -> httpx.Response:
    """Rewrite the rows where they are."""
    chunks = [{"id": f"row-{row}", **chunk(row, revision)} for row in range(ROWS)]
    return client.post(f"/libraries/{library}/chunks", json={"chunks": chunks})


def put_document(client: httpx.Client, library: str, revision: int) -> httpx.Response:
    """Delete all rows and make new ones, with other ids."""
    chunks = [chunk(row, revision) for row in range(ROWS)]
    return client.put(f"/libraries/{library}/documents/d", json={"title": str(revision), "chunks": chunks})


class Race:
    """One writer and several readers of one library."""

    def __init__(self, library: str, rewrite: Callable[[httpx.Client, str, int], httpx.Response]) -> None:
        self.library = library
        self._rewrite = rewrite
        self._ends = time.monotonic() + SECONDS
        self._acknowledged = 0
        # The server's own number for each revision that was seen.
        self._numbers: dict[int, int] = {}
        self._is_over = threading.Event()

    def write(self, client: httpx.Client, readers: "list[Future[set[int]]]") -> None:
        """Write revision after revision, at least twenty, while the readers read."""
        try:
            while self._acknowledged < 20 or time.monotonic() < self._ends:
                self.write_once(client)
                if any(reader.done() for reader in readers):
                    break
        finally:
            self._is_over.set()

    def write_once(self, client: httpx.Client) -> None:
        """Write the next revision."""
        self._rewrite(client, self.library, self._acknowledged + 1).raise_for_status()
        self._acknowledged += 1

    def read(self, client: httpx.Client) -> set[int]:
        """Query until the writer is done, and once more; return the revisions that were seen."""
        seen = {0}
        is_over = False
        turn = 0
        while not is_over:
            turn += 1
            is_over = self._is_over.is_set()
            known = max(self._acknowledged, *seen)
            for answer in self._answers(client, is_batch=turn % 4 == 0):
                revision = shown_revision(answer)
                assert revision >= known, "an answer is older than one before, or than an acknowledged write"
                known = revision
                seen.add(revision)
                number = answer["meta"]["revision"]
                assert self._numbers.setdefault(revision, number) == number, "an answer names another revision"
        assert max(seen) == self._acknowledged
        return seen

    def _answers(self, client: httpx.Client, is_batch: bool) -> list[dict[str, Any]]:
        query = {"vector": PROBE, "k": 100, "include": ["text", "metadata"]}
        path = f"/libraries/{self.library}/query"
        if not is_batch:
            return [client.post(path, json=query).raise_for_status().json()]
        queries = [query, query | {"k": 50, "include": ["text", "metadata", "embedding", "document"]}]
        batch = client.post(f"{path}/batch", json={"queries": queries}).raise_for_status().json()["results"]
        shown = {shown_revision(answer) for answer in batch}
        assert len(shown) == 1, f"one batch shows the revisions {shown}"
        return list(batch)


def shown_revision(answer: dict[str, Any]) -> int:
    """The revision of the rows in an answer, which must all be there, of one revision, with its scores."""
    results = answer["results"]
    assert [result["metadata"]["row"] for result in results] == list(reversed(range(ROWS)))
    revisions = {result["metadata"]["revision"] for result in results}
    assert len(revisions) == 1, f"one answer shows the revisions {revisions}"
    revision = revisions.pop()
    for result in results:
        row = result["metadata"]["row"]
        assert result["text"] == str(revision)
        assert result["score"] == revision + row * STEP, "a score is of another revision than the row"
        assert result.get("embedding", [revision, row, 1]) == [revision, row, 1]
        document = result.get("document")
        assert document is None or document["title"] == str(revision)
    return int(revision)


@pytest.mark.parametrize("rewrite", [upsert_chunks, put_document])
def test_no_answer_shows_two_revisions(
    server: Server, rewrite: Callable[[httpx.Client, str, int], httpx.Response]
) -> None:
    library = rewrite.__name__
    with server.client() as writer, server.clients_of_each_worker(2) as clients:
        writer.post("/libraries", json={"id": library, "name": "Race", "metric": "dot"}).raise_for_status()
        race = Race(library, rewrite)
        race.write_once(writer)
        with ThreadPoolExecutor(len(clients)) as pool:
            readers = [pool.submit(race.read, client) for client in clients]
            race.write(writer, readers)
            seen = [reader.result() for reader in readers]
    assert len(set().union(*seen)) > 2, "nobody saw the writer's progress"
