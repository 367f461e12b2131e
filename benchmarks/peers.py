"""The whole server with an `auto` index beside a Chroma server (PyPI: chromadb, in a virtual environment of its own):
the same rows and queries, in one run, in turns. Only with --chroma-python.

A list in the metadata is sent to Chroma as its JSON text, since its lists have rules of their own.
"""

import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import orjson

from benchmarks.client import HttpError, call, call_json
from benchmarks.dataset import Dataset, as_array, map_bodies
from benchmarks.guards import ALL_ON
from benchmarks.report import Row, at_least, times_at_least
from benchmarks.request import request_rate
from benchmarks.testbed import (
    ALL,
    ROWS_PER_WRITE,
    Testbed,
    chunks_path,
    create_library,
    free_port,
    query_path,
    running,
    wait_for_answer,
    wait_until_built,
    warm,
)
from benchmarks.timing import middle_round, milliseconds_each, progress, seconds

_COLLECTIONS = "/api/v2/tenants/default_tenant/databases/default_database/collections"
_OURS, _CHROMA, _OURS_FOR_RECALL = "ours", "Chroma", "ours for Chroma's recall"
# With keys, limits, log lines, metrics and the recall watch.
_GUARDED = "ours, all on"
_QUERIES, _PER_BATCH = 500, 32


def run(testbed: Testbed) -> list[Row]:
    """Both servers hold all rows and take turns: one is idle while the other is measured."""
    assert testbed.chroma_python is not None
    data = testbed.data
    folder, guarded_folder = testbed.new_path("peer"), testbed.new_path("guarded")
    with testbed.serving(folder) as ours:
        create_library(ours.port, ALL, data.dimension, index_type="auto")
        bodies = map_bodies(testbed.new_path("bodies"), (data.chunks_body(rows, as_array) for rows in _portions(data)))
        rate = len(data) / _send(ours.port, chunks_path(ALL), bodies)
        built = wait_until_built(ours.port, ALL)
    shutil.copytree(folder, guarded_folder)
    with (
        testbed.serving(folder) as ours,
        testbed.serving(guarded_folder, **ALL_ON) as guarded,
        chroma_server(testbed.chroma_python, testbed.new_path("chroma")) as theirs,
    ):
        warm(ours, data)
        bodies = map_bodies(testbed.new_path("bodies"), (chroma_rows(data, rows) for rows in _portions(data)))
        their_rate = len(data) / _send(theirs.port, f"{theirs.path}/upsert", bodies)
        settle(lambda: call(theirs.port, "POST", f"{theirs.path}/query", _chroma_query(data, range(1))))
        sides = {
            _OURS: _Side(
                ours.port, query_path(ALL), lambda queries: _our_query(data, queries), f"{query_path(ALL)}/batch"
            ),
            _CHROMA: _Side(theirs.port, f"{theirs.path}/query", lambda queries: _chroma_query(data, queries)),
            _GUARDED: _Side(
                guarded.port, query_path(ALL), lambda queries: _our_query(data, queries), key=guarded.authorization
            ),
        }
        recalls = {name: _recall(testbed, name, sides[name]) for name in (_OURS, _CHROMA)}
        params = {"recall": round(recalls[_CHROMA], 3)}
        asking = _Side(ours.port, query_path(ALL), lambda queries: _our_query(data, queries, search_params=params))
        try:
            recalls[_OURS_FOR_RECALL] = _recall(testbed, _OURS_FOR_RECALL, asking)
            sides[_OURS_FOR_RECALL] = asking
        except HttpError as error:
            print(f"peers: {_OURS_FOR_RECALL} is left out, {error}", file=sys.stderr)
        found = _time_in_turns(testbed, sides)
    middle = {what: {name: found[what, name] for name in sides} for what in ("load", "single", "batch")}
    loads = middle_round(middle["load"][_OURS], middle["load"][_CHROMA])
    batches = middle_round(middle["batch"][_OURS], middle["batch"][_CHROMA])
    guarded_loads = middle_round(middle["load"][_GUARDED], middle["load"][_CHROMA])
    singles = [median(middle["single"][name]) for name in (_OURS, _CHROMA)]
    rows = [
        Row(f"ingest, {len(data):,} rows, JSON arrays", rate, "rows/s", _CHROMA, their_rate),
        Row("from the last row to the last segment", built, "s"),
        Row("requests, 8 connections", loads[0], "requests/s", _CHROMA, loads[1], times_at_least(4)),
        Row("requests, all on", guarded_loads[0], "requests/s", _CHROMA, guarded_loads[1], times_at_least(3.5)),
        Row("batches of 32, one client", batches[0], "queries/s", _CHROMA, batches[1], times_at_least(2)),
        Row("query p50, one client", singles[0], "ms", _CHROMA, singles[1]),
        Row("recall@10", recalls[_OURS], "", _CHROMA, recalls[_CHROMA], at_least(0.99)),
    ]
    if _OURS_FOR_RECALL in sides:
        loads = middle_round(middle["load"][_OURS_FOR_RECALL], middle["load"][_CHROMA])
        found_share, wanted = recalls[_OURS_FOR_RECALL], recalls[_CHROMA]
        rows += [
            Row(
                f"requests for recall {params['recall']}", loads[0], "requests/s", _CHROMA, loads[1], times_at_least(5)
            ),
            Row(f"recall@10 for recall {wanted:.3f}", found_share, "", _CHROMA, wanted, times_at_least(1)),
        ]
    return rows


