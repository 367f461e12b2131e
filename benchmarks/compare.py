"""This checkout beside another one: both serve the same rows, each from a data folder that it filled itself, and take
turns. Run it with `python -m benchmarks --before PATH`, where PATH is a git worktree of the other commit.

A row shows the round with the median ratio, and the least gain that is wanted.
"""

import contextlib
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import httpx
import orjson

from benchmarks import cold_start, filters, ingest, memory, request, text
from benchmarks.client import call
from benchmarks.dataset import Dataset, Float32, as_array, as_base64
from benchmarks.report import Row, times_at_least, times_at_most
from benchmarks.testbed import ALL, SMALL, SMALL_ROWS, Testbed, chunks_path, query_path, running, warm
from benchmarks.timing import middle_round, milliseconds_each, progress, quantile
from tests.server import Server

_QUERIES = 200
_BUSY_PROCESSES = 2
_NO_LOSS = 0.95


@dataclass(frozen=True)
class Side:
    """One of the checkouts, and its server where the figure is of a running one."""

    testbed: Testbed
    server: Server | None = None

    @property
    def port(self) -> int:
        assert self.server is not None
        return int(self.server.port)


@dataclass(frozen=True)
class Figure:
    """One thing to measure. `gain` is what is wanted: the rate's ratio to the rate before, or the time's inverse."""

    name: str
    unit: str
    measure: Callable[[Side], float]
    gain: float = _NO_LOSS

    def row(self, before: Sequence[float], after: Sequence[float]) -> Row:
        value, reference = middle_round(after, before)
        wanted = times_at_least(self.gain) if self.unit.endswith("/s") else times_at_most(round(1 / self.gain, 2))
        return Row(self.name, value, self.unit, "before", reference, wanted)


def run(testbed: Testbed, before: Path, names: Iterable[str] = ()) -> list[Row]:
    """The figures of the groups `names`, or of all."""
    names = list(names) or GROUPS
    beds = [
        Testbed(testbed.data, testbed.new_path(name), quick=testbed.quick, root=root)
        for name, root in (("before", before.resolve()), ("after", testbed.root))
    ]
    rows = []
    for groups, folder in ((SERVED, "filled"), (SERVED_AUTO, "filled_auto"), (ALONE, None)):
        figures = [figure for name, make in groups.items() if name in names for figure in make(testbed)]
        if figures:
            with _sides(beds, folder) as sides:
                rows += _measure_in_turns(figures, sides)
    return rows


@contextlib.contextmanager
def _sides(beds: Sequence[Testbed], folder: str | None) -> Iterator[list[Side]]:
    """Both sides; with servers that have loaded all rows from `folder`, if it is named."""
    with contextlib.ExitStack() as stack:
        sides = []
        for bed in beds:
            bed.scratch.mkdir(exist_ok=True)
            server = stack.enter_context(bed.serving(getattr(bed, folder))) if folder else None
            if server is not None:
                warm(server, bed.data)
            sides.append(Side(bed, server))
        yield sides


def _measure_in_turns(figures: Sequence[Figure], sides: Sequence[Side]) -> list[Row]:
    rounds = sides[0].testbed.repeat(5)
    values: list[tuple[list[float], list[float]]] = [([], []) for _ in figures]
    for turn in progress(range(rounds), "rounds"):
        for figure, both in zip(figures, values, strict=True):
            for which in (0, 1) if turn % 2 else (1, 0):
                both[which].append(figure.measure(sides[which]))
    return [figure.row(*both) for figure, both in zip(figures, values, strict=True)]


def _libraries(data: Dataset) -> dict[str, str]:
    return {SMALL: f"{SMALL_ROWS:,} rows", ALL: f"{len(data):,} rows"}


def _bodies_file(testbed: Testbed, bodies: Iterable[bytes]) -> Path:
    path = testbed.new_path("queries")
    path.write_bytes(b"".join(body + b"\n" for body in bodies))
    return path


def _loads(name: str, gains: Mapping[str, float], headers: Sequence[str], busy: int, testbed: Testbed) -> list[Figure]:
    """Requests a second from 8 connections (wrk), by library."""
    bodies = _bodies_file(testbed, (testbed.data.query_body(query, as_array) for query in range(_QUERIES)))

    def measure(library: str, side: Side) -> float:
        with contextlib.ExitStack() as stack:
            for _ in range(busy):
                stack.enter_context(running([sys.executable, "-c", "while True: pass"]))
            return request.request_rate(testbed, f"http://127.0.0.1:{side.port}{query_path(library)}", bodies, headers)

    return [
        Figure(f"requests, {name}, {rows}", "requests/s", partial(measure, library), gains[library])
        for library, rows in _libraries(testbed.data).items()
    ]


