"""What index files cost and give: opening them in a new process, and building them again from the database alone.

Opening is timed inside the process, beyond its imports: from the snapshot to the first answer, all checksums verified.
Run as `python -m benchmarks.opening QUERIES` with VECTORDB_DATA_DIR set, this file is that process; it prints seconds.
"""

import os
import sys
import time
from pathlib import Path
from statistics import median

import numpy as np

from benchmarks.client import call, call_json
from benchmarks.dataset import as_array
from benchmarks.report import Row, at_most
from benchmarks.testbed import ALL, Testbed, query_path, run_module, wait_until_built

_MEMCPY = "one pass over the files' bytes"


def run(testbed: Testbed) -> list[Row]:
    data = testbed.data
    query = testbed.new_path("query").with_suffix(".npy")
    np.save(query, data.queries[0])
    folder = testbed.copy_of_filled()
    with testbed.serving(folder) as server:
        began = time.monotonic()
        call_json(server.port, "POST", f"/api/v1/libraries/{ALL}/reindex", {"index_type": "auto"})
        waited, slowest, inexact = _ask_until_ready(testbed, server.port, began)
        wait_until_built(server.port, ALL)
    opened = [
        [float(number) for number in run_module("opening", str(query), folder=folder).split()]
        for _ in range(testbed.repeat(5))
    ]
    seconds, reference = (median(column) for column in zip(*opened, strict=True))
    return [
        Row("from the request to rebuild to the segment of the configured type", waited, "s", wanted=at_most(10)),
        Row("slowest exact query meanwhile", slowest, "ms"),
        Row("exact queries meanwhile that were not exact", inexact, "", wanted=at_most(0)),
        Row("opening index files to the first answer", seconds, "s", _MEMCPY, reference, at_most(0.5)),
    ]


def _ask_until_ready(testbed: Testbed, port: int, began: float) -> tuple[float, float, int]:
    """Seconds until the index is built, the slowest exact query meanwhile in ms, and how many were not exact."""
    slowest, inexact = 0.0, 0
    body = testbed.data.query_body(0, as_array)[:-1] + b',"exact":true}'
    while True:
        asked = time.perf_counter()
        answer = call(port, "POST", query_path(ALL), body)
        slowest = max(slowest, (time.perf_counter() - asked) * 1000)
        inexact += b'"exact":true' not in answer
        index = call_json(port, "GET", f"/api/v1/libraries/{ALL}/stats")["index"]
        kinds = [segment["kind"] for segment in index["segments"]]
        if index["state"] == "ready" and kinds == ["quantized"]:
            return time.monotonic() - began, slowest, inexact
        time.sleep(0.02)


def main(query: str) -> None:
    import django

    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "vectordb.settings")
    django.setup()

    from django.conf import settings

    from apps.engine import kernels
    from apps.engine.indexes.registry import INDEX_TYPES, index_type
    from apps.search.cache import views
    from apps.search.snapshots import open_snapshot

    kernels.load()
    for kind in INDEX_TYPES:
        index_type(kind)
    import faiss  # noqa: F401

    vector = np.load(query)
    began = time.perf_counter()
    with open_snapshot() as snapshot:
        current = views.current(snapshot, ALL)
    assert current.view is not None
    assert current.manifest is not None
    [hits] = current.view.search(vector[np.newaxis], 10)
    opened = time.perf_counter() - began
    assert len(hits.keys) == 10
    began = time.perf_counter()
    for path in Path(settings.INDEX_DIR).rglob("*.npy"):
        path.read_bytes()
    print(opened, time.perf_counter() - began)


if __name__ == "__main__":
    main(sys.argv[1])
