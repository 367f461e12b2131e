"""Compiled functions for what numpy cannot do in one pass.

scores         exact scores of rows, as `metrics.exact_scores` computes them
exact_scan     the k nearest rows, by float32 products
byte_scan      the same, by an 8-bit copy of the rows
byte_products  products of 8-bit codes
kd_tree        search in a k-d tree
lsh            search by hash tables
rerank         exact scores of what codes propose, as far as needed
bm25           scores of texts
json_vectors   vectors in JSON text
string_search  places of strings in a sorted list
heap           the best rows so far
packed         the best of many rows, by one sort
intrinsics     instructions that numba cannot emit
jit            decorators, and short names of types
cache          compiling once per machine
cache_locator  where numba keeps what it compiled

They are compiled by numba, with signatures written out, and kept in its cache. `load` takes some tenths of a second,
and about a minute more on a machine that has yet to compile them. Nothing imports them but `load`, so that a process
may start without numba. Until then every search for vectors is an exact scan by numpy (`Matrix.search`), and no index
is built that needs them. They release the interpreter's lock, start no threads, and survive a fork.

`python -m apps.engine.kernels` compiles all of them. numba's cache lies beside this file, where Python keeps its own
compiled code, or in the user's own cache folder; it is code, and trusted as that is.
"""

import importlib
import threading
from typing import Any, NoReturn

from apps.engine.kernels import cache

MISSING = (
    "The compiled search functions are missing on this machine, and they cannot be compiled or kept: every search is "
    "an exact scan, and no other index is built. Let the server write to ~/.cache (or XDG_CACHE_HOME), or run "
    "`python -m apps.engine.kernels` as the owner of the installation, and restart the server."
)

_modules: dict[str, Any] = {}
_has_failed = False


def get(name: str) -> Any:
    """The module of compiled functions called `name`; None while they are not loaded."""
    return _modules.get(name)


def are_loaded() -> bool:
    """Whether the compiled functions are there."""
    return bool(_modules)


def are_missing() -> bool:
    """Whether this process has tried to load them, and they can be neither found nor compiled."""
    return _has_failed and not _modules


def load() -> None:
    """Import the kernels, compiled first if need be."""
    global _has_failed
    if not _modules and cache.compile_once():
        # Where scipy is installed, numba would import it for its BLAS, which no kernel uses, in half as long again.
        linalg: Any = importlib.import_module("numba.np.linalg")
        linalg.ensure_blas = _refuse_blas
        _modules.update({name: importlib.import_module(f"{__name__}.{name}") for name in cache.NAMES})
    _has_failed = not _modules


def _refuse_blas() -> NoReturn:
    raise ImportError("kernels multiply no matrices")


def load_in_background() -> threading.Thread:
    """Let a thread load the kernels."""
    thread = threading.Thread(target=load, name="kernels", daemon=True)
    thread.start()
    return thread


def unload() -> None:
    """Do without them until the next `load`."""
    _modules.clear()
