"""Ingest: rows with text, metadata and vector, 1,000 a request, one client, durable; beside Django's `bulk_create`.

The bodies are made beforehand, so what is measured is the server and the wire. The order of the ways turns from
round to round.
"""

import shutil
from collections import defaultdict
from collections.abc import Callable
from statistics import median

from benchmarks.client import call, call_json
from benchmarks.dataset import Float32, as_array, as_base64, as_long_array, map_bodies
from benchmarks.report import Row, at_least, times_at_least
from benchmarks.testbed import ALL, ROWS_PER_WRITE, Testbed, chunks_path, create_library, run_module
from benchmarks.timing import middle_round, progress, seconds

_ENCODINGS = {"JSON arrays": as_array, "base64": as_base64, "JSON arrays of doubles": as_long_array}
_REFERENCE = "bulk_create"
_WANTED = {"JSON arrays": 8000, "base64": 14000}
QUICK_ROWS = 20_000


def run(testbed: Testbed) -> list[Row]:
    rows = QUICK_ROWS if testbed.quick else len(testbed.data)
    rates = defaultdict(list)
    names = [*_ENCODINGS, _REFERENCE]
    for turn in range(testbed.repeat(3)):
        for name in names[turn:] + names[:turn]:
            encode = _ENCODINGS.get(name)
            took = _time_bulk_create(testbed, rows) if encode is None else time_ingest(testbed, rows, encode)
            rates[name].append(rows / took)
    table = []
    for name in _ENCODINGS:
        if name in _WANTED:
            table.append(Row(f"ingest, {name}", median(rates[name]), "rows/s", wanted=at_least(_WANTED[name])))
        rate, reference = middle_round(rates[name], rates[_REFERENCE])
        wanted = times_at_least(1.5) if name in _WANTED else None
        table.append(Row(f"ingest, {name}, same round", rate, "rows/s", _REFERENCE, reference, wanted))
    return table


def time_ingest(testbed: Testbed, rows: int, encode: Callable[[Float32], bytes]) -> float:
    """The seconds that all requests take."""
    starts = range(0, rows, ROWS_PER_WRITE)
    path = testbed.new_path("bodies")
    bodies = map_bodies(
        path, (testbed.data.chunks_body(range(start, min(start + ROWS_PER_WRITE, rows)), encode) for start in starts)
    )
    folder = testbed.new_path("ingest")
    with testbed.serving(folder) as server:
        create_library(server.port, ALL, testbed.data.dimension)

        def write_all() -> None:
            for body in progress(bodies, "ingest"):
                call(server.port, "POST", chunks_path(ALL), body)

        took = seconds(write_all)
        count = call_json(server.port, "POST", f"{chunks_path(ALL)}/count", {})["count"]
    assert count == rows, f"{count} rows arrived of {rows}"
    path.unlink()
    shutil.rmtree(folder)
    return took


def _time_bulk_create(testbed: Testbed, rows: int) -> float:
    folder = testbed.new_path("bulk-create")
    took = float(run_module("bulk_create", str(testbed.data.folder), str(rows), folder=folder))
    shutil.rmtree(folder)
    return took
