"""Filtered queries of an `auto` library beside unfiltered ones: requests a second from 8 connections, recall, batches,
facets; and in a process of its own, by one thread and without HTTP, how long a filter and its search take, and what the
columns cost that filters look at.

Run as `python -m benchmarks.filters DATA REPEAT` with VECTORDB_DATA_DIR set, this file is that process; it prints JSON.
"""

import os
import shutil
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from statistics import median
from typing import Any

import orjson

from benchmarks.client import call
from benchmarks.dataset import Dataset, as_array
from benchmarks.filtered import ANIMAL, COMBINED, MOTIVE, NOUN, SYNONYMS, UNFILTERED, Case, Truth
from benchmarks.report import Row, Wanted, at_least, at_most, times_at_least
from benchmarks.request import request_rate
from benchmarks.testbed import ALL, ONE_THREAD, Testbed, chunks_path, query_path, run_module, warm
from benchmarks.timing import middle_round, milliseconds_each, progress, seconds
from tests.server import Server

CASES = (ANIMAL, NOUN, MOTIVE, SYNONYMS, COMBINED)
# Of filters with fewer rows, every right row is wanted: they are scanned exactly.
_FEW_ROWS = 10_000
_QUERIES = 500
_PER_BATCH = 32
_FACET = "topic"
_FACET_ROW = f"facet of {_FACET}, all rows"
_WITHIN = "in process, filter and search, p50"
_MIB = 1 << 20


def run(testbed: Testbed) -> list[Row]:
    with testbed.serving(testbed.filled_auto) as server:
        warm(server, testbed.data)
        rows = [*_rates(testbed, server), *_recalls(testbed, server), *_batches(testbed, server)]
        body = orjson.dumps({"field": _FACET})
        times = milliseconds_each(
            lambda body: call(server.port, "POST", f"{chunks_path(ALL)}/facets", body), [body] * testbed.repeat(100, 20)
        )
        rows.append(Row(f"{_FACET_ROW}, p50, over HTTP", median(times), "ms"))
    return rows + _in_process(testbed)


def _rates(testbed: Testbed, server: Server) -> list[Row]:
    if shutil.which("wrk") is None:
        print("filters: wrk is not installed (Debian: apt install wrk), so rates are left out", file=sys.stderr)
        return []
    files = {}
    for case in (UNFILTERED, *CASES):
        files[case] = testbed.new_path("queries")
        files[case].write_bytes(b"".join(_body(testbed.data, case, query) + b"\n" for query in range(_QUERIES)))
    rates: defaultdict[Case, list[float]] = defaultdict(list)
    for _ in progress(range(testbed.repeat(5)), "filters"):
        for case, file in files.items():
            rates[case].append(request_rate(testbed, f"{server.url}{query_path(ALL)}", file))
    rows = []
    for case in CASES:
        rate, reference = middle_round(rates[case], rates[UNFILTERED])
        rows.append(Row(f"requests, {case.name}", rate, "requests/s", UNFILTERED.name, reference, times_at_least(0.5)))
    return rows


def _recalls(testbed: Testbed, server: Server) -> list[Row]:
    rows = []
    for case in CASES:
        truth = Truth(testbed.data, case, testbed.repeat(_QUERIES, 100))
        answers = []
        for query in range(testbed.repeat(_QUERIES, 100)):
            answer = orjson.loads(call(server.port, "POST", query_path(ALL), _body(testbed.data, case, query)))
            answers.append([testbed.data.positions[result["id"]] for result in answer["results"]])
        name = f"recall@10, {case.name} ({truth.count:,} rows)"
        rows.append(Row(name, truth.recall(answers), "", wanted=_recall_wanted(truth)))
    return rows


def _recall_wanted(truth: Truth) -> Wanted:
    return at_least(1 if truth.count < _FEW_ROWS else 0.99)


def _batches(testbed: Testbed, server: Server) -> list[Row]:
    bodies = {
        case: b'{"queries":[' + b",".join(_body(testbed.data, case, query) for query in range(_PER_BATCH)) + b"]}"
        for case in (UNFILTERED, ANIMAL, NOUN)
    }
    rates: defaultdict[Case, list[float]] = defaultdict(list)
    path = f"{query_path(ALL)}/batch"
    for _ in range(testbed.repeat(5)):
        for case, body in bodies.items():
            times = milliseconds_each(
                lambda body: call(server.port, "POST", path, body), [body] * testbed.repeat(15, 3)
            )
            rates[case].append(_PER_BATCH / median(times) * 1000)
    rows = [Row(f"batches of {_PER_BATCH}, {UNFILTERED.name}, one client", median(rates[UNFILTERED]), "queries/s")]
    for case in (ANIMAL, NOUN):
        rate, reference = middle_round(rates[case], rates[UNFILTERED])
        rows.append(Row(f"batches of {_PER_BATCH}, {case.name}", rate, "queries/s", UNFILTERED.name, reference))
    return rows


