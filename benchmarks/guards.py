"""What it costs to be safe and seen: keys, limits, log lines, metrics and the recall watch, all on beside all off, by
wrk on 8 connections; and queries with the recall watch at 1% beside none, by one client that keeps its connection.
"""

from collections import defaultdict
from typing import Any

from benchmarks.client import Connection
from benchmarks.dataset import as_array, as_base64
from benchmarks.report import Row, times_at_least, times_at_most
from benchmarks.request import request_rate
from benchmarks.testbed import ALL, SMALL, SMALL_ROWS, Testbed, query_path, warm
from benchmarks.timing import middle_round, milliseconds_each, progress, quantile

_MANY = 100_000_000
ALL_ON: dict[str, Any] = {
    "VECTORDB_AUTH": "on",
    "VECTORDB_LOG_LEVEL": "info",
    "VECTORDB_KEY_READS_PER_MINUTE": _MANY,
    "VECTORDB_ADDRESS_READS_PER_MINUTE": _MANY,
    "VECTORDB_RECALL_WATCH": 0.01,
}
_OFF: dict[str, Any] = {
    "VECTORDB_AUTH": "off",
    "VECTORDB_LOG_REQUESTS": 0,
    "VECTORDB_METRICS": "off",
    "VECTORDB_SLOW_QUERY_MS": 0,
    "VECTORDB_RECALL_WATCH": 0,
    "VECTORDB_AUDIT_DAYS": 0,
}
_QUERIES, _PER_BLOCK = 200, 250


def run(testbed: Testbed) -> list[Row]:
    data = testbed.data
    bodies = testbed.new_path("queries")
    bodies.write_bytes(b"".join(data.query_body(query, as_array) + b"\n" for query in range(_QUERIES)))
    rates: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
    folders = {name: testbed.copy_of_filled() for name in ("on", "off")}
    with testbed.serving(folders["off"], **_OFF) as off:
        warm(off, data)
        with testbed.serving(folders["on"], **ALL_ON) as on:
            headers = [f"{name}: {value}" for name, value in on.authorization.items()]
            for turn in progress(range(testbed.repeat(10, 3)), "all on and all off"):
                sides = [("on", on, headers), ("off", off, [])]
                for name, server, head in sides if turn % 2 else sides[::-1]:
                    for library in (SMALL, ALL):
                        url = f"{server.url}{query_path(library)}"
                        rates[name, library].append(request_rate(testbed, url, bodies, head))
    rows = []
    for library, size in ((SMALL, SMALL_ROWS), (ALL, len(data))):
        rate, reference = middle_round(rates["on", library], rates["off", library])
        wanted = times_at_least(0.85) if library == SMALL else None
        rows.append(Row(f"requests, all on, {size:,} rows", rate, "requests/s", "all off", reference, wanted))
    return [*rows, *_recall_watch(testbed)]


def _recall_watch(testbed: Testbed) -> list[Row]:
    data = testbed.data
    times: defaultdict[float, list[float]] = defaultdict(list)
    for turn in progress(range(testbed.repeat(6, 2)), "recall watch"):
        for share in (0, 0.01) if turn % 2 else (0.01, 0):
            with testbed.serving(testbed.filled_auto, VECTORDB_RECALL_WATCH=share) as server:
                warm(server, data)
                with Connection(server.port) as connection:

                    def ask(body: bytes, connection: Connection = connection) -> bytes:
                        return connection.call("POST", query_path(ALL), body)

                    blocks = [data.query_body(query % len(data.queries), as_base64) for query in range(_PER_BLOCK * 8)]
                    times[share] += milliseconds_each(ask, blocks)[_PER_BLOCK:]
    watched, alone = (quantile(times[share], 0.95) for share in (0.01, 0))
    return [Row("query p95, recall watch at 1%", watched, "ms", "none", alone, times_at_most(1.05))]
