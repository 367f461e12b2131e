"""Float32 products of queries and a matrix, with threads of our own.

BLAS's own threads are set to one (`manage.py`, `vectordb/wsgi.py`): between calls they spin for milliseconds, which
takes the cores from the other worker processes, and they start for products that end before a thread wakes. Here a
thread sleeps between calls, and a small product starts none. numpy releases the interpreter's lock meanwhile.
"""

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np

from apps.engine.vectors import Float32

# The number of multiplications worth waking a thread for: about 0.3 ms.
_PART_SIZE = 1 << 22
_THREADS = min(4, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)

_lock = threading.Lock()
_pool: ThreadPoolExecutor | None = None


def inner_products(queries: Float32, vectors: Float32) -> Float32:
    """Inner products [m, n] of `queries` [m, d] and `vectors` [n, d], float32."""
    count, rows = len(queries), len(vectors)
    products = np.empty((count, rows), np.float32)

    def compute(start: int, end: int) -> None:
        # One query is a matrix-vector product, several are one matrix product.
        if count == 1:
            np.matmul(vectors[start:end], queries[0], products[0, start:end])
        else:
            np.matmul(queries, vectors[start:end].T, products[:, start:end])

    parts = max(1, min(_THREADS, count * vectors.size // _PART_SIZE))
    bounds = [rows * part // parts for part in range(parts + 1)]
    others = [_get_pool().submit(compute, start, end) for start, end in pairwise(bounds[1:])]
    compute(0, bounds[1])
    for other in others:
        other.result()
    return products


def use_one_thread() -> None:
    """Let no search of this process start threads, for measurements."""
    global _THREADS
    _THREADS = 1


def _get_pool() -> ThreadPoolExecutor:
    global _pool
    with _lock:
        if _pool is None:
            _pool = ThreadPoolExecutor(_THREADS - 1, thread_name_prefix="products")
        return _pool


def _reset_after_fork() -> None:
    """Forget the threads, which a forked process does not have."""
    global _lock, _pool
    _lock, _pool = threading.Lock(), None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset_after_fork)