def _body(data: Dataset, case: Case, query: int) -> bytes:
    return data.query_body(query, as_array, filter=case.filter)


def _in_process(testbed: Testbed) -> list[Row]:
    repeat = str(testbed.repeat(_QUERIES, 100))
    printed = run_module("filters", str(testbed.data.folder), repeat, folder=testbed.filled_auto, **ONE_THREAD)
    found = orjson.loads(printed)
    rows = []
    for case, wanted in ((ANIMAL, 0.5), (NOUN, 1.2), (MOTIVE, None), (SYNONYMS, None), (COMBINED, None)):
        rows.append(
            Row(
                f"{_WITHIN}, {case.name}",
                found["ms"][case.name],
                "ms",
                UNFILTERED.name,
                found["ms"][UNFILTERED.name],
                at_most(wanted) if wanted else None,
            )
        )
    animal = Truth(testbed.data, ANIMAL, len(found["animal"]))
    return [
        *rows,
        Row(f"recall@10, in process, {ANIMAL.name}", animal.recall(found["animal"]), "", wanted=at_least(1)),
        Row(f"{_FACET_ROW}, p50, in process", found["facet_ms"], "ms", wanted=at_most(3)),
        Row(f"columns of {len(testbed.data):,} rows, built", found["columns_s"], "s", wanted=at_most(2)),
        Row("files of columns, mapped", found["columns_bytes"] / _MIB, "MiB", wanted=at_most(60)),
    ]


def main(data_folder: str, repeat: int) -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "vectordb.settings")

    import django

    django.setup()

    from apps.engine import kernels
    from apps.engine.metadata.facets import ValuePage
    from apps.engine.storage.view import View
    from apps.search.cache import views
    from apps.search.query.spec import EVERYTHING
    from apps.search.snapshots import open_snapshot

    kernels.load()
    data = Dataset.load(data_folder)
    with open_snapshot() as snapshot:
        view = views.current(snapshot, ALL).view
        ids = dict(snapshot.rows("SELECT id, public_id FROM vectordb_chunk"))
    assert isinstance(view, View)
    times: defaultdict[str, list[float]] = defaultdict(list)
    keys: defaultdict[str, list[list[int]]] = defaultdict(list)
    for query in range(-10, repeat):
        for case in (UNFILTERED, *CASES):
            took, found = _timed_search(view, data, case, query)
            if query >= 0:
                times[case.name].append(took * 1000)
                keys[case.name].append(found)
    facet_times = [
        seconds(lambda: view.facets(_FACET, view.matching(EVERYTHING), ValuePage(50))) * 1000 for _ in range(repeat)
    ]
    columns_seconds, columns_bytes = _columns(data)
    printed = {
        "ms": {name: median(values) for name, values in times.items()},
        "animal": [[data.positions[ids[key]] for key in some] for some in keys[ANIMAL.name]],
        "facet_ms": median(facet_times),
        "columns_s": columns_seconds,
        "columns_bytes": columns_bytes,
    }
    print(orjson.dumps(printed).decode())


def _timed_search(view: Any, data: Dataset, case: Case, query: int) -> tuple[float, list[int]]:
    """Seconds from the filter as JSON has it to the keys of what is found, and these."""
    from apps.engine.metadata.filters import parse_filter
    from apps.search.query.search import Searcher, SearchRequest
    from apps.search.query.spec import Hybrid

    vector, hybrid = data.queries[query], Hybrid()
    began = time.perf_counter()
    request = SearchRequest(
        fetch=10,
        mode="vector",
        vector=vector,
        words=None,
        filter=parse_filter(case.filter),
        filter_mode="auto",
        exact=False,
        params={},
        hybrid=hybrid,
    )
    [ranked] = Searcher(view).search([request])
    return time.perf_counter() - began, ranked.keys


def _columns(data: Dataset) -> tuple[float, int]:
    """The median time to build the columns of all rows, from metadata as the database has it, and the size of their
    files."""
    from apps.engine.metadata import Attributes, Columns

    rows = [Attributes(row["id"], None, 0, orjson.dumps(row["metadata"])) for row in data.rows]
    times = [seconds(Columns.build, rows) for _ in range(3)]
    with tempfile.TemporaryDirectory() as folder:
        Columns.build(rows).save(Path(folder))
        size = sum(file.stat().st_size for file in Path(folder).iterdir())
        assert len(Columns.load(Path(folder))) == len(data)
    return median(times), size


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
