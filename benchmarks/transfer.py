"""Export and import over HTTP, each format, beside ingest of the same rows: rates, and by how much the memory of the
workers, and of the process that runs the job, grows.

`python -m benchmarks.transfer [ROWS]` (default: a million) does the same with rows as hard as real ones
(`benchmarks.hard_data`).
"""

import contextlib
import http.client
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from benchmarks.client import call, call_json
from benchmarks.dataset import Dataset, MissingData, as_base64, map_bodies
from benchmarks.hard_data import hard_dataset
from benchmarks.report import Row, above_at_most, times_at_least
from benchmarks.standalone import make_parser, report, use_default_settings
from benchmarks.testbed import ALL, ROWS_PER_WRITE, Testbed, chunks_path, create_library, wait_until_built
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
    table = []
    with testbed.serving(folder) as server:
        create_library(server.port, ALL, testbed.data.dimension)
        ingest = rows / _ingest(testbed, server, rows)
        wait_until_built(server.port, ALL)
        for format in _EXPORT:
            file = testbed.new_path(f"export.{format}")
            with _watching(server) as peaks:
                before = sum(peaks.values())
                rate = rows / seconds(_export, server, format, file)
            wanted = None if _EXPORT[format] is None else times_at_least(_EXPORT[format] or 0)
            table.append(Row(f"export, {format}", rate, "rows/s", "ingest", ingest, wanted))
            memory = "memory of the workers", sum(peaks.values()), "MiB", "before", before
            table.append(Row(f"export, {format}, {memory[0]}", *memory[1:], above_at_most(_MOST_GROWTH)))
            with _watching(server, "run_jobs") as peaks:
                rate = rows / seconds(_import, server, format, file, rows)
            wanted = None if _IMPORT[format] is None else times_at_least(_IMPORT[format] or 0)
            table.append(Row(f"import, {format}", rate, "rows/s", "ingest", ingest, wanted))
            memory = "memory of the job's process", max(peaks.values()), "MiB", "idle", _idle(server, format)
            table.append(Row(f"import, {format}, {memory[0]}", *memory[1:], above_at_most(_MOST_GROWTH)))
            call(server.port, "DELETE", f"/api/v1/libraries/{format}")
            file.unlink()
    shutil.rmtree(folder)
    return table


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
    connection = http.client.HTTPConnection("127.0.0.1", server.port)
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


@contextmanager
def _watching(server: Server, word: str = "serve") -> Iterator[dict[int, float]]:
    """The most MiB, by process id, of the processes that run the command `word`, during the block. Files that they map
    do not count."""
    peaks: dict[int, float] = {}
    has_ended = threading.Event()

    def look() -> None:
        for process in server.processes():
            with contextlib.suppress(psutil.Error):
                if word in process.cmdline() and process.name() != "maintain":
                    memory = process.memory_info()
                    peaks[process.pid] = max(peaks.get(process.pid, 0), (memory.rss - memory.shared) / _MIB)

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


def _idle(server: Server, format: str) -> float:
    """The MiB of a process that could import, and does not."""
    code = f"""
import django, psutil
django.setup()
from apps.transfer import import_job
import_job.format_of({format!r})
memory = psutil.Process().memory_info()
print(memory.rss - memory.shared)
"""
    process = server.python(code)
    return int(process.communicate()[0]) / _MIB


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
