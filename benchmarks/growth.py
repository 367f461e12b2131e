"""The cost of a row as a library grows: ingest through the service layer, index files, queries, memory, disk.

`python -m benchmarks.growth [ROWS ...]` prints the table and draws docs/growth.svg; some 15 minutes for a million rows
made from the real ones (`benchmarks.hard_data`). Sizes are reached one after the other in one library, and at each the
index is built to its end. Each row is of the size at its end; `ingest` and `indexing` are of the rows added.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import orjson

from benchmarks.dataset import Dataset, MissingData, as_base64
from benchmarks.hard_data import hard_dataset, local_dimension
from benchmarks.report import machine, sentence
from benchmarks.timing import milliseconds_each, quantile

RESULTS = Path(__file__).with_name("results")
_PICTURE = Path(__file__).parent.parent / "docs" / "growth.svg"
_ROWS_PER_WRITE = 2000
_QUERIES = "queries.npy"
_SIZES = (10_000, 30_000, 100_000, 300_000, 1_000_000)
_COLUMNS = (
    "rows",
    "ingest",
    "indexing",
    "query_p50",
    "query_p95",
    "exact_p50",
    "recall",
    "memory",
    "database",
    "files",
)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.growth", description=__doc__)
    parser.add_argument("rows", nargs="*", type=int, default=_SIZES, help=f"sizes (default: {_SIZES})")
    parser.add_argument("--data", default=os.environ.get("BENCHMARK_DATA"), help="folder of the data (BENCHMARK_DATA)")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        _start_django()
        found = _ask() if options.child == "ask" else _fill(options.data, *map(int, options.child.split(",")))
        print(orjson.dumps(found).decode())
        return
    try:
        data = hard_dataset(Dataset.load(options.data), max(options.rows))
    except MissingData as reason:
        print(f"Nothing was measured: {reason}; docs/benchmarks.md says what the data are.")
        return
    RESULTS.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=RESULTS, prefix="scratch-") as folder:
        about = machine(Path(folder)) | {"command": f"python -m benchmarks.growth {' '.join(sys.argv[1:])}".strip()}
        lines: list[dict[str, Any]] = []
        np.save(Path(folder, _QUERIES), data.queries)
        print(f"{sentence(about)}; local dimension {local_dimension(data.scores):.1f}\n")
        print("|", " | ".join(_COLUMNS), "|\n|" + "--:|" * len(_COLUMNS))
        for before, rows in zip((0, *options.rows), options.rows, strict=False):
            line: dict[str, Any] = {}
            # Processes of their own for each size: what the one that asks holds is what searching needs.
            for step in (f"{before},{rows},{max(options.rows)}", "ask"):
                command = [sys.executable, "-m", "benchmarks.growth", "--data", options.data, "--child", step]
                environ = os.environ | {"VECTORDB_DATA_DIR": folder, "DATABASE_URL": ""}
                line |= orjson.loads(subprocess.run(command, env=environ, stdout=subprocess.PIPE, check=True).stdout)
            lines.append(line)
            print("|", " | ".join(str(lines[-1][column]) for column in _COLUMNS), "|", flush=True)
    (RESULTS / f"growth-{about['date']}.json").write_bytes(
        orjson.dumps(about | {"lines": lines}, option=orjson.OPT_INDENT_2)
    )
    _draw(lines)


def _start_django() -> None:
    import django

    from apps.engine import kernels

    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "vectordb.settings")
    django.setup()
    kernels.load()


def _fill(folder: str, before: int, rows: int, largest: int) -> dict[str, Any]:
    """Add rows `before` to `rows` of `largest`, and index them."""
    from django.core.management import call_command
    from django.db import connections

    from apps.indexing.indexer import Indexer
    from apps.libraries.inputs import ChunksWrite
    from apps.libraries.models import Library
    from apps.libraries.services.chunks import upsert_chunks

    data = hard_dataset(Dataset.load(folder), largest)
    if not before:
        call_command("migrate", verbosity=0)
        Library.objects.create(public_id="growth", name="growth", dimension=data.dimension)
    writing = 0.0
    for start in range(before, rows, _ROWS_PER_WRITE):
        chunks = [
            orjson.loads(data.lines[row]) | {"embedding": as_base64(data.vectors[row]).decode().strip('"')}
            for row in range(start, min(start + _ROWS_PER_WRITE, rows))
        ]
        began = time.perf_counter()
        upsert_chunks(library_id="growth", write=ChunksWrite.model_validate({"chunks": chunks}))
        writing += time.perf_counter() - began
    began = time.perf_counter()
    failure = Indexer().run_until_done("growth")
    assert failure is None, failure
    indexing = time.perf_counter() - began
    connections.close_all()  # which empties the WAL
    return {
        "rows": rows,
        "ingest": round((rows - before) / writing),
        "indexing": round((rows - before) / indexing),
    }


def _ask() -> dict[str, Any]:
    """Query what there is."""
    import psutil
    from django.conf import settings

    from apps.search.query.service import query
    from apps.search.query.spec import QuerySpec

    queries = np.load(settings.DATA_DIR / _QUERIES)

    def ask(i: int, **options: Any) -> dict[str, Any]:
        spec = QuerySpec.model_validate({"vector": as_base64(queries[i]).decode().strip('"'), "k": 10, **options})
        return query(library_id="growth", spec=spec)

    ask(0), ask(0, exact=True)
    found = [{result["id"] for result in ask(i)["results"]} for i in range(100)]
    best = [{result["id"] for result in ask(i, exact=True)["results"]} for i in range(100)]
    times = milliseconds_each(ask, [i % len(queries) for i in range(1000)])
    exact = milliseconds_each(lambda i: ask(i, exact=True), range(100))
    mib = 1 << 20
    return {
        "query_p50": round(median(times), 3),
        "query_p95": round(quantile(times, 0.95), 3),
        "exact_p50": round(median(exact), 3),
        "recall": round(sum(len(a & b) for a, b in zip(found, best, strict=True)) / 1000, 4),
        "memory": round(psutil.Process().memory_full_info().pss / mib),
        "database": round(Path(settings.DATA_DIR, "vectordb.sqlite3").stat().st_size / mib),
        "files": round(sum(path.stat().st_size for path in settings.INDEX_DIR.rglob("*") if path.is_file()) / mib),
    }


def _draw(lines: list[dict[str, Any]]) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows = np.array([line["rows"] for line in lines])
    figure, axes = pyplot.subplots(1, 4, figsize=(16, 3.6), layout="constrained")
    curves = {
        "microseconds of ingest a row": [1e6 / line["ingest"] for line in lines],
        "microseconds of indexing a row": [1e6 / line["indexing"] for line in lines],
        "query p50, ms": [line["query_p50"] for line in lines],
        "bytes on disk a row": [(line["database"] + line["files"]) * 2**20 / line["rows"] for line in lines],
    }
    for axis, (title, values) in zip(axes, curves.items(), strict=True):
        axis.plot(rows, values, marker="o", label="auto")
        if title.startswith("query"):
            axis.plot(rows, [line["exact_p50"] for line in lines], marker="o", label="exact")
            axis.legend()
            axis.set(yscale="log")
        else:
            axis.set(ylim=(0, None))
        axis.set(title=title, xlabel="rows", xscale="log")
        axis.grid(visible=True, alpha=0.3)
    figure.savefig(_PICTURE)


if __name__ == "__main__":
    main()
