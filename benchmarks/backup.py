"""What a backup costs others, while one client queries and another writes 50 times a second: the time of queries,
writes that fail, and copies that are no state that was committed.
"""

import contextlib
import shutil
import sqlite3
import threading
import time
from pathlib import Path

from benchmarks.client import HttpError, call, call_json
from benchmarks.dataset import as_array, as_base64
from benchmarks.report import Row, at_most, times_at_most
from benchmarks.testbed import ALL, Testbed, chunks_path, query_path, warm
from benchmarks.timing import middle_round, quantile, seconds

_WRITES_PER_SECOND = 50
_BACKUPS = "/api/v1/backups"
# What no definition begins with.
_MARK = "benchmark-turn"
_TEXT = b'"text": "'


def run(testbed: Testbed) -> list[Row]:
    data = testbed.data
    folder = testbed.copy_of_filled()
    bodies = [data.query_body(query, as_array) for query in range(500)]
    rounds: list[tuple[float, float]] = []
    took: list[float] = []
    with testbed.serving(folder) as server, _Writer(testbed, server.port) as writer:
        warm(server, data)

        def ask(i: int) -> float:
            return seconds(call, server.port, "POST", query_path(ALL), bodies[i % len(bodies)]) * 1000

        for _ in range(testbed.repeat(3)):
            # At rest but for the writes, which both have.
            at_rest = [ask(i) for i in range(testbed.repeat(4000, 100))]
            began = time.monotonic()
            job = call_json(server.port, "POST", _BACKUPS, {})
            beside: list[float] = []
            while call_json(server.port, "GET", f"/api/v1/jobs/{job['id']}")["state"] == "running":
                beside += [ask(len(beside) + i) for i in range(20)]
            took.append(time.monotonic() - began)
            rounds.append((quantile(beside, 0.99), quantile(at_rest, 0.99)))
        backups = call_json(server.port, "GET", _BACKUPS)["items"]
        torn = sum(_is_torn(folder / "backups" / backup["id"], writer.size) for backup in backups)
    ours, reference = middle_round(*zip(*rounds, strict=True))
    shutil.rmtree(folder)
    return [
        Row("query p99 while a backup is made", ours, "ms", "at rest", reference, times_at_most(3)),
        Row("a backup beside 50 writes/s", min(took), "s"),
        Row(f"writes that failed, of {writer.written}", writer.failed, "", wanted=at_most(0)),
        Row(f"copies of no committed state, of {len(backups)}", torn, "", wanted=at_most(0)),
    ]


class _Writer:
    """Replaces the same ten rows with those of one turn, again and again, while the block runs."""

    size = 10

    def __init__(self, testbed: Testbed, port: int) -> None:
        self.written = self.failed = 0
        self._testbed, self._port, self._stop = testbed, port, threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> "_Writer":
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        due = time.monotonic()
        while not self._stop.is_set():
            rows = self._testbed.data.chunks_body(range(self.size), as_base64)
            body = rows.replace(_TEXT, _TEXT + b"%s %d " % (_MARK.encode(), self.written))
            try:
                call(self._port, "POST", chunks_path(ALL), body)
            except (OSError, HttpError):
                self.failed += 1
            self.written += 1
            due += 1 / _WRITES_PER_SECOND
            self._stop.wait(max(0.0, due - time.monotonic()))


def _is_torn(backup: Path, size: int) -> bool:
    """Whether the rows of the writer are of more than one turn, or the database is damaged."""
    with contextlib.closing(sqlite3.connect(backup / "database.sqlite3")) as database:
        texts = database.execute("SELECT text FROM vectordb_chunk WHERE text LIKE ?", [f"{_MARK} %"]).fetchall()
        turns = {text.split(" ")[1] for (text,) in texts}
        is_sound = database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    return len(turns) != 1 or len(texts) != size or not is_sound
