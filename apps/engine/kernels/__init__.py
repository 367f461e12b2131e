"""Compiled functions for what numpy cannot do in one pass, each with a numpy twin in the module that uses it.

scores         exact scores of rows, as `metrics.exact_scores` computes them
exact_scan     the k nearest rows, by float32 products
byte_scan      the same, by an 8-bit copy of the rows
byte_products  products of 8-bit codes
kd_tree        search in a k-d tree
lsh            search by hash tables
rerank         exact scores of what codes propose, as far as needed
bm25           scores of texts
json_numbers   arrays of numbers in JSON text
heap           the best rows so far
intrinsics     instructions that numba cannot emit
cache          compiling once per machine
cache_locator  where numba keeps what it compiled

They are compiled by numba, with signatures written out, and kept in its cache. `load` takes some tenths of a second,
and about a minute more on a machine that has yet to compile them. Nothing imports them but `load`, so that a process
may start without numba; who uses a kernel calls `get` and takes the numpy way where it returns None. They release the
interpreter's lock, start no threads, and survive a fork.

`python -m apps.engine.kernels` compiles all of them. numba's cache lies beside this file, where Python keeps its own
compiled code; it is code, and trusted as that is.
"""

import importlib
import threading
from typing import Any

from apps.engine.kernels import cache

_modules: dict[str, Any] = {}


def get(name: str) -> Any:
    """The module of compiled functions called `name`; None where it would have to be compiled first."""
    return _modules.get(name)


def load() -> None:
    """Import the kernels, compiled first if need be; where they cannot be compiled, numpy goes on in their place."""
    if not _modules and cache.compile_once():
        _modules.update({name: importlib.import_module(f"{__name__}.{name}") for name in cache.NAMES})


def load_in_background() -> threading.Thread:
    """Let a thread load the kernels."""
    thread = threading.Thread(target=load, name="kernels", daemon=True)
    thread.start()
    return thread


def unload() -> None:
    """Let numpy serve until the next `load`."""
    _modules.clear()
