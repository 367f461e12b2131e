"""Cold start: from the start of the process to the first right answer, after a kill -9, on the folder with all rows;
with its index files, and without, when all rows are read from the database.

Beside it: a bare Python process that reads the same vectors from the same database into numpy and answers.
"""

import shutil
import sys
import time
from pathlib import Path
from statistics import median

import orjson

from benchmarks.client import HttpError, call
from benchmarks.dataset import as_array
from benchmarks.report import Row, at_most
from benchmarks.stage import ALL, Stage, launch, query_path, run_module
from benchmarks.timing import seconds
from tests.server import Server

_POLL_SECONDS = 0.005
_GIVE_UP_SECONDS = 60
_DROP_CACHES = Path("/proc/sys/vm/drop_caches")
_REFERENCE = "bare sqlite3 and numpy"


def run(stage: Stage) -> list[Row]:
    with_files, without = "first answer after the start", "first answer after the start, no index files"
    rows = [_row(stage, with_files, stage.filled), _row(stage, without, stage.filled, index_files=False)]
    try:
        _drop_page_cache()
    except OSError:
        print("cold_start: only root may empty the page cache, so that part is left out", file=sys.stderr)
    else:
        rows.append(_row(stage, f"{with_files}, page cache empty", stage.filled, cold_cache=True))
        rows.append(_row(stage, f"{without}, page cache empty", stage.filled, cold_cache=True, index_files=False))
    return rows


def _row(stage: Stage, name: str, folder: Path, *, cold_cache: bool = False, index_files: bool = True) -> Row:
    server = stage.server(folder)
    ours: list[float] = []
    bare: list[float] = []
    for _ in range(stage.repeat(5)):
        kept = folder / "index.kept"
        if not index_files:
            (folder / "index").rename(kept)
        if cold_cache:
            _drop_page_cache()
        ours.append(_first_answer(stage, server))
        if not index_files:
            shutil.rmtree(folder / "index", ignore_errors=True)
            kept.rename(folder / "index")
        if cold_cache:
            _drop_page_cache()
        bare.append(_bare(stage))
    return Row(name, median(ours), "s", _REFERENCE, median(bare), at_most(3))


def _first_answer(stage: Stage, server: Server) -> float:
    """Seconds until the nearest row of a query is the true one; kills the server."""
    body = stage.data.query_body(0, as_array, 1)
    deadline = time.monotonic() + _GIVE_UP_SECONDS
    began = time.perf_counter()
    launch(server)
    try:
        while True:
            try:
                answer = orjson.loads(call(server.port, "POST", query_path(ALL), body))
                break
            except (OSError, HttpError):
                if time.monotonic() > deadline:
                    raise
                time.sleep(_POLL_SECONDS)
        took = time.perf_counter() - began
    finally:
        server.kill()
    assert abs(answer["results"][0]["score"] - stage.data.scores[0, 0]) < 1e-6, "the answer is wrong"
    return took


def _bare(stage: Stage) -> float:
    return seconds(lambda: run_module("bare_scan", str(stage.data.dimension), folder=stage.filled))


def _drop_page_cache() -> None:
    _DROP_CACHES.write_text("3")
