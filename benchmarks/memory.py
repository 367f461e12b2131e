"""Memory: each process's share (PSS: what is shared counts by its share) once every worker has answered queries; and
the workers' shares of a server with four beside that of a server with one, the index being `auto`.
"""

from collections.abc import Iterator
from pathlib import Path

import psutil

from benchmarks.client import call
from benchmarks.dataset import as_array
from benchmarks.report import Row, Wanted
from benchmarks.testbed import ALL, WORKERS, Testbed, query_path, warm
from tests.server import Server

_MIB = 1 << 20


def run(testbed: Testbed) -> list[Row]:
    matrix = testbed.data.vectors.nbytes / _MIB
    rows = [
        Row(f"PSS, {name}", share, "MiB", "the vectors", matrix)
        for name, share in shares(testbed, testbed.filled).items()
    ]
    rows.append(Row("PSS, together", sum(row.value for row in rows), "MiB", "the vectors", matrix))
    one, four = (workers_together(testbed, testbed.filled_auto, count) for count in (1, 4))
    wanted = Wanted("<= 1.3 x reference + 4 x 60", lambda value, reference: value <= 1.3 * (reference or 0) + 4 * 60)
    return [*rows, Row("PSS, four workers, auto", four, "MiB", "one worker", one, wanted)]


def shares(testbed: Testbed, folder: Path, workers: int = WORKERS) -> dict[str, float]:
    """Each process's PSS in MiB by its name, once all workers have answered."""
    data = testbed.data
    with testbed.serving(folder, VECTORDB_WORKERS=workers) as server:
        warm(server, data)
        for query in range(testbed.repeat(400, 40)):
            call(server.port, "POST", query_path(ALL), data.query_body(query, as_array))
        return {name: process.memory_full_info().pss / _MIB for name, process in _named_processes(server)}


def workers_together(testbed: Testbed, folder: Path, count: int) -> float:
    """The PSS in MiB of `count` workers together, once all have answered."""
    return sum(share for name, share in shares(testbed, folder, count).items() if name.startswith("worker"))


def _named_processes(server: Server) -> Iterator[tuple[str, psutil.Process]]:
    processes = server.processes()
    workers = [process.pid for process in server.workers()]
    yield "gunicorn's master", processes[0]
    for process in processes[1:]:
        name = f"worker {workers.index(process.pid) + 1}" if process.pid in workers else "maintenance"
        yield name, process
