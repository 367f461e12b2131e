"""Catching up: what a query costs more on a worker that has yet to see a write of one row into all rows.

Two servers of one worker each run on the same folder, so that it is known who answers: one is written to, the other
is asked. Before the query without a write, the first server answers a request that writes nothing, so that the second
rests as long. A write into another library costs the second server its database's page cache, and no more.
"""

from collections import defaultdict
from collections.abc import Callable
from statistics import median

from benchmarks.client import call, call_json
from benchmarks.dataset import as_base64
from benchmarks.report import Row, above_at_most
from benchmarks.testbed import ALL, OTHER, Testbed, chunks_path, query_path
from benchmarks.timing import seconds

_REFERENCE = "without a write"


def run(testbed: Testbed) -> list[Row]:
    data = testbed.data
    times = defaultdict(list)
    folder = testbed.copy_of_filled()
    with testbed.serving(folder, VECTORDB_WORKERS=1) as first, testbed.serving(folder, VECTORDB_WORKERS=1) as second:

        def write(library: str, turn: int) -> None:
            """Write a new row; its vector is that of a row, so that it is among the results."""
            row = {"id": f"new-{turn}", "text": "new", "embedding": data.vectors[turn], "metadata": {"turn": turn}}
            call_json(first.port, "POST", chunks_path(library), {"chunks": [row]})

        befores: dict[str, Callable[[int], None]] = {
            _REFERENCE: lambda _: call_json(first.port, "GET", f"/api/v1/libraries/{ALL}"),
            "after a write into another library": lambda turn: write(OTHER, turn),
            "after a write of 1 row": lambda turn: write(ALL, turn),
        }
        for turn in range(testbed.repeat(200, 50)):
            body = data.query_body(turn % len(data.queries), as_base64)
            for name, before in befores.items():
                before(turn)
                times[name].append(seconds(call, second.port, "POST", query_path(ALL), body) * 1000)
            nearest = call_json(second.port, "POST", query_path(ALL), {"vector": data.vectors[turn], "k": 5})["results"]
            assert f"new-{turn}" in [result["id"] for result in nearest], "the written row was not found"
    reference = median(times.pop(_REFERENCE))
    wanted = {"after a write of 1 row": above_at_most(2)}
    return [
        Row(f"query on the other worker, p50, {name}", median(values), "ms", _REFERENCE, reference, wanted.get(name))
        for name, values in times.items()
    ]
