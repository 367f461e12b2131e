"""Compiled functions for what numpy cannot do in one pass, each with a numpy twin in the module that uses it.

exact   exact scores of rows, as `metrics.exact_scores` computes them
bytes   scans of an 8-bit copy of the rows
tree    search in a k-d tree
hashes  Hamming distances of packed signatures
shortlist  exact scores of what codes propose, as far as needed
words   adding up of BM25
numbers arrays of numbers in JSON text

cache    compiling them once per machine; cache_locator   where numba keeps what it compiled

They are compiled by numba, with signatures written out, and kept in its cache. `load` takes some tenths of a second,
and about a minute more on a machine that has yet to compile them. Nothing imports them but `load`, so that a process
may start without numba; who uses a kernel asks `loaded` first and takes the numpy way where it says no. They let go of
the interpreter's lock, start no threads, and survive a fork.

`python -m apps.engine.kernels` compiles all of them. numba's cache lies beside this file, where Python keeps its own
compiled code; it is code, and trusted as that is.
"""

import importlib
import threading

from apps.engine.kernels import cache

_loaded = False


def loaded() -> bool:
    """Whether the kernels can be called without waiting for a compiler."""
    return _loaded


def load() -> None:
    """Import the kernels, compiled first if need be; where they cannot be compiled, numpy goes on in their place."""
    global _loaded
    if not _loaded and cache.compile_once():
        for name in cache.MODULES:
            importlib.import_module(name)
        _loaded = True


def unload() -> None:
    """Let numpy serve until the next `load`."""
    global _loaded
    _loaded = False


def load_in_background() -> threading.Thread:
    """Let a thread load the kernels."""
    thread = threading.Thread(target=load, name="kernels", daemon=True)
    thread.start()
    return thread
