"""Many small libraries, one for each user of a product: what each costs to make, write, query, list and keep, and
whether that grows with their number. One client, whose connection is kept; 20 chunks in each library.
"""

import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

import orjson
import psutil

from benchmarks.client import Connection
from benchmarks.dataset import as_base64
from benchmarks.report import Row, Wanted, at_most, times_at_most
from benchmarks.testbed import Testbed, chunks_path, query_path
from benchmarks.timing import milliseconds_each, progress, quantile, seconds
from tests.server import Server

LIBRARIES = 10_000
_CHUNKS = 20
_MIB = 1 << 20
# A little longer than a library takes to be very quiet, and a whole number of sweeps.
_SECONDS_UNTIL_IDLE, _IDLE_SECONDS = 75, 60
_SMALL_BUDGET_MB = 4
_LIST = "/api/v1/libraries?limit=100"


def run(testbed: Testbed) -> list[Row]:
    return measure(testbed, testbed.repeat(LIBRARIES, 40))


def measure(testbed: Testbed, count: int) -> list[Row]:
    """All figures with `count` libraries."""
    names = [f"user-{number:05}" for number in range(count)]
    # Not in the order in which they were made.
    shuffled = [names[number * 7919 % count] for number in range(count)] if count % 7919 else names
    folder = testbed.new_path("libraries")
    with testbed.serving(folder) as server:
        rows = [*_fill(testbed, server, names), _idle(testbed, server, count)]
    rows += _restarted(testbed, folder, shuffled)
    rows += _small_budget(testbed, folder, shuffled)
    shutil.rmtree(folder)
    return rows


def _fill(testbed: Testbed, server: Server, names: Sequence[str]) -> list[Row]:
    """The times of making a library, and of the write of its chunks."""
    data = testbed.data
    with Connection(server.port) as connection:

        def create(name: str) -> None:
            body = f'{{"id": "{name}", "name": "{name}", "dimension": {data.dimension}}}'.encode()
            connection.call("POST", "/api/v1/libraries", body)

        created, written = [], []
        for number, name in enumerate(progress(names, "fill libraries")):
            first = number * _CHUNKS % (len(data) - _CHUNKS)
            body = data.chunks_body(range(first, first + _CHUNKS), as_base64)
            created.append(seconds(create, name) * 1000)
            written.append(seconds(connection.call, "POST", chunks_path(name), body) * 1000)
    return [
        *_by_thousand("create a library", created),
        *_by_thousand(f"write {_CHUNKS} chunks", written),
        _last_beside_first("create a library", created),
        _last_beside_first(f"write {_CHUNKS} chunks", written, times_at_most(1.2)),
    ]


def _idle(testbed: Testbed, server: Server, count: int) -> Row:
    """CPU time of maintenance while nobody does anything."""
    time.sleep(testbed.repeat(_SECONDS_UNTIL_IDLE))
    (process,) = server.maintenance()
    before = process.cpu_times()
    time.sleep(testbed.repeat(_IDLE_SECONDS))
    after = process.cpu_times()
    percent = 100 * (sum(after[:2]) - sum(before[:2])) / testbed.repeat(_IDLE_SECONDS)
    return Row(f"maintenance of {count:,} idle libraries", percent, "% of a core", wanted=at_most(1))


def _restarted(testbed: Testbed, folder: Path, names: Sequence[str]) -> list[Row]:
    """Start, queries of libraries that are not open and of open ones, lists, statistics; what a worker holds then."""
    server = testbed.server(folder)
    started = seconds(server.start)
    try:
        with Connection(server.port) as connection:
            worker = _worker_of(server, connection)
            memory, files = worker.memory_full_info().uss, worker.num_fds()
            ask = _asker(testbed, connection)
            first = milliseconds_each(ask, names)
            open_memory, open_files = worker.memory_full_info().uss, worker.num_fds()
            again = milliseconds_each(ask, names[-1000:])
            stats = milliseconds_each(
                lambda name: connection.call("GET", f"/api/v1/libraries/{name}/stats"), names[-1000:]
            )
            pages = milliseconds_each(lambda _: connection.call("GET", _LIST), range(testbed.repeat(50)))
            # Lists end on the page that begins behind the last but ninety-nine.
            last_page = _last_page(connection)
            last_pages = milliseconds_each(lambda _: connection.call("GET", last_page), range(testbed.repeat(50)))
    finally:
        server.stop()
    return [
        Row("start of the server until it is ready", started, "s", wanted=at_most(3)),
        *_by_thousand("first query of a library", first),
        Row("first query of a library, p50", median(first), "ms", "second query", median(again), at_most(3)),
        Row("first query of a library, p95", quantile(first, 0.95), "ms", "second query", quantile(again, 0.95)),
        Row("statistics of a library, p50", median(stats), "ms"),
        Row("list of 100 libraries, last page, p50", median(last_pages), "ms", "first page", median(pages)),
        Row("memory of a worker for each open library", (open_memory - memory) / len(names) / 1024, "KiB"),
        Row("files that it has open with all libraries", open_files, "", "with none", files, at_most(200)),
    ]


def _small_budget(testbed: Testbed, folder: Path, names: Sequence[str]) -> list[Row]:
    """As the queries above, where a worker may keep few libraries open."""
    with testbed.serving(folder, VECTORDB_MEMORY_MB=_SMALL_BUDGET_MB) as server, Connection(server.port) as connection:
        worker = _worker_of(server, connection)
        ask = _asker(testbed, connection)
        some = names[:1000]
        first = milliseconds_each(ask, some)
        memory = worker.memory_full_info().uss
        again = milliseconds_each(ask, names)
        grown = worker.memory_full_info().uss - memory
    return [
        Row(f"query with a budget of {_SMALL_BUDGET_MB} MiB, p50", median(again), "ms", "first 1,000", median(first)),
        Row(f"memory that a worker gains by a query of each, {_SMALL_BUDGET_MB} MiB", grown / _MIB, "MiB"),
    ]


def _asker(testbed: Testbed, connection: Connection) -> Callable[[str], bytes]:
    body = testbed.data.query_body(0, as_base64)
    return lambda name: connection.call("POST", query_path(name), body)


def _worker_of(server: Server, connection: Connection) -> psutil.Process:
    """Return the process that answers what is sent on a connection."""
    connection.call("GET", "/health")
    return next(
        worker
        for worker in server.workers()
        if any(one.raddr and one.raddr.port == connection.local_port for one in worker.net_connections())
    )


def _last_page(connection: Connection) -> str:
    """The path of the last page of the list of libraries."""
    path = _LIST
    while (cursor := orjson.loads(connection.call("GET", path))["next_cursor"]) is not None:
        path = f"{_LIST}&cursor={cursor}"
    return path


def _by_thousand(what: str, times: Sequence[float]) -> list[Row]:
    """The median of each thousand of `times`, in ms."""
    return [
        Row(
            f"{what}, p50, {start + 1:,} to {min(start + 1000, len(times)):,}",
            median(times[start : start + 1000]),
            "ms",
        )
        for start in range(0, len(times), 1000)
    ]


def _last_beside_first(what: str, times: Sequence[float], wanted: Wanted | None = None) -> Row:
    """The median of the last 500 of `times`, in ms, beside that of the first 500."""
    some = min(500, len(times) // 2)
    return Row(f"{what}, p50, last {some}", median(times[-some:]), "ms", f"first {some}", median(times[:some]), wanted)
