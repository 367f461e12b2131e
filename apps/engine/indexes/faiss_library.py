"""faiss (Douze et al., The Faiss library, arXiv:2401.08281), used so that threads and forks do no harm.

What always holds:
- faiss is imported with the first index type that needs it. A server imports it before it forks, to share its memory.
- It computes with one thread, the one that calls. With two, OpenMP keeps helpers that a forked child does not have, and
  the child's first search never ends. OpenMP keeps the number per calling thread, and a new thread starts from the
  environment's; so every call goes through `library`, which sets it once per thread.
- faiss releases the interpreter's lock in each of its calls, and an index that nobody changes may be searched by any
  number of threads. Parameters go along with a search; threads may share them, and those of an index are never set.
- It counts the comparisons of all walks in graphs in one number, without care for threads. So threads of one process
  take turns at walking (`count_compared`); other searches do not.
- What faiss refuses, a RuntimeError, becomes a ValueError for a file and stays what it is for a mistake of ours.
"""

import os
import threading
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import faiss

from apps.engine.errors import EXHAUSTED
from apps.engine.metrics import Metric

_thread = threading.local()
_walking = threading.Lock()


def library() -> Any:
    """The module faiss, with one OpenMP thread for the thread that calls."""
    if not hasattr(_thread, "is_alone"):
        faiss.omp_set_num_threads(1)
        _thread.is_alone = True
    return faiss


def count_compared(walk: Callable[[], object]) -> int:
    """Call `walk`, a search in a graph; return the number of codes that it compares its query with."""
    library()
    statistics = _statistics()
    with _walking:
        before = statistics.ndis
        walk()
        return int(statistics.ndis - before)


@cache
def _statistics() -> Any:
    """faiss's count, which it is slow to hand out."""
    return library().cvar.hnsw_stats


def metric_number(metric: Metric) -> int:
    """faiss's number for the metric that orders rows and queries, as `Normalizer` makes them, like `metric`."""
    number: int = faiss.METRIC_L2 if metric is Metric.EUCLIDEAN else faiss.METRIC_INNER_PRODUCT
    return number


def round_up(count: int, step: int) -> int:
    """The least multiple of `step` that is not less than `count`."""
    return -(-count // step) * step


def write(index: Any, path: Path) -> None:
    """Write `index` to `path`; raises OSError where the file cannot be written whole.

    The bytes go through a file of Python's, for faiss's own says nothing of an error when it is closed.
    """
    failures: list[OSError] = []
    with open(path, "wb") as file:

        def put(data: bytes) -> int:
            try:
                return file.write(data)
            except OSError as error:
                failures.append(error)
                raise

        try:
            library().write_index(index, library().PyCallbackIOWriter(put, 1 << 20))
        except Exception:
            # faiss wraps what the callback raised.
            if failures:
                raise failures[0] from None
            raise


def read(path: Path, kind: str, metric: int, width: int, rows: int) -> Any:
    """The index of the faiss class `kind` in `path`, over `rows` vectors of `width` dimensions.

    Large arrays are mapped where their class can do that. Raises OSError, or ValueError for a file that holds
    something else.
    """
    library()
    # faiss reports a missing file and a wrong one alike.
    path.stat()
    try:
        index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
    except RuntimeError as error:
        # It reports the system's error only in words.
        for number in EXHAUSTED:
            if os.strerror(number) in str(error):
                raise OSError(number, os.strerror(number), str(path)) from None
        raise ValueError(f"{path} is no index of faiss: {error}") from None
    found = (type(index).__name__, index.metric_type, index.d, index.ntotal)
    if found != (kind, metric, width, rows):
        raise ValueError(f"{path} holds {found}, not {(kind, metric, width, rows)}")
    return index


def _reset_after_fork() -> None:
    """The thread that walked does not come along into a forked process."""
    global _walking
    _walking = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset_after_fork)
