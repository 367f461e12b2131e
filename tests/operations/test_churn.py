"""The same rows are deleted and added again and again, and the disk fills up or the files a process may open run out in
the middle of it: what was acknowledged is there, what was refused is not, and all goes on afterwards."""

import contextlib
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.operations.test_full_disk import fill
from tests.server import Server, serving, until

pytestmark = pytest.mark.sqlite

CLIENTS, ROWS = 4, 150


class Churn:
    """Clients that delete and add rows of their own as long as the block runs, and look each time at what is there.

    `answers` counts statuses. What is wrong ends the client, and is raised at the end of the block.
    """

    def __init__(self, server: Server) -> None:
        self.answers: Counter[int] = Counter()
        self.rounds = 0
        self._server, self._stop = server, threading.Event()
        self._failures: list[BaseException] = []
        self._threads = [threading.Thread(target=self._run, args=(number,)) for number in range(CLIENTS)]

    def __enter__(self) -> "Churn":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        if self._failures:
            raise self._failures[0]

    def wait_for_rounds(self, count: int) -> None:
        wanted = self.rounds + count
        until(lambda: self.rounds >= wanted or self._failures, f"{count} more rounds are done")

    def wait_for_refusals(self) -> None:
        before = self.answers[503]
        until(lambda: self.answers[503] > before or self._failures, "something is refused")

    def _run(self, number: int) -> None:
        try:
            with self._server.client() as client:
                is_there = False
                while not self._stop.is_set():
                    is_there = self._step(client, number, is_there)
        except BaseException as failure:
            self._failures.append(failure)

    def _step(self, client: httpx.Client, number: int, is_there: bool) -> bool:
        chunks = [
            {"id": f"{number}-{i}", "text": "x" * 2000, "metadata": {"client": number}, "embedding": [number + 1, i]}
            for i in range(ROWS)
        ]
        if is_there:
            ids = [chunk["id"] for chunk in chunks]
            answer = client.post("/libraries/a/chunks/delete", json={"ids": ids})
        else:
            answer = client.post("/libraries/a/chunks", json={"chunks": chunks})
        if answer.is_success:
            is_there, self.rounds = not is_there, self.rounds + 1
        filters: Any = {"client": number}
        count = client.post("/libraries/a/chunks/count", json={"filter": filters})
        query = client.post("/libraries/a/query", json={"vector": [number + 1, 7], "k": 1, "filter": filters})
        if count.is_success:
            assert count.json()["count"] == (ROWS if is_there else 0)
        if query.is_success:
            assert [one["id"] for one in query.json()["results"]] == ([f"{number}-7"] if is_there else [])
        for one in (answer, count, query):
            self.answers[one.status_code] += 1
            assert one.status_code in (200, 503), one.text
        return is_there


@pytest.fixture
def churned(small_disk: Path) -> Iterator[Server]:
    """A server on a small disk with the library "a"."""
    with serving(small_disk) as server:
        with server.client() as client:
            body = {"id": "a", "name": "A", "dimension": 2}
            client.post("/libraries", json=body).raise_for_status()
        yield server
        assert "Traceback" not in server.log.read_text()


def test_churn_goes_on_after_the_disk_was_full_and_files_ran_out(churned: Server, small_disk: Path) -> None:
    with Churn(churned) as churn:
        churn.wait_for_rounds(20)
        fill(small_disk)
        churn.wait_for_refusals()
        (small_disk / "ballast").unlink()
        churn.wait_for_rounds(20)
        with few_files(churned):
            churn.wait_for_refusals()
        churn.wait_for_rounds(20)
    with churned.client() as client:
        until(lambda: client.get("/libraries/a/stats").json()["index"]["state"] == "ready", "the index is built")


@contextlib.contextmanager
def few_files(server: Server) -> Iterator[None]:
    """Let no process of the server open more files than it has open."""
    limits = [(process, process.rlimit(psutil.RLIMIT_NOFILE)) for process in server.processes()[1:]]
    for process, (_, hard) in limits:
        process.rlimit(psutil.RLIMIT_NOFILE, (process.num_fds(), hard))
    try:
        yield
    finally:
        for process, before in limits:
            process.rlimit(psutil.RLIMIT_NOFILE, before)
