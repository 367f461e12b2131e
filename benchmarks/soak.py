"""`python -m benchmarks.soak`: a server under steady load while its workers are killed, one a minute.

Clients with keys and kept connections offer 100 requests a second, 90% queries. It prints the quantiles of all
answers, counted from when each was due; the requests that failed, those apart that a killed worker had; memory and
open files at the end of the first minute and at the end.
"""

import argparse
import os
import tempfile
import threading
import time
from pathlib import Path

from benchmarks.client import Connection, HttpError
from benchmarks.dataset import Dataset, as_base64
from benchmarks.testbed import ALL, ROWS_PER_WRITE, Testbed, chunks_path, create_library, query_path, wait_until_built
from benchmarks.timing import progress, quantile
from tests.server import Server

_CLIENTS, _PER_SECOND, _QUERY_SHARE = 8, 100, 0.9
# What a killed worker had fails within that time.
_SECONDS_OF_DEATH = 1.0


class Load:
    """Clients that offer requests at a steady rate, and what became of these."""

    def __init__(self, server: Server, data: Dataset) -> None:
        self.server, self.data = server, data
        self.milliseconds: list[float] = []
        self.failed: list[tuple[float, str]] = []
        self.is_over = False
        self.threads = [threading.Thread(target=self._run, args=(number,)) for number in range(_CLIENTS)]
        for thread in self.threads:
            thread.start()

    def end(self) -> None:
        self.is_over = True
        for thread in self.threads:
            thread.join()

    def _run(self, number: int) -> None:
        connection, turn = None, number
        due = time.perf_counter() + number / _PER_SECOND
        while not self.is_over:
            time.sleep(max(0.0, due - time.perf_counter()))
            try:
                connection = connection or Connection(self.server.port, self.server.authorization)
                if turn % 100 < 100 * _QUERY_SHARE:
                    connection.call("POST", query_path(ALL), self.data.query_body(turn % 500, as_base64))
                else:
                    connection.call(
                        "POST", chunks_path(ALL), self.data.chunks_body(range(turn % 5000, turn % 5000 + 1), as_base64)
                    )
                self.milliseconds.append((time.perf_counter() - due) * 1000)
            except (HttpError, OSError) as error:
                self.failed.append((time.perf_counter(), str(error)[:200]))
                connection = None
            turn += _CLIENTS
            due += _CLIENTS / _PER_SECOND


def _memory_and_files(server: Server) -> tuple[float, int]:
    """The megabytes of all processes, shared pages counted once, and their open files."""
    processes = server.processes()
    return sum(one.memory_full_info().pss for one in processes) / 1e6, sum(one.num_fds() for one in processes)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.add_argument("--data", default=os.environ.get("BENCHMARK_DATA"), help="folder of the data (BENCHMARK_DATA)")
    parser.add_argument("--minutes", type=int, default=10)
    parser.add_argument("--scratch", help="folder for the data of the server")
    options = parser.parse_args()
    data = Dataset.load(options.data)
    with tempfile.TemporaryDirectory(dir=options.scratch) as scratch:
        testbed = Testbed(data, Path(scratch), quick=False)
        with testbed.serving(testbed.new_path("soak")) as server:
            create_library(server.port, ALL, data.dimension, "auto")
            with Connection(server.port) as connection:
                for start in progress(range(0, len(data), ROWS_PER_WRITE), "fill"):
                    body = data.chunks_body(range(start, min(start + ROWS_PER_WRITE, len(data))), as_base64)
                    connection.call("POST", chunks_path(ALL), body)
            wait_until_built(server.port, ALL)
            folder = server.folder
        with testbed.serving(folder, VECTORDB_AUTH="on", VECTORDB_LOG_LEVEL="info") as server:
            _soak(server, data, options.minutes)


def _soak(server: Server, data: Dataset, minutes: int) -> None:
    load, deaths, before = Load(server, data), [], (0.0, 0)
    for minute in range(minutes):
        time.sleep(60)
        if not minute:
            before = _memory_and_files(server)
        if minute < minutes - 1:
            deaths.append(time.perf_counter())
            server.workers()[minute % 2].kill()
    after = _memory_and_files(server)
    load.end()
    in_flight = [one for one in load.failed if any(0 <= one[0] - death < _SECONDS_OF_DEATH for death in deaths)]
    others = [one for one in load.failed if one not in in_flight]
    print(f"{len(load.milliseconds)} answers, {len(deaths)} workers killed")
    print("ms: " + ", ".join(f"p{q * 100:g} {quantile(load.milliseconds, q):.2f}" for q in (0.5, 0.95, 0.99, 0.999)))
    print(f"failed: {len(in_flight)} that a killed worker had, {len(others)} others {others[:3]}")
    growth = after[0] / before[0] - 1
    print(f"PSS {before[0]:.0f} -> {after[0]:.0f} MB, {growth:+.1%}; open files {before[1]} -> {after[1]}")


if __name__ == "__main__":
    main()
