"""Compiled functions for what numpy cannot do in one pass, each with a numpy twin in the module that uses it.

exact   exact scores of rows, as `metrics.exact_scores` computes them
bytes   scans of an 8-bit copy of the rows
tree    search in a k-d tree
hashes  Hamming distances of packed signatures
shortlist  exact scores of what codes propose, as far as needed
words   adding up of BM25
numbers arrays of numbers in JSON text

They are compiled by numba, with signatures written out, and kept in its cache: `load` takes some ten seconds once per
machine and some tenths of a second afterwards. Nothing imports them but `load`, so that a process may start without
numba; who uses a kernel asks `loaded` first and takes the numpy way where it says no. They let go of the interpreter's
lock, start no threads, and survive a fork.

`python -m apps.engine.kernels` compiles all of them. numba's cache lies beside this file, where Python keeps its own
compiled code; it is code, and trusted as that is.
"""

import fcntl
import hashlib
import importlib
import importlib.metadata
import platform
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_MODULES = ("exact", "bytes", "tree", "hashes", "shortlist", "words", "numbers")
_FOLDER = Path(__file__).parent
# Says for which sources, numba and processor the cache is complete.
_STAMP = _FOLDER / "__pycache__" / "compiled"
_loaded = False


def loaded() -> bool:
    """Whether the kernels can be called without waiting for a compiler."""
    return _loaded


def compiled() -> bool:
    """Whether `load` will find all kernels in the cache; False where that cannot be known."""
    try:
        return _STAMP.read_text() == _fingerprint()
    except OSError:
        return False


def load() -> None:
    """Import the kernels, compiling those that are not in the cache; one process compiles at a time."""
    global _loaded
    with _alone():
        is_compiled = compiled()
        if not is_compiled:
            # numba looks at a function's own file only: what another module compiled into it may be of yesterday.
            for cached in _STAMP.parent.glob("*.nb[ci]"):
                cached.unlink(missing_ok=True)
        for name in _MODULES:
            importlib.import_module(f"{__name__}.{name}")
        if not is_compiled:
            _note_compiled()
    _loaded = True


def load_in_background() -> None:
    """Let a thread load the kernels, if they are not loaded."""
    if not _loaded:
        threading.Thread(target=load, name="kernels", daemon=True).start()


def _fingerprint() -> str:
    """What the cached code depends on."""
    found = hashlib.sha256()
    for name in _MODULES:
        found.update(f"{name} {(_FOLDER / f'{name}.py').stat().st_mtime_ns}\n".encode())
    found.update(f"{importlib.metadata.version('numba')} {platform.python_version()} {_processor()}".encode())
    return found.hexdigest()


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.startswith(("flags", "Features"))), platform.machine())


def _note_compiled() -> None:
    try:
        _STAMP.write_text(_fingerprint())
    except OSError:
        # An installation that cannot be written to has numba's cache elsewhere; every start then loads in background.
        return


@contextmanager
def _alone() -> Iterator[None]:
    try:
        _STAMP.parent.mkdir(exist_ok=True)
        lock = open(_STAMP.with_suffix(".lock"), "w")  # noqa: SIM115
    except OSError:
        yield
        return
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
