"""The Python client beside bare requests of its HTTP library, and with --chroma-python beside Chroma's client and
server.

Queries and uploads take turns with their references in one run, on one server. What is uploaded are the vectors, as one
array, with ids. Bare uploads send bodies that were made beforehand, by raw sockets, in the best of four ways, and
without an Idempotency-Key, for which the server keeps the answers to the client's. Bare queries leave the answer
unparsed.
"""

import asyncio
import contextlib
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from statistics import median
from typing import Any

import httpx2
import orjson

from benchmarks import chroma_sdk
from benchmarks.client import Connection
from benchmarks.dataset import as_base64, map_bodies
from benchmarks.peers import chroma_server
from benchmarks.report import Row, at_most, times_at_least, times_at_most
from benchmarks.testbed import SMALL, Testbed, chunks_path, create_library, query_path
from benchmarks.timing import middle_round, milliseconds_each, seconds
from tests.server import ROOT

sys.path.insert(0, str(ROOT / "sdk" / "src"))

from vectordb_client import AsyncClient, Client

_QUERIES, _CONCURRENT = 500, 32
_QUICK_ROWS = 20_000
_JSON = {"Content-Type": "application/json"}


def run(testbed: Testbed) -> list[Row]:
    rows = [_import_time(testbed)]
    with testbed.serving(testbed.filled) as server:
        rows += [_query(testbed, server.url), asyncio.run(_concurrent_queries(testbed, server.url))]
    count = _QUICK_ROWS if testbed.quick else len(testbed.data)
    ours = _upload(testbed, count)
    rows += [ours, _upload_cost(testbed, count)]
    if testbed.chroma_python is not None:
        rows += _beside_chroma(testbed, count, ours)
    return rows


def _import_time(testbed: Testbed) -> Row:
    times: defaultdict[str, list[float]] = defaultdict(list)
    for _ in range(testbed.repeat(9, 3)):
        for code in ("pass", "import vectordb_client"):
            command = [sys.executable, "-c", code]
            environment = {"PYTHONPATH": str(ROOT / "sdk" / "src")}
            times[code].append(seconds(partial(subprocess.run, command, env=environment, check=True)))
    took = median(times["import vectordb_client"]) - median(times["pass"])
    return Row("client, import", took, "s", wanted=at_most(0.25))


def _query(testbed: Testbed, url: str) -> Row:
    """The median time of a query of a thousand rows, over a connection that is kept."""
    data, rounds = testbed.data, testbed.repeat(9, 3)
    with Client(url) as client, httpx2.Client(timeout=60) as http:
        library, address = client.library(SMALL), f"{url}{query_path(SMALL)}"
        bodies = [data.query_body(query, as_base64) for query in range(_QUERIES)]
        sides: dict[str, Callable[[int], Any]] = {
            "ours": lambda query: library.query(data.queries[query], k=10),
            "bare": lambda query: http.post(address, content=bodies[query], headers=_JSON),
        }
        assert len(library.query(data.queries[0], k=10)) == len(sides["bare"](0).json()["results"]) == 10
        p50 = defaultdict(list)
        for turn in range(rounds):
            for name in list(sides)[:: 1 if turn % 2 else -1]:
                p50[name].append(median(milliseconds_each(sides[name], range(_QUERIES))))
    value, reference = middle_round(p50["ours"], p50["bare"])
    return Row("client, query p50, 1,000 rows", value, "ms", "httpx2, bare", reference, times_at_most(1.25))


async def _concurrent_queries(testbed: Testbed, url: str) -> Row:
    """Queries a second by 32 tasks of one event loop."""
    data, address = testbed.data, f"{url}{query_path(SMALL)}"
    bodies = [data.query_body(query, as_base64) for query in range(_QUERIES)]
    limits = httpx2.Limits(max_connections=_CONCURRENT, max_keepalive_connections=_CONCURRENT)
    async with AsyncClient(url) as client, httpx2.AsyncClient(timeout=60, limits=limits) as http:
        library = client.library(SMALL)
        sides: dict[str, Callable[[int], Coroutine[Any, Any, Any]]] = {
            "ours": lambda query: library.query(data.queries[query], k=10),
            "bare": lambda query: http.post(address, content=bodies[query], headers=_JSON),
        }

        async def rate(ask: Callable[[int], Coroutine[Any, Any, Any]], times: int) -> float:
            todo = iter([query % _QUERIES for query in range(times)])

            async def work() -> None:
                for query in todo:
                    await ask(query)

            began = asyncio.get_running_loop().time()
            await asyncio.gather(*(work() for _ in range(_CONCURRENT)))
            return times / (asyncio.get_running_loop().time() - began)

        rates = defaultdict(list)
        for turn in range(testbed.repeat(9, 3)):
            for name in list(sides)[:: 1 if turn % 2 else -1]:
                rates[name].append(await rate(sides[name], testbed.repeat(3000, 1000)))
    value, reference = middle_round(rates["ours"], rates["bare"])
    return Row("client, 32 concurrent", value, "queries/s", "httpx2, bare", reference, times_at_least(0.85))


