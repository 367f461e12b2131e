"""What maintenance costs others: writes while segments are sealed and merged, queries while a graph is built, queries
while rows are written; and what it costs while nobody does anything.
"""

import shutil
import threading
import time
from collections.abc import Callable
from statistics import median

from benchmarks.client import call, call_json
from benchmarks.dataset import as_array, as_base64, map_bodies
from benchmarks.report import Row, times_at_least, times_at_most
from benchmarks.testbed import (
    ALL,
    ROWS_PER_WRITE,
    Testbed,
    chunks_path,
    create_library,
    query_path,
    wait_until_built,
    warm,
)
from benchmarks.timing import middle_round, progress, quantile, seconds

_WRITES_PER_SECOND = 200
_IDLE_LIBRARIES, _ROWS_OF_IDLE_LIBRARY = 2000, 20
# A little longer than a library takes to be very quiet, and a whole number of sweeps.
_SECONDS_UNTIL_IDLE, _IDLE_SECONDS = 75, 60


def run(testbed: Testbed) -> list[Row]:
    return [_ingest(testbed), *_queries_while_building(testbed), *_queries_beside_writes(testbed), *_idle(testbed)]


def _ingest(testbed: Testbed) -> Row:
    """Ingest into an `auto` library, which is sealed and merged meanwhile, beside one into a `brute_force` library."""
    data = testbed.data
    starts = range(0, len(data), ROWS_PER_WRITE)
    path = testbed.new_path("bodies")
    bodies = map_bodies(
        path, (data.chunks_body(range(start, min(start + ROWS_PER_WRITE, len(data))), as_base64) for start in starts)
    )

    def rate(index_type: str) -> float:
        folder = testbed.new_path("ingest")
        with testbed.serving(folder) as server:
            create_library(server.port, ALL, data.dimension, index_type=index_type)

            def write_all() -> None:
                for body in progress(bodies, "ingest"):
                    call(server.port, "POST", chunks_path(ALL), body)

            found = len(data) / seconds(write_all)
        shutil.rmtree(folder)
        return found

    rates = [(rate("auto"), rate("brute_force")) for _ in range(testbed.repeat(3))]
    ours, reference = middle_round(*zip(*rates, strict=True))
    return Row("ingest, auto", ours, "rows/s", "brute_force", reference, times_at_least(0.7))


def _queries_while_building(testbed: Testbed) -> list[Row]:
    """Exact queries of all rows from one client, at rest and while their graph is built."""
    data = testbed.data
    folder = testbed.copy_of_filled()
    with testbed.serving(folder) as server:
        warm(server, data)
        ask = _asker(testbed, server.port, ALL)
        at_rest = _times(ask, testbed.repeat(2000, 100))
        call_json(server.port, "PATCH", f"/api/v1/libraries/{ALL}", {"index_type": "hnsw"})
        built = threading.Event()
        waiter = threading.Thread(target=lambda: built.set() if wait_until_built(server.port, ALL) else None)
        waiter.start()
        building: list[float] = []
        while not built.is_set():
            building.append(_one(ask, len(building)))
        waiter.join()
    shutil.rmtree(folder)
    return [
        Row("query p50 while hnsw is built", median(building), "ms", "at rest", median(at_rest)),
        Row(
            "query p95 while hnsw is built",
            quantile(building, 0.95),
            "ms",
            "at rest",
            quantile(at_rest, 0.95),
            times_at_most(2),
        ),
    ]


def _queries_beside_writes(testbed: Testbed) -> list[Row]:
    """Queries of an `auto` library of all rows from one client, at rest and while another writes 200 rows a second."""
    data = testbed.data
    folder = testbed.copy_of_filled()
    with testbed.serving(folder) as server:
        call_json(server.port, "PATCH", f"/api/v1/libraries/{ALL}", {"index_type": "auto"})
        wait_until_built(server.port, ALL)
        warm(server, data)
        ask = _asker(testbed, server.port, ALL)
        rounds: list[tuple[list[float], list[float]]] = []
        for turn in range(testbed.repeat(3)):
            at_rest = _times(ask, testbed.repeat(2000, 100))
            stop = threading.Event()
            writer = threading.Thread(target=_write, args=(testbed, server.port, stop, turn))
            writer.start()
            beside = _times(ask, testbed.repeat(4000, 200))
            stop.set()
            writer.join()
            rounds.append((beside, at_rest))
    shutil.rmtree(folder)
    rows = []
    for share in (0.5, 0.95):
        ours, reference = middle_round(*zip(*[[quantile(t, share) for t in pair] for pair in rounds], strict=True))
        wanted = times_at_most(1.5) if share == 0.95 else None
        name = f"query p{share:.0%} while 200 rows/s are written".replace("%", "")
        rows.append(Row(name, ours, "ms", "at rest", reference, wanted))
    return rows


def _idle(testbed: Testbed) -> list[Row]:
    """CPU time of the maintenance process beside many small libraries that nobody writes to or queries."""
    rows = []
    for index_type in ("auto", "brute_force"):
        folder = testbed.new_path("idle")
        with testbed.serving(folder) as server:
            body = testbed.data.chunks_body(range(_ROWS_OF_IDLE_LIBRARY), as_base64)
            names = [f"idle-{i}" for i in range(testbed.repeat(_IDLE_LIBRARIES, 20))]
            for name in progress(names, "fill idle libraries"):
                create_library(server.port, name, testbed.data.dimension, index_type=index_type)
                call(server.port, "POST", chunks_path(name), body)
            for name in names:
                wait_until_built(server.port, name)
            time.sleep(testbed.repeat(_SECONDS_UNTIL_IDLE))
            (process,) = server.maintenance()
            before = process.cpu_times()
            time.sleep(testbed.repeat(_IDLE_SECONDS))
            after = process.cpu_times()
        shutil.rmtree(folder)
        percent = 100 * (sum(after[:2]) - sum(before[:2])) / testbed.repeat(_IDLE_SECONDS)
        name = f"maintenance of {len(names):,} idle libraries, {index_type}"
        rows.append(Row(name, percent, "% of a core", "one core", 100.0, times_at_most(0.01)))
    return rows


def _write(testbed: Testbed, port: int, stop: threading.Event, turn: int) -> None:
    """Write ten rows twenty times a second; every second row replaces one that is there."""
    data = testbed.data
    due = time.monotonic()
    batches = 0
    while not stop.is_set():
        rows = [(turn * 7919 + batches * 10 + i) % len(data) for i in range(10)]
        body = data.chunks_body(rows, as_base64)
        if batches % 2:
            body = body.replace(b'"id": "', b'"id": "new-').replace(b'"id":"', b'"id":"new-')
        call(port, "POST", chunks_path(ALL), body)
        batches += 1
        due += 10 / _WRITES_PER_SECOND
        stop.wait(max(0.0, due - time.monotonic()))


def _asker(testbed: Testbed, port: int, library: str) -> Callable[[int], bytes]:
    data = testbed.data
    bodies = [data.query_body(query, as_array) for query in range(500)]
    return lambda i: call(port, "POST", query_path(library), bodies[i % len(bodies)])


def _one(ask: Callable[[int], bytes], i: int) -> float:
    return seconds(ask, i) * 1000


def _times(ask: Callable[[int], bytes], count: int) -> list[float]:
    return [_one(ask, i) for i in range(count)]
