"""Export and import over HTTP, each format, beside ingest of the same rows: rates, and by how much the memory of the
workers, and of the process that runs the job, grows. Exports are the middle of three.

`python -m benchmarks.transfer [ROWS]` (default: a million) does the same with rows as hard as real ones
(`benchmarks.hard_data`).
"""

import contextlib
import http.client
import os
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import psutil

from benchmarks.client import call, call_json
from benchmarks.dataset import Dataset, MissingData, as_base64, map_bodies
from benchmarks.hard_data import hard_dataset
from benchmarks.report import Row, above_at_most, times_at_least
from benchmarks.standalone import make_parser, report, use_default_settings
from benchmarks.testbed import ALL, ROWS_PER_WRITE, WORKERS, Testbed, chunks_path, create_library, wait_until_built
from benchmarks.timing import progress, seconds
from tests.server import Server

QUICK_ROWS = 20_000
# How many times the rate of ingest each export and import must have.
_EXPORT = {"zip": 5.0, "parquet": 5.0, "jsonl": None}
_IMPORT = {"zip": 1.0, "parquet": 0.8, "jsonl": None}
_MOST_GROWTH = 200
_BLOCK = 1 << 20
_MIB = 1 << 20
_SECONDS_BETWEEN_LOOKS = 0.1


def run(testbed: Testbed) -> list[Row]:
    return measure(testbed, QUICK_ROWS if testbed.quick else len(testbed.data))


def measure(testbed: Testbed, rows: int) -> list[Row]:
    """Ingest `rows` rows, then export and import them by each format."""
    folder = testbed.new_path("transfer")
    files = {format: testbed.new_path(f"export.{format}") for format in _EXPORT}
    table = []
    with testbed.serving(folder) as server:
        create_library(server.port, ALL, testbed.data.dimension)
        ingest = rows / _ingest(testbed, server, rows)
        # Before there is something else to do for maintenance, which has the same processors.
        wait_until_built(server.port, ALL)
        _export_nothing(server)
        for format, times in _EXPORT.items():
            with _watching(server) as peaks:
                before = sum(peaks.values())
                rate = rows / median(seconds(_export, server, format, files[format]) for _ in range(3))
            table.append(_rate(f"export, {format}", rate, ingest, times))
            # As the bodies of ingest are: its writing must not compete with a server's.
            with files[format].open("rb") as file:
                os.fsync(file.fileno())
            memory = f"export, {format}, memory of the workers"
            table.append(Row(memory, sum(peaks.values()), "MiB", "before", before, above_at_most(_MOST_GROWTH)))
        for format, times in _IMPORT.items():
            # The process that runs jobs is a fork of the one that starts them.
            with _watching(server, "jobs") as peaks:
                before = max(peaks.values())
                rate = rows / seconds(_import, server, format, files[format], rows)
            table.append(_rate(f"import, {format}", rate, ingest, times))
            memory = f"import, {format}, memory of the job's process"
            table.append(Row(memory, max(peaks.values()), "MiB", "before", before, above_at_most(_MOST_GROWTH)))
            # Nor is there anything else to do for the next import, such as to delete this library would be.
            wait_until_built(server.port, format)
            files[format].unlink()
    shutil.rmtree(folder)
    return table


def _rate(name: str, rate: float, ingest: float, times: float | None) -> Row:
    return Row(name, rate, "rows/s", "ingest", ingest, None if times is None else times_at_least(times))


def _ingest(testbed: Testbed, server: Server, rows: int) -> float:
    """The seconds that all requests take."""
    path = testbed.new_path("bodies")
    starts = range(0, rows, ROWS_PER_WRITE)
    bodies = map_bodies(
        path, (testbed.data.chunks_body(range(at, min(at + ROWS_PER_WRITE, rows)), as_base64) for at in starts)
    )

    def write_all() -> None:
        for body in progress(bodies, "ingest"):
            call(server.port, "POST", chunks_path(ALL), body)

    took = seconds(write_all)
    path.unlink()
    return took


def _export_nothing(server: Server) -> None:
    """Let each worker export once by each format: the first time it loads Arrow, and pandas where that is installed."""
    create_library(server.port, "empty", 1)
    connections = [http.client.HTTPConnection("127.0.0.1", server.port) for _ in range(2 * WORKERS)]
    # All of them at once, so that each worker has its share.
    for connection in connections:
        connection.connect()
    for connection in connections:
        for format in _EXPORT:
            connection.request("GET", f"/api/v1/libraries/empty/export?format={format}")
            answer = connection.getresponse()
            assert answer.status == 200, answer.read()
            answer.read()
        connection.close()


def _export(server: Server, format: str, file: Path) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.port)
    connection.request("GET", f"/api/v1/libraries/{ALL}/export?format={format}")
    answer = connection.getresponse()
    assert answer.status == 200, answer.read()
    with file.open("wb") as out:
        shutil.copyfileobj(answer, out, _BLOCK)
    connection.close()


def _import(server: Server, format: str, file: Path, rows: int) -> None:
    """Import into a library of the format's name, which is made, and wait for the job."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, blocksize=_BLOCK)
    headers = {"Content-Length": str(file.stat().st_size)}
    with file.open("rb") as body:
        path = f"/api/v1/libraries/{format}/import?format={format}&create=true"
        connection.request("POST", path, body, headers)
        answer = connection.getresponse()
        assert answer.status == 202, answer.read()
    path = answer.headers["Location"]
    connection.close()
    while (job := call_json(server.port, "GET", path))["state"] == "running":
        time.sleep(_SECONDS_BETWEEN_LOOKS)
    assert (job["state"], job["result"]["created"]) == ("done", rows), job


def _memory(process: psutil.Process) -> int:
    memory = process.memory_info()
    return int(memory.rss - memory.shared)


@contextmanager
def _watching(server: Server, name: str = "") -> Iterator[dict[int, float]]:
    """The most MiB, by process id, of the processes of a name during the block, each with the one that reads a file for
    it; of the workers and their master where the name is empty. Files that they map do not count."""
    peaks: dict[int, float] = {}
    has_ended = threading.Event()

    def look() -> None:
        for process in server.processes():
            with contextlib.suppress(psutil.Error):
                if process.name() == name or (not name and process.name() not in ("maintain", "jobs")):
                    readers = [child for child in process.children() if name and child.name() != name]
                    memory = sum(map(_memory, [process, *readers]))
                    peaks[process.pid] = max(peaks.get(process.pid, 0), memory / _MIB)

    def watch() -> None:
        while not has_ended.wait(_SECONDS_BETWEEN_LOOKS):
            look()

    look()
    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield peaks
    finally:
        has_ended.set()
        watcher.join()


def main() -> int:
    options = make_parser("transfer", __doc__, 1_000_000).parse_args()
    use_default_settings()
    try:
        data = hard_dataset(Dataset.load(options.data), options.rows)
    except MissingData as reason:
        print(f"Nothing was measured: {reason}; docs/benchmarks.md says what the data are.", file=sys.stderr)
        return 0
    report("transfer", lambda scratch: measure(Testbed(data, scratch, quick=False), options.rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