def _upload(testbed: Testbed, count: int) -> Row:
    data, ids = testbed.data, [row["id"] for row in testbed.data.rows[: testbed.data.vectors.shape[0]]]
    ways = [(size, parallel) for size in (1000, 2000) for parallel in (2, 4)]
    bodies = {
        size: map_bodies(
            testbed.new_path("bodies"),
            (_vectors_body(testbed, ids, range(start, min(start + size, count))) for start in range(0, count, size)),
        )
        for size, _ in ways
    }
    rates: defaultdict[Any, list[float]] = defaultdict(list)
    with testbed.serving(testbed.new_path("upload")) as server, Client(server.url) as client:
        number = 0

        def timed(upload: Callable[[str], object]) -> float:
            nonlocal number
            number += 1
            library = f"upload-{number}"
            create_library(server.port, library, data.dimension)
            took = seconds(upload, library)
            assert client.library(library).count() == count
            client.libraries.delete(library)
            return count / took

        best = max(ways, key=lambda way: timed(partial(_send, server.port, bodies[way[0]], way[1])))
        sides: dict[str, Callable[[str], object]] = {
            "bare": partial(_send, server.port, bodies[best[0]], best[1]),
            "ours": lambda library: client.library(library).upload(vectors=data.vectors[:count], ids=ids[:count]),
        }
        for turn in range(testbed.repeat(5, 3)):
            for name in list(sides)[:: 1 if turn % 2 else -1]:
                rates[name].append(timed(sides[name]))
    value, reference = middle_round(rates["ours"], rates["bare"])
    way = f"raw, {best[0]} rows a request, {best[1]} at once"
    return Row(f"client, upload of {count:,} vectors", value, "rows/s", way, reference, times_at_least(0.9))


def _upload_cost(testbed: Testbed, count: int) -> Row:
    """The processor time of all that the client does for the same upload but to send it."""
    data, ids = testbed.data, [row["id"] for row in testbed.data.rows[:count]]
    written = httpx2.MockTransport(lambda _: httpx2.Response(200, json={"ids": [], "created": 0, "updated": 0}))
    took = []
    with Client("http://nowhere", transport=written) as client:
        for _ in range(testbed.repeat(5, 3)):
            began = time.process_time()
            client.library("any").upload(vectors=data.vectors[:count], ids=ids)
            took.append((time.process_time() - began) / count * 1e6)
    return Row(f"client, upload of {count:,} vectors, its processor time", median(took), "µs/row")


def _vectors_body(testbed: Testbed, ids: list[str], rows: range) -> bytes:
    chunks = (
        b'{"id":' + orjson.dumps(ids[row]) + b',"embedding":' + as_base64(testbed.data.vectors[row]) + b"}"
        for row in rows
    )
    return b'{"chunks":[' + b",".join(chunks) + b"]}"


def _send(port: int, bodies: list[memoryview], parallel: int, library: str) -> None:
    todo = iter(bodies)

    def work() -> None:
        with Connection(port) as connection:
            for body in todo:
                connection.call("POST", chunks_path(library), body)

    with ThreadPoolExecutor(parallel) as pool:
        for future in [pool.submit(work) for _ in range(parallel)]:
            future.result()


def _beside_chroma(testbed: Testbed, count: int, upload: Row) -> list[Row]:
    """Chroma's client against its server, with the same rows; each row's reference is Chroma. Queries take turns."""
    data, p50 = testbed.data, defaultdict(list)
    with (
        chroma_server(str(testbed.chroma_python), testbed.new_path("chroma-sdk")) as chroma,
        _ask_chroma(testbed, chroma.port, count) as ask,
        testbed.serving(testbed.filled) as server,
        Client(server.url) as client,
    ):
        library = client.library(SMALL)

        def query(number: int) -> object:
            return library.query(data.queries[number], k=10)

        for turn in range(testbed.repeat(8, 3)):
            ours, theirs = median(milliseconds_each(query, range(_QUERIES))), ask("query")
            # The first turn opens connections.
            if turn:
                p50["ours"].append(ours)
                p50["Chroma"].append(theirs)
        rate = ask("upload")
    value, reference = middle_round(p50["ours"], p50["Chroma"])
    return [
        Row("client, query p50, 1,000 rows", value, "ms", "Chroma's client", reference, times_at_most(0.5)),
        Row(upload.name, upload.value, "rows/s", "Chroma's client", rate, times_at_least(8)),
    ]


@contextlib.contextmanager
def _ask_chroma(testbed: Testbed, port: int, count: int) -> Iterator[Callable[[str], float]]:
    """A function that has Chroma's client measure something, as benchmarks/chroma_sdk.py has it."""
    command = [str(testbed.chroma_python), chroma_sdk.__file__, str(port), str(testbed.data.folder), str(count)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        lines, answers = process.stdin, process.stdout

        def ask(what: str) -> float:
            print(what, file=lines, flush=True)
            return float(answers.readline())

        yield ask
        lines.close()


__all__ = ["run"]
