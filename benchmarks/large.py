"""A large library over HTTP: ingest from the first row to the last, what is written to the disk for a row, queries.

`python -m benchmarks.large [ROWS]` (default: a million) writes rows as hard as real ones (`benchmarks.hard_data`) into
an `auto` library, 1,000 a request, one client; waits for its index; and asks by 8 connections that are kept, text and
metadata returned. Bodies are made while the clock stands still.
"""

import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import orjson
import psutil

from benchmarks.checkpoints import stops
from benchmarks.client import HttpError, call
from benchmarks.dataset import Dataset, MissingData, as_array, as_base64
from benchmarks.hard_data import hard_dataset, local_dimension
from benchmarks.report import Row, at_least, at_most, times_at_least
from benchmarks.request import request_rate
from benchmarks.standalone import make_parser, report, use_default_settings
from benchmarks.testbed import ALL, ROWS_PER_WRITE, Testbed, chunks_path, create_library, query_path, wait_until_built
from benchmarks.timing import progress, quantile, seconds
from tests.server import Server

_ROWS_PER_RATE = 100_000
_MIB = 1 << 20
_QUERIES = 500
_RECALL = 0.97


def main() -> int:
    parser = make_parser("large", __doc__, 1_000_000)
    recalls = (0.95, 0.97, 0.985)
    parser.add_argument("--recall", type=float, nargs="*", default=recalls, help="recalls to ask for as well")
    parser.add_argument("--quick", action="store_true", help="short measurements, to see that everything works")
    options = parser.parse_args()
    use_default_settings()
    try:
        data = hard_dataset(Dataset.load(options.data), options.rows)
    except MissingData as reason:
        print(f"Nothing was measured: {reason}; docs/benchmarks.md says what the data are.", file=sys.stderr)
        return 0

    def measure(scratch: Path) -> list[Row]:
        testbed = Testbed(data, scratch, quick=options.quick)
        with testbed.serving(testbed.new_path("large"), VECTORDB_REQUEST_TIMEOUT=300) as server:
            create_library(server.port, ALL, data.dimension, index_type="auto")
            rows = _ingest(data, server)
            return rows + _queries(testbed, server, [None, *options.recall])

    report("large", measure, f"; local dimension {local_dimension(data.scores):.1f}")
    return 0


def _ingest(data: Dataset, server: Server) -> list[Row]:
    wal = _Peak(lambda: Path(server.folder, "vectordb.sqlite3-wal").stat().st_size)
    written_before = _bytes_written(server)
    times: list[float] = []
    with wal:
        for start in progress(range(0, len(data), ROWS_PER_WRITE), "ingest"):
            body = data.chunks_body(range(start, min(start + ROWS_PER_WRITE, len(data))), as_base64)
            times.append(seconds(call, server.port, "POST", chunks_path(ALL), body))
        written = _bytes_written(server)
        built = wait_until_built(server.port, ALL)
    per_rate = _ROWS_PER_RATE // ROWS_PER_WRITE
    parts = [times[start : start + per_rate] for start in range(0, len(times), per_rate)]
    rates = [len(part) * ROWS_PER_WRITE / sum(part) for part in parts if len(part) == per_rate]
    rates = rates or [len(data) / sum(times)]
    print("rows/s of each 100,000:", ", ".join(f"{rate:,.0f}" for rate in rates))
    milliseconds = [1000 * one for one in times]
    size = sum(len(line) for line in data.lines) + data.vectors.nbytes
    during = {name: written[name] - written_before.get(name, 0) for name in written}
    after = _bytes_written(server)
    total = sum(after.values()) - sum(written_before.values())
    folder = sum(path.stat().st_size for path in server.folder.rglob("*") if path.is_file())
    return [
        Row(f"ingest, {len(data):,} rows, base64", len(data) / sum(times), "rows/s"),
        Row("ingest of the last 100,000", rates[-1], "rows/s", "the first", rates[0], times_at_least(0.9)),
        Row("write of 1,000 rows, slowest", max(milliseconds), "ms", "p50", quantile(milliseconds, 0.5)),
        Row("write of 1,000 rows, p99", quantile(milliseconds, 0.99), "ms", "p50", quantile(milliseconds, 0.5)),
        Row("WAL at its peak", wal.most / _MIB, "MiB", wanted=at_most(256)),
        stops(server.port),
        Row("from the last write to the wished index", built, "s", wanted=at_most(60)),
        Row("written by request workers, WAL included", during["workers"] / size, "x the data"),
        Row("written by all, the last index included", total / size, "x the data"),
        Row("data folder", folder / size, "x the data"),
    ]


def _queries(testbed: Testbed, server: Server, recalls: Sequence[float | None]) -> list[Row]:
    """Requests a second and recall@10 of the defaults, and of what is asked for."""
    rows, enough = [], [0.0]
    url = f"{server.url}{query_path(ALL)}"
    for recall in recalls:
        options: dict[str, Any] = {} if recall is None else {"search_params": {"recall": recall}}
        bodies = [testbed.data.query_body(query, as_array, **options) for query in range(_QUERIES)]
        name = "by default" if recall is None else f"for recall {recall:g}"
        try:
            found = _recall(testbed.data, server.port, bodies)
        except HttpError as error:
            print(f"queries {name}: left out, {error}", file=sys.stderr)
            continue
        path = testbed.new_path("queries")
        path.write_bytes(b"".join(body + b"\n" for body in bodies))
        rates = [request_rate(testbed, url, path) for _ in range(testbed.repeat(3))]
        rate = sorted(rates)[len(rates) // 2]
        if found >= _RECALL:
            enough.append(rate)
        memory = [process.memory_full_info().pss / _MIB for process in server.workers()]
        rows += [
            Row(f"requests {name}, 8 connections", rate, "requests/s"),
            Row(f"recall@10 {name}", found, ""),
            Row(f"PSS of all workers {name}", sum(memory), "MiB"),
        ]
    name = f"requests at recall@10 >= {_RECALL:g}, 8 connections"
    return [Row(name, max(enough), "requests/s", wanted=at_least(700)), *rows]


def _recall(data: Dataset, port: int, bodies: Sequence[bytes]) -> float:
    """The share of results that are at least as near as the tenth of the true neighbours."""
    hits = 0
    for query, body in enumerate(bodies):
        results = orjson.loads(call(port, "POST", query_path(ALL), body))["results"]
        hits += sum(bool(result["score"] >= data.scores[query, 9] - 1e-6) for result in results)
    return hits / (10 * len(bodies))


class _Peak:
    """The greatest of what `look` gives while the block runs."""

    def __init__(self, look: Callable[[], float]) -> None:
        self.most, self._look, self._stop = 0.0, look, threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> "_Peak":
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.2):
            self.most = max(self.most, self._look())


def _bytes_written(server: Server) -> dict[str, int]:
    """What the processes of the server have sent to the disk since they started."""
    return {
        "workers": sum(map(_bytes_of, server.workers())),
        "maintenance": sum(map(_bytes_of, server.maintenance())),
    }


def _bytes_of(process: psutil.Process) -> int:
    lines = Path(f"/proc/{process.pid}/io").read_text().splitlines()
    found = dict(line.split(": ") for line in lines)
    return int(found["write_bytes"]) - int(found["cancelled_write_bytes"])


if __name__ == "__main__":
    sys.exit(main())
