"""Export and import over HTTP, each format, beside ingest of the same rows: rates, and by how much the memory of the
workers, and of the process that runs the job, grows meanwhile.

`python -m benchmarks.transfer [ROWS]` (default: a million) does the same with rows as hard as real ones
(`benchmarks.hard_data`).
"""

import argparse
import http.client
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from benchmarks.client import call, call_json
from benchmarks.dataset import Dataset, MissingData, as_base64, map_bodies
from benchmarks.hard_data import hard_dataset
from benchmarks.report import Row, at_most, machine, markdown_table, sentence, times_at_least, write_json
from benchmarks.testbed import ALL, ROWS_PER_WRITE, Testbed, chunks_path, create_library, wait_until_built
from benchmarks.timing import progress, seconds
from tests.server import Server

RESULTS = Path(__file__).with_name("results")
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
            with _growth(server) as growth:
                rate = rows / seconds(_export, server, format, file)
            wanted = None if _EXPORT[format] is None else times_at_least(_EXPORT[format] or 0)
            table.append(Row(f"export, {format}", rate, "rows/s", "ingest", ingest, wanted))
            table.append(Row(f"export, {format}, memory", growth[0], "MiB more", wanted=at_most(_MOST_GROWTH)))
            with _growth(server) as growth:
                rate = rows / seconds(_import, server, format, file, rows)
            wanted = None if _IMPORT[format] is None else times_at_least(_IMPORT[format] or 0)
            table.append(Row(f"import, {format}", rate, "rows/s", "ingest", ingest, wanted))
            table.append(Row(f"import, {format}, memory", growth[0], "MiB more", wanted=at_most(_MOST_GROWTH)))
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
def _growth(server: Server) -> Iterator[list[float]]:
    """By how many MiB the processes together grow during the block; one that starts meanwhile counts whole. Maintenance
    builds indexes of what is imported, and does not count; neither do files that are mapped."""
    before, found, has_ended = _memory(server), [0.0], threading.Event()

    def watch() -> None:
        while not has_ended.wait(_SECONDS_BETWEEN_LOOKS):
            found[0] = max(found[0], (_memory(server) - before) / _MIB)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield found
    finally:
        has_ended.set()
        watcher.join()


def _memory(server: Server) -> int:
    total, maintenance = 0, server.maintenance()
    for process in server.processes():
        if process in maintenance:
            continue
        try:
            memory = process.memory_info()
        except psutil.NoSuchProcess:
            continue
        total += memory.rss - memory.shared
    return total


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.transfer", description=__doc__)
    parser.add_argument("rows", nargs="?", type=int, default=1_000_000)
    parser.add_argument("--data", default=os.environ.get("BENCHMARK_DATA"), help="folder of the data (BENCHMARK_DATA)")
    options = parser.parse_args()
    for name in [name for name in os.environ if name.startswith("VECTORDB_")]:
        del os.environ[name]
    os.environ["DATABASE_URL"] = ""
    try:
        data = hard_dataset(Dataset.load(options.data), options.rows)
    except MissingData as reason:
        print(f"Nothing was measured: {reason}; docs/benchmarks.md says what the data are.", file=sys.stderr)
        return 0
    RESULTS.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=RESULTS, prefix="scratch-") as scratch:
        about = machine(Path(scratch)) | {"command": f"python -m benchmarks.transfer {' '.join(sys.argv[1:])}".strip()}
        rows = measure(Testbed(data, Path(scratch), quick=False), options.rows)
    print(f"{sentence(about)}\n\n{markdown_table(rows)}")
    print(f"\nKept in {write_json(RESULTS, rows, about)}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
