"""A query shows one state of its library: never rows of two revisions, nor scores of another revision than the rows.

One writer keeps rewriting the same 20 rows, each time in one transaction. Every row of revision r says r in its text and
metadata, and its vector makes r part of its score, while readers on every worker query.
"""

import contextlib
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from tests.server import Server, serving

SECONDS = float(os.environ.get("TEST_SECONDS", "10")) / 2
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


@dataclass
class Race:
    """The writer and the readers of one library, and how far the writer is."""

    library: str
    ends: float = field(default_factory=lambda: time.monotonic() + SECONDS)
    acknowledged: int = 0

    def write(self, client: httpx.Client, rewrite: Any) -> int:
        """Write one revision after the other; answers the last."""
        while time.monotonic() < self.ends:
            rewrite(client, self.library, self.acknowledged + 1).raise_for_status()
            self.acknowledged += 1
        return self.acknowledged

    def read(self, client: httpx.Client) -> set[int]:
        """Query; answers the revisions that were seen."""
        query = {"vector": PROBE, "k": 100, "include": ["text", "metadata", "embedding", "document"]}
        seen = [1]
        while time.monotonic() < self.ends:
            known = max(self.acknowledged, seen[-1])
            for answer in self._answers(client, query):
                revision = shown_revision(answer)
                assert revision >= known, "an answer is older than a write that was acknowledged before the query"
                seen.append(revision)
        return set(seen)

    def _answers(self, client: httpx.Client, query: dict[str, Any]) -> list[dict[str, Any]]:
        path = f"/libraries/{self.library}/query"
        single = client.post(path, json=query).raise_for_status().json()
        queries = [query, query | {"k": 50}, query | {"include": query["include"][:2]}]
        batch = client.post(f"{path}/batch", json={"queries": queries}).raise_for_status().json()["results"]
        shown = {shown_revision(answer) for answer in batch}
        assert len(shown) == 1, f"one batch shows the revisions {shown}"
        return [single, batch[0]]


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
def test_no_answer_shows_two_revisions(server: Server, rewrite: Any) -> None:
    library = rewrite.__name__
    with contextlib.ExitStack() as stack:
        writer = stack.enter_context(server.client())
        writer.post("/libraries", json={"id": library, "name": "Race", "metric": "dot"}).raise_for_status()
        rewrite(writer, library, 1).raise_for_status()
        readers = [stack.enter_context(client) for client in server.clients_of_each_worker(2)]
        pool = stack.enter_context(ThreadPoolExecutor(len(readers) + 1))
        race = Race(library, acknowledged=1)
        reading = [pool.submit(race.read, reader) for reader in readers]
        written = pool.submit(race.write, writer, rewrite).result()
        seen = [future.result() for future in reading]
    assert written > 10
    assert all(len(revisions) > 2 for revisions in seen), "a reader did not see the writer's progress"
