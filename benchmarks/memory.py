"""Memory: each process's share (PSS: what is shared counts by its share) once every worker has answered queries."""

from collections.abc import Iterator

import psutil

from benchmarks.client import call
from benchmarks.dataset import as_array
from benchmarks.report import Row
from benchmarks.stage import ALL, Stage, query_path, warm
from tests.server import Server

_MIB = 1 << 20


def run(stage: Stage) -> list[Row]:
    data = stage.data
    matrix = data.vectors.nbytes / _MIB
    with stage.serving(stage.filled) as server:
        warm(server, data)
        for query in range(stage.repeat(400, 40)):
            call(server.port, "POST", query_path(ALL), data.query_body(query, as_array))
        rows = [
            Row(f"PSS, {name}", process.memory_full_info().pss / _MIB, "MiB", "the vectors", matrix)
            for name, process in _named(server)
        ]
    return [*rows, Row("PSS, together", sum(row.value for row in rows), "MiB", "the vectors", matrix)]


def _named(server: Server) -> Iterator[tuple[str, psutil.Process]]:
    processes = server.processes()
    workers = [process.pid for process in server.workers()]
    yield "gunicorn's master", processes[0]
    for process in processes[1:]:
        name = f"worker {workers.index(process.pid) + 1}" if process.pid in workers else "maintenance"
        yield name, process
