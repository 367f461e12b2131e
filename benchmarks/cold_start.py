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
from benchmarks.testbed import ALL, Testbed, query_path, run_module
from benchmarks.timing import seconds
from tests.server import Server

_POLL_SECONDS = 0.005
_GIVE_UP_SECONDS = 60
_DROP_CACHES = Path("/proc/sys/vm/drop_caches")
_REFERENCE = "bare sqlite3 and numpy"


def run(testbed: Testbed) -> list[Row]:
    with_files, without = "first answer after the start", "first answer after the start, no index files"
    rows = [_row(testbed, with_files, testbed.filled), _row(testbed, without, testbed.filled, index_files=False)]
    try:
        _drop_page_cache()
    except OSError:
        print("cold_start: only root may empty the page cache, so that part is left out", file=sys.stderr)
    else:
        rows.append(_row(testbed, f"{with_files}, page cache empty", testbed.filled, cold_cache=True))
        rows.append(_row(testbed, f"{without}, page cache empty", testbed.filled, cold_cache=True, index_files=False))
    return rows


def _row(testbed: Testbed, name: str, folder: Path, *, cold_cache: bool = False, index_files: bool = True) -> Row:
    ours: list[float] = []
    bare: list[float] = []
    for _ in range(testbed.repeat(5)):
        if cold_cache:
            _drop_page_cache()
        ours.append(time_first_answer(testbed, folder, index_files=index_files))
        if cold_cache:
            _drop_page_cache()
        bare.append(_time_bare_scan(testbed))
    return Row(name, median(ours), "s", _REFERENCE, median(bare), at_most(3))


def time_first_answer(testbed: Testbed, folder: Path, *, index_files: bool) -> float:
    """Seconds from the start of a server to the true nearest row of a query, with the folder's index files or without.

    The server is killed; the index files are as before.
    """
    files, kept = folder / "index", folder / "index.kept"
    if index_files:
        return _time_first_answer(testbed, testbed.server(folder))
    files.rename(kept)
    try:
        return _time_first_answer(testbed, testbed.server(folder))
    finally:
        shutil.rmtree(files, ignore_errors=True)
        kept.rename(files)


def _time_first_answer(testbed: Testbed, server: Server) -> float:
    body = testbed.data.query_body(0, as_array, 1)
    deadline = time.monotonic() + _GIVE_UP_SECONDS
    began = time.perf_counter()
    server.launch()
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
    assert abs(answer["results"][0]["score"] - testbed.data.scores[0, 0]) < 1e-6, "the answer is wrong"
    return took


def _time_bare_scan(testbed: Testbed) -> float:
    return seconds(lambda: run_module("bare_scan", str(testbed.data.dimension), folder=testbed.filled))


def _drop_page_cache() -> None:
    _DROP_CACHES.write_text("3")
