"""Endless churn: eight clients delete and add the same 10,000 rows, again and again, as the memories of agents do.

What is measured is the room that the data folder takes (database, WAL and index files) beside a fresh store of the same
rows, at its peak and once the folder was quiet for a minute; and queries meanwhile beside queries at rest. Every answer
is checked: a row that was just deleted is not found, a row that was just added is the nearest to itself, rows that
nobody touches are where they belong, and scores are those of the vectors.
"""

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import orjson

from benchmarks.checkpoints import stops
from benchmarks.client import call, call_json
from benchmarks.dataset import Dataset, Float32, as_base64
from benchmarks.report import Row, at_most, times_at_most
from benchmarks.testbed import ALL, Testbed, chunks_path, create_library, query_path, wait_until_built
from benchmarks.timing import quantile, seconds

_ROWS, _CLIENTS, _ROUNDS = 10_000, 8, 100
_PER_REQUEST = 250
# Rows beside those that are deleted and added.
_LASTING = 500
_QUERIES_AT_REST = 500
_QUIET_SECONDS = 60
_MIB = 1 << 20


@dataclass
class _Found:
    """What happened during the churn."""

    writes: int = 0
    write_ms: list[float] = field(default_factory=list)
    query_ms: list[float] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    sizes: list["_Sizes"] = field(default_factory=list)


@dataclass(frozen=True)
class _Sizes:
    """Bytes of a data folder."""

    database: int
    wal: int
    index: int

    @property
    def total(self) -> int:
        return self.database + self.wal + self.index

    @classmethod
    def of(cls, folder: Path) -> "_Sizes":
        return cls(
            _size(folder / "vectordb.sqlite3"),
            _size(folder / "vectordb.sqlite3-wal"),
            # Folders may go away meanwhile.
            sum(_size(Path(parent, name)) for parent, _, names in os.walk(folder / "index") for name in names),
        )

    def __str__(self) -> str:
        return f"database {self.database / _MIB:.0f}, WAL {self.wal / _MIB:.0f}, index {self.index / _MIB:.0f}"


def run(testbed: Testbed) -> list[Row]:
    data = testbed.data
    rounds = testbed.repeat(_ROUNDS, 3)
    found = _Found()

    def watch(folder: Path) -> None:
        found.sizes.append(_Sizes.of(folder))
        time.sleep(0.2)

    with testbed.serving(testbed.new_path("churn")) as server:
        create_library(server.port, ALL, data.dimension, index_type="auto")
        for start in range(0, _ROWS + _LASTING, _PER_REQUEST):
            _write(data, server.port, range(start, start + _PER_REQUEST))
        wait_until_built(server.port, ALL)
        time.sleep(testbed.repeat(_QUIET_SECONDS))
        fresh = _Sizes.of(server.folder)
        queries = range(testbed.repeat(_QUERIES_AT_REST, 50))
        for query in queries:
            _query(data, server.port, query, found)
        at_rest, found.query_ms = found.query_ms, []
        clients = [
            threading.Thread(target=_churn, args=(data, server.port, client, rounds, found))
            for client in range(_CLIENTS)
        ]
        began = time.monotonic()
        with _repeat(lambda i: _query(data, server.port, i, found)), _repeat(lambda _: watch(server.folder)):
            for client in clients:
                client.start()
            for client in clients:
                client.join()
        took = time.monotonic() - began
        time.sleep(testbed.repeat(_QUIET_SECONDS))
        quiet = _Sizes.of(server.folder)
        count = call_json(server.port, "POST", f"{chunks_path(ALL)}/count", {})["count"]
        checkpoints = stops(server.port)
    if count != _ROWS + _LASTING:
        found.wrong.append(f"{count} rows are counted")
    peak = max(found.sizes, key=lambda sizes: sizes.total)
    for reason in found.wrong[:5]:
        print(f"churn: {reason}")
    parts = {"fresh": fresh, "peak": peak, "quiet": quiet}
    print("churn, MiB: " + "; ".join(f"{name}: {sizes}" for name, sizes in parts.items()))
    return [
        Row(f"churn of {_ROWS:,} rows, {rounds} rounds", found.writes * _PER_REQUEST / took, "rows/s"),
        Row("folder at its peak", peak.total / _MIB, "MiB", "fresh", fresh.total / _MIB, times_at_most(5)),
        Row("folder after a quiet minute", quiet.total / _MIB, "MiB", "fresh", fresh.total / _MIB, times_at_most(3)),
        Row("wrong answers and failed requests", len(found.wrong), "", wanted=at_most(0)),
        Row("query p50 meanwhile", quantile(found.query_ms, 0.5), "ms", "at rest", quantile(at_rest, 0.5)),
        Row(
            "query p95 meanwhile",
            quantile(found.query_ms, 0.95),
            "ms",
            "at rest",
            quantile(at_rest, 0.95),
            times_at_most(3),
        ),
        Row("slowest write", max(found.write_ms), "ms", "its p50", quantile(found.write_ms, 0.5)),
        checkpoints,
    ]