def _httpx(testbed: Testbed) -> list[Figure]:
    """One httpx client with its pool: the median time of a query."""
    bodies = [testbed.data.query_body(query, as_array) for query in range(_QUERIES)]

    def measure(library: str, side: Side) -> float:
        headers = {"Content-Type": "application/json"}
        with httpx.Client(base_url=f"http://127.0.0.1:{side.port}", headers=headers, trust_env=False) as client:

            def ask(body: bytes) -> None:
                client.post(query_path(library), content=body).raise_for_status()

            return quantile(milliseconds_each(ask, bodies), 0.5)

    return [
        Figure(f"httpx with its pool, one client, p50, {rows}", "ms", partial(measure, library), 1.0)
        for library, rows in _libraries(testbed.data).items()
    ]


def _batches(testbed: Testbed) -> list[Figure]:
    batch = b'{"queries":[' + b",".join(testbed.data.query_body(query, as_array) for query in range(32)) + b"]}"

    def measure(library: str, side: Side) -> float:
        return request.batch_rate(testbed, side.port, library, batch)

    return [
        Figure(f"batches of 32, one client, {rows}", "queries/s", partial(measure, library))
        for library, rows in _libraries(testbed.data).items()
    ]


def _filters(testbed: Testbed) -> list[Figure]:
    def measure(bodies: Path, side: Side) -> float:
        return request.request_rate(testbed, f"http://127.0.0.1:{side.port}{query_path(ALL)}", bodies)

    figures = []
    for case in filters.CASES:
        bodies = (testbed.data.query_body(query, as_array, filter=case.filter) for query in range(_QUERIES))
        figures.append(
            Figure(f"requests, auto, {case.name}", "requests/s", partial(measure, _bodies_file(testbed, bodies)))
        )
    facet = orjson.dumps({"field": "topic"})
    return [*figures, Figure("facet of all rows, p50", "ms", partial(_p50, f"{chunks_path(ALL)}/facets", [facet] * 50))]


def _text(testbed: Testbed) -> list[Figure]:
    figures = []
    for name, texts in text.queries(testbed.data, 100).items():
        words = [orjson.dumps({"text": each, "mode": "lexical"}) for each in texts]
        both = [testbed.data.query_body(i, as_array, text=each, mode="hybrid") for i, each in enumerate(texts)]
        figures += [
            Figure(f"by words, {name}, p50", "ms", partial(_p50, query_path(ALL), words)),
            Figure(f"by words and vector, {name}, p50", "ms", partial(_p50, query_path(ALL), both)),
        ]
    return figures


def _p50(path: str, bodies: Sequence[bytes], side: Side) -> float:
    return quantile(milliseconds_each(lambda body: call(side.port, "POST", path, body), bodies), 0.5)


def _ingest(testbed: Testbed) -> list[Figure]:
    rows = ingest.QUICK_ROWS if testbed.quick else len(testbed.data)

    def measure(encode: Callable[[Float32], bytes], side: Side) -> float:
        return rows / ingest.time_ingest(side.testbed, rows, encode)

    return [
        Figure("ingest, JSON arrays", "rows/s", partial(measure, as_array)),
        Figure("ingest, base64", "rows/s", partial(measure, as_base64)),
    ]


def _cold_start(testbed: Testbed) -> list[Figure]:
    def measure(index_files: bool, side: Side) -> float:
        return cold_start.time_first_answer(side.testbed, side.testbed.filled, index_files=index_files)

    return [
        Figure("first answer after the start", "s", partial(measure, True)),
        Figure("first answer after the start, no index files", "s", partial(measure, False)),
    ]


def _memory(testbed: Testbed) -> list[Figure]:
    return [
        Figure("PSS, together", "MiB", lambda side: sum(memory.shares(side.testbed, side.testbed.filled).values())),
        Figure(
            "PSS, four workers, auto",
            "MiB",
            lambda side: memory.workers_together(side.testbed, side.testbed.filled_auto, 4),
        ),
    ]


# Groups by what is served: an exact library of all rows, an `auto` one, or what the figure starts by itself.
SERVED: dict[str, Callable[[Testbed], list[Figure]]] = {
    "keep_alive": partial(_loads, "keep-alive", {SMALL: 1.0, ALL: 1.0}, (), 0),
    "new_connections": partial(_loads, "a connection each", {SMALL: 0.8, ALL: 0.8}, ("Connection: close",), 0),
    "busy": partial(_loads, "keep-alive, cores busy", {SMALL: 1.5, ALL: 1.2}, (), _BUSY_PROCESSES),
    "httpx": _httpx,
    "batches": _batches,
}
SERVED_AUTO: dict[str, Callable[[Testbed], list[Figure]]] = {"filters": _filters, "text": _text}
ALONE: dict[str, Callable[[Testbed], list[Figure]]] = {
    "ingest": _ingest,
    "cold_start": _cold_start,
    "memory": _memory,
}
GROUPS = [*SERVED, *SERVED_AUTO, *ALONE]
