"""Products of queries and a matrix, by several threads where the matrix is large.

BLAS's own threads are set to one (`manage.py`, `vectordb/wsgi.py`): between calls they spin for milliseconds, which
takes the cores from the other worker processes, and they start for products that are done sooner than a thread wakes.
Here a thread sleeps between calls, and a small product starts none. numpy lets go of the interpreter's lock meanwhile.
"""

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np

from apps.engine.vectors import Float32

# A part of a product that is worth waking a thread for: some 0.3 ms.
_PART_SIZE = 1 << 22
_THREADS = min(4, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)

_lock = threading.Lock()
_pool: ThreadPoolExecutor | None = None


def products(queries: Float32, vectors: Float32) -> Float32:
    """Inner products [m, n] of `queries` [m, d] and `vectors` [n, d], float32."""
    count, rows = len(queries), len(vectors)
    found = np.empty((count, rows), np.float32)

    def compute(start: int, end: int) -> None:
        # One query is a matrix-vector product, several are one matrix product.
        if count == 1:
            np.matmul(vectors[start:end], queries[0], found[0, start:end])
        else:
            np.matmul(queries, vectors[start:end].T, found[:, start:end])

    parts = max(1, min(_THREADS, count * vectors.size // _PART_SIZE))
    bounds = [rows * part // parts for part in range(parts + 1)]
    others = [_helpers().submit(compute, start, end) for start, end in pairwise(bounds[1:])]
    compute(0, bounds[1])
    for other in others:
        other.result()
    return found


def _helpers() -> ThreadPoolExecutor:
    global _pool
    with _lock:
        if _pool is None:
            _pool = ThreadPoolExecutor(_THREADS - 1, thread_name_prefix="scan")
        return _pool


def _after_fork() -> None:
    """Threads do not come along into a forked process."""
    global _lock, _pool
    _lock, _pool = threading.Lock(), None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
