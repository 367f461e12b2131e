"""The cost of a request: queries of a library of 1,000 rows, text and metadata returned, beside an empty Django view
under the same edge and gunicorn. wrk makes the load, with 8 connections, on the same machine; both sides take turns.
"""

import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import orjson

from benchmarks.client import call
from benchmarks.dataset import as_array
from benchmarks.report import Row, Wanted, times_at_least
from benchmarks.testbed import ALL, SMALL, SMALL_ROWS, Testbed, query_path, running, wait_for_answer, warm
from benchmarks.timing import middle_round, milliseconds_each
from tests.server import ROOT

_QUERIES = 200
_PER_BATCH = 32
_EMPTY = "empty Django view"
_SCRIPT = Path(__file__).with_name("rotate.lua")


def run(testbed: Testbed) -> list[Row]:
    if shutil.which("wrk") is None:
        print("request: wrk is not installed (Debian: apt install wrk), so this is left out", file=sys.stderr)
        return []
    data = testbed.data
    bodies = testbed.new_path("queries")
    bodies.write_bytes(b"".join(data.query_body(query, as_array) + b"\n" for query in range(_QUERIES)))
    batch = b'{"queries":[' + b",".join(data.query_body(query, as_array) for query in range(_PER_BATCH)) + b"]}"
    reference = testbed.server(testbed.new_path("empty"))
    rates: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
    command = [sys.executable, "-m", "benchmarks.empty_view"]
    with testbed.serving(testbed.filled) as server, running(command, env=reference.environ, cwd=ROOT) as empty_view:
        wait_for_answer(empty_view, reference.port, "/")
        warm(server, data)
        for _ in range(testbed.repeat(5)):
            for library in (SMALL, ALL):
                rates[library, "single"].append(request_rate(testbed, f"{server.url}{query_path(library)}", bodies))
            rates[_EMPTY, "single"].append(request_rate(testbed, f"{reference.url}/"))
            for library in (SMALL, ALL):
                rates[library, "batch"].append(batch_rate(testbed, server.port, library, batch))
    empty = rates[_EMPTY, "single"]
    small, everything = f"{SMALL_ROWS:,} rows", f"{len(data):,} rows"
    return [
        _row(empty, f"requests, {small}", rates[SMALL, "single"], times_at_least(0.5)),
        _row(empty, f"requests, {everything}", rates[ALL, "single"]),
        Row(f"batches of {_PER_BATCH}, {small}, one client", median(rates[SMALL, "batch"]), "queries/s"),
        Row(f"batches of {_PER_BATCH}, {everything}, one client", median(rates[ALL, "batch"]), "queries/s"),
    ]


def _row(empty: Sequence[float], name: str, rates: Sequence[float], wanted: Wanted | None = None) -> Row:
    rate, reference = middle_round(rates, empty)
    return Row(name, rate, "requests/s", _EMPTY, reference, wanted)


def request_rate(testbed: Testbed, url: str, bodies: Path | None = None, headers: Sequence[str] = ()) -> float:
    """Requests a second that wrk gets answered on 8 connections, which it keeps where the server does."""
    length = f"{testbed.repeat(5, 2)}s"
    command = ["wrk", "--connections", "8", "--threads", "2", "--duration", length, "--script", str(_SCRIPT)]
    command += [part for header in headers for part in ("--header", header)] + [url]
    command += [] if bodies is None else ["--", str(bodies)]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    measured = orjson.loads(output.splitlines()[-1])
    assert not measured["failed"], f"{measured['failed']} requests failed at {url}"
    return float(measured["requests"] / measured["seconds"])


def batch_rate(testbed: Testbed, port: int, library: str, batch: bytes) -> float:
    """Queries a second in batches, one after the other."""
    path = f"{query_path(library)}/batch"
    times = milliseconds_each(lambda body: call(port, "POST", path, body), [batch] * testbed.repeat(15, 3))
    return _PER_BATCH / median(times) * 1000