def _churn(data: Dataset, port: int, client: int, rounds: int, found: _Found) -> None:
    """Delete and add this client's share of the rows, `rounds` times."""
    share = _ROWS // _CLIENTS
    mine = range(client * share, (client + 1) * share)
    parts = [range(start, min(start + _PER_REQUEST, mine.stop)) for start in mine[::_PER_REQUEST]]
    for turn in range(rounds):
        for rows in parts:
            body = orjson.dumps({"ids": [data.rows[row]["id"] for row in rows]})
            try:
                took = seconds(call, port, "POST", f"{chunks_path(ALL)}/delete", body)
                looked_for = rows[turn % len(rows)]
                if looked_for in _nearest(data, port, data.vectors[looked_for]):
                    found.wrong.append("a deleted row was found")
                took_to_add = seconds(_write, data, port, rows)
                if looked_for not in _nearest(data, port, data.vectors[looked_for]):
                    found.wrong.append("an added row was not found")
            except Exception as error:
                found.wrong.append(f"a request failed: {error}")
                continue
            found.writes += 1
            found.write_ms += [took * 1000, took_to_add * 1000]


def _query(data: Dataset, port: int, number: int, found: _Found) -> None:
    """Time a query, and check its answer by the rows that nobody touches."""
    query = data.queries[number % len(data.queries)]
    began = time.perf_counter()
    try:
        results = _nearest(data, port, query)
    except Exception as error:
        found.wrong.append(f"a query failed: {error}")
        return
    found.query_ms.append((time.perf_counter() - began) * 1000)
    rows = list(results)
    true = data.vectors[rows] @ query
    lasting = data.vectors[_ROWS : _ROWS + _LASTING] @ query
    expected = {_ROWS + int(place) for place in np.flatnonzero(lasting > min(results.values()) + 1e-5)}
    if len(rows) != 10 or np.abs(true - list(results.values())).max() > 1e-5 or not expected <= set(rows):
        found.wrong.append(f"query {number} had a wrong answer")


def _nearest(data: Dataset, port: int, vector: Float32) -> dict[int, float]:
    """The rows of an exact answer with their scores."""
    body = b'{"vector":' + as_base64(vector) + b',"k":10,"exact":true}'
    results = orjson.loads(call(port, "POST", query_path(ALL), body))["results"]
    return {data.positions[result["id"]]: result["score"] for result in results}


def _write(data: Dataset, port: int, rows: range) -> None:
    call(port, "POST", chunks_path(ALL), data.chunks_body(rows, as_base64))


@contextmanager
def _repeat(function: Callable[[int], object]) -> Iterator[None]:
    """Call `function` again and again, in a thread, while the block runs."""
    stop = threading.Event()

    def repeat() -> None:
        turn = 0
        while not stop.is_set():
            function(turn)
            turn += 1

    thread = threading.Thread(target=repeat)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _size(path: Path) -> int:
    """The bytes of a file; 0 where it is gone."""
    try:
        return path.stat().st_size if path.is_file() else 0
    except OSError:
        return 0
