"""Memory: each process's share (PSS: what is shared counts by its share) once every worker has answered queries; and
the workers' shares of a server with four beside that of a server with one, the index being `auto`.
"""

from collections.abc import Iterator
from pathlib import Path

import psutil

from benchmarks.client import call
from benchmarks.dataset import as_array
from benchmarks.report import Row, Wanted
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
    rows.append(Row("PSS, together", sum(row.value for row in rows), "MiB", "the vectors", matrix))
    one, four = (_workers(stage, stage.filled_auto, count) for count in (1, 4))
    wanted = Wanted("<= 1.3 x reference + 4 x 60", lambda value, reference: value <= 1.3 * (reference or 0) + 4 * 60)
    return [*rows, Row("PSS, four workers, auto", four, "MiB", "one worker", one, wanted)]


def _workers(stage: Stage, folder: Path, count: int) -> float:
    """The workers' PSS together, in MiB, once all have answered."""
    data = stage.data
    with stage.serving(folder, VECTORDB_WORKERS=count) as server:
        warm(server, data)
        for query in range(stage.repeat(400, 40)):
            call(server.port, "POST", query_path(ALL), data.query_body(query, as_array))
        return float(sum(worker.memory_full_info().pss for worker in server.workers()) / _MIB)


def _named(server: Server) -> Iterator[tuple[str, psutil.Process]]:
    processes = server.processes()
    workers = [process.pid for process in server.workers()]
    yield "gunicorn's master", processes[0]
    for process in processes[1:]:
        name = f"worker {workers.index(process.pid) + 1}" if process.pid in workers else "maintenance"
        yield name, process
