"""faiss (Douze et al., The Faiss library, arXiv:2401.08281), used so that threads and forks do no harm.

What always holds:
- faiss is imported by the first index that needs it, not by the import of an index type; a server imports it before it
  forks, for the sake of memory.
- It computes with one thread, the one that calls. With two, OpenMP keeps helpers that a forked child does not have, and
  the child's first search waits for them for ever. OpenMP keeps the number per calling thread, and a new thread starts
  from the environment's again; so every call goes through `library`, which sets it where that was not done yet.
- faiss lets go of the interpreter's lock in each of its calls, and an index that nobody changes may be searched by any
  number of threads. Parameters go along with a search; threads may share them, and those of an index are never set.
- It counts the comparisons of all walks in graphs in one number, without care for threads. So threads of one process
  take turns at walking (`counted`); other searches do not.
- What faiss refuses, a RuntimeError, becomes a ValueError for a file and stays what it is for a mistake of ours.
"""

import os
import threading
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from apps.engine.errors import EXHAUSTED
from apps.engine.metrics import Metric

_thread = threading.local()
_walking = threading.Lock()


def library() -> Any:
    """The module faiss, with one OpenMP thread for the thread that calls."""
    import faiss

    if not hasattr(_thread, "is_alone"):
        faiss.omp_set_num_threads(1)
        _thread.is_alone = True
    return faiss


def counted(walk: Callable[[], object]) -> int:
    """With how many codes `walk`, a search in a graph, compares its query."""
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
    """faiss's number for the metric that orders rows and queries, as `approximate.Frame` makes them, like `metric`."""
    number: int = library().METRIC_L2 if metric is Metric.EUCLIDEAN else library().METRIC_INNER_PRODUCT
    return number


def write(index: Any, path: Path) -> None:
    """Write `index` to `path`; raises OSError where the file cannot be written whole.

    The bytes go through a file of Python's, for faiss's own says nothing of an error when it is closed.
    """
    faiss = library()
    failures: list[OSError] = []
    with open(path, "wb") as file:

        def put(data: bytes) -> int:
            try:
                return file.write(data)
            except OSError as error:
                failures.append(error)
                raise

        try:
            faiss.write_index(index, faiss.PyCallbackIOWriter(put, 1 << 20))
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
    faiss = library()
    # faiss tells a missing file and a wrong one alike.
    path.stat()
    try:
        index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
    except RuntimeError as error:
        # It tells what the system said only in words.
        for number in EXHAUSTED:
            if os.strerror(number) in str(error):
                raise OSError(number, os.strerror(number), str(path)) from None
        raise ValueError(f"{path} is no index of faiss: {error}") from None
    found = (type(index).__name__, index.metric_type, index.d, index.ntotal)
    if found != (kind, metric, width, rows):
        raise ValueError(f"{path} holds {found}, not {(kind, metric, width, rows)}")
    return index


def _after_fork() -> None:
    """The thread that walked does not come along into a forked process."""
    global _walking
    _walking = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
