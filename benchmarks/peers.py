"""The same rows and queries given to a Chroma server (PyPI: chromadb, in a virtual environment of its own), beside
ours in the same run. Only with --peers and --chroma-python.

A list in the metadata is sent to Chroma as its JSON text, since its lists have rules of their own.
"""

import subprocess
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import orjson

from benchmarks.client import call, call_json
from benchmarks.dataset import Dataset, as_array, mapped
from benchmarks.report import Row
from benchmarks.stage import (
    ALL,
    ROWS_PER_WRITE,
    Stage,
    chunks_path,
    create_library,
    free_port,
    query_path,
    running,
    wait_for_answer,
    warm,
)
from benchmarks.timing import milliseconds_each, progress, seconds

_COLLECTIONS = "/api/v2/tenants/default_tenant/databases/default_database/collections"
_CHROMA = "Chroma"


def run(stage: Stage) -> list[Row]:
    assert stage.chroma_python is not None
    rows, queries = len(stage.data), stage.repeat(500, 100)
    chroma_rate, chroma_times = _chroma(stage, queries)
    rate, times = _ours(stage, queries)
    return [
        Row(f"ingest, {rows:,} rows, JSON arrays", rate, "rows/s", _CHROMA, chroma_rate),
        Row("query p50, one client (ours is exact, Chroma's HNSW)", median(times), "ms", _CHROMA, median(chroma_times)),
    ]


def _ours(stage: Stage, queries: int) -> tuple[float, list[float]]:
    data = stage.data
    bodies = mapped(stage.new_path("bodies"), (data.chunks_body(rows, as_array) for rows in _portions(data)))
    with stage.serving(stage.new_path("peer")) as server:
        create_library(server.port, ALL, data.dimension)
        took = _send(server.port, chunks_path(ALL), bodies)
        warm(server, data)
        wanted = [data.query_body(query, as_array) for query in range(queries)]
        times = milliseconds_each(lambda body: call(server.port, "POST", query_path(ALL), body), wanted)
    return len(data) / took, times


def _chroma(stage: Stage, queries: int) -> tuple[float, list[float]]:
    data = stage.data
    port, folder = free_port(), stage.new_path("chroma")
    chroma = Path(stage.chroma_python or "").with_name("chroma")
    bodies = mapped(stage.new_path("bodies"), (_chroma_rows(data, rows) for rows in _portions(data)))
    command = [str(chroma), "run", "--path", str(folder), "--host", "127.0.0.1", "--port", str(port)]
    with running(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        wait_for_answer(process, port, "/api/v2/heartbeat")
        settings = {"name": ALL, "configuration": {"hnsw": {"space": "cosine"}}}
        path = f"{_COLLECTIONS}/{call_json(port, 'POST', _COLLECTIONS, settings)['id']}"
        took = _send(port, f"{path}/upsert", bodies)
        wanted = [
            b'{"query_embeddings":['
            + as_array(query)
            + b'],"n_results":10,"include":["documents","metadatas","distances"]}'
            for query in data.queries[:queries]
        ]
        milliseconds_each(lambda body: call(port, "POST", f"{path}/query", body), wanted[:20])
        times = milliseconds_each(lambda body: call(port, "POST", f"{path}/query", body), wanted)
    return len(data) / took, times


def _chroma_rows(data: Dataset, rows: range) -> bytes:
    parsed = [orjson.loads(data.lines[row]) for row in rows]
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