@dataclass(frozen=True)
class _Side:
    """A server: where it is asked, what a request for some queries looks like, where a batch is asked."""

    port: int
    path: str
    body: Callable[[range], bytes]
    batch_path: str | None = None
    key: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Chroma:
    port: int
    path: str


@contextmanager
def chroma_server(python: str, folder: Path) -> Iterator[_Chroma]:
    """A Chroma server with an empty collection in `folder`, at its defaults but `ef_search` 64 (its default is 100).
    `python` is that of its virtual environment."""
    port = free_port()
    chroma = Path(python).with_name("chroma")
    command = [str(chroma), "run", "--path", str(folder), "--host", "127.0.0.1", "--port", str(port)]
    with running(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        wait_for_answer(process, port, "/api/v2/heartbeat")
        settings = {"name": ALL, "configuration": {"hnsw": {"space": "cosine", "ef_search": 64}}}
        yield _Chroma(port, f"{_COLLECTIONS}/{call_json(port, 'POST', _COLLECTIONS, settings)['id']}")


def settle(ask: Callable[[], object]) -> None:
    """Ask until the answer no longer takes longer than it will: a collection may still be building its index."""
    best, same = float("inf"), 0
    for _ in range(200):
        took = seconds(ask)
        same = same + 1 if took > best * 0.9 else 0
        best = min(best, took)
        if same >= 20:
            return


def _time_in_turns(testbed: Testbed, sides: dict[str, _Side]) -> defaultdict[tuple[str, str], list[float]]:
    found: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
    files = {}
    for name, side in sides.items():
        files[name] = testbed.new_path("queries")
        files[name].write_bytes(b"".join(side.body(range(i, i + 1)) + b"\n" for i in range(_QUERIES)))
    names = list(sides)
    for turn in range(testbed.repeat(5)):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            side = sides[name]
            ask = partial(call, side.port, "POST", side.path)
            if name != _GUARDED:
                singles = [side.body(range(i, i + 1)) for i in range(turn * 100, turn * 100 + testbed.repeat(100, 20))]
                found["single", name] += milliseconds_each(ask, singles)
            if shutil.which("wrk"):
                found["load", name].append(
                    request_rate(
                        testbed,
                        f"http://127.0.0.1:{side.port}{side.path}",
                        files[name],
                        [f"{header}: {value}" for header, value in side.key.items()],
                    )
                )
            if name not in (_OURS, _CHROMA):
                continue
            batch = side.body(range(_PER_BATCH))
            ask = partial(call, side.port, "POST", side.batch_path or side.path)
            times = milliseconds_each(ask, [batch] * testbed.repeat(15, 3))
            found["batch", name].append(_PER_BATCH / median(times) * 1000)
    return found


def _recall(testbed: Testbed, name: str, side: _Side) -> float:
    """The share of the true ten nearest rows that are found, by distance."""
    data = testbed.data
    count = testbed.repeat(500, 100)
    hits = 0
    for query in range(count):
        answer = orjson.loads(call(side.port, "POST", side.path, side.body(range(query, query + 1))))
        ids = answer["ids"][0] if name == _CHROMA else [result["id"] for result in answer["results"]]
        rows = sorted({data.positions[row] for row in ids})
        scores = data.vectors[rows].astype(np.float64) @ data.queries[query].astype(np.float64)
        hits += int(np.count_nonzero(scores >= data.scores[query, 9] - 1e-6))
    return hits / (10 * count)


def _our_query(data: Dataset, queries: range, **options: Any) -> bytes:
    if len(queries) == 1:
        return data.query_body(queries[0], as_array, **options)
    return b'{"queries":[' + b",".join(data.query_body(query, as_array) for query in queries) + b"]}"


def _chroma_query(data: Dataset, queries: range) -> bytes:
    vectors = b",".join(as_array(data.queries[query]) for query in queries)
    return b'{"query_embeddings":[' + vectors + b'],"n_results":10,"include":["documents","metadatas","distances"]}'


def chroma_rows(data: Dataset, rows: range) -> bytes:
    """The body of an upsert of `rows`."""
    parsed = [data.rows[row] for row in rows]
    body = {
        "ids": [row["id"] for row in parsed],
        "documents": [row["text"] for row in parsed],
        "metadatas": [
            {
                key: orjson.dumps(value).decode() if isinstance(value, list) else value
                for key, value in row["metadata"].items()
            }
            for row in parsed
        ],
    }
    vectors = b",".join(as_array(vector) for vector in data.vectors[rows.start : rows.stop])
    return orjson.dumps(body)[:-1] + b',"embeddings":[' + vectors + b"]}"


def _portions(data: Dataset) -> Iterator[range]:
    for start in range(0, len(data), ROWS_PER_WRITE):
        yield range(start, min(start + ROWS_PER_WRITE, len(data)))


def _send(port: int, path: str, bodies: list[memoryview]) -> float:
    """The seconds that all requests take."""

    def send_all() -> None:
        for body in progress(bodies, "ingest"):
            call(port, "POST", path, body)

    return seconds(send_all)
