"""Compile the kernels once per machine: one process compiles, at low priority, and those that need them wait for it.

numba's cache lies beside the sources. Where that is of another machine and cannot be written to, as in a container, it
lies in the user's own cache folder. A stamp in it says for which sources, numba and processor it is complete.
"""

import fcntl
import hashlib
import importlib
import importlib.metadata
import logging
import os
import platform
import subprocess
import sys
import threading
import time
from functools import cache
from pathlib import Path
from typing import IO

logger = logging.getLogger(__name__)

_SOURCES = Path(__file__).parent
NAMES = ("scores", "exact_scan", "byte_scan", "kd_tree", "lsh", "rerank", "bm25", "json_vectors", "string_search")

# numba reads this when it is imported.
os.environ.setdefault("NUMBA_CACHE_LOCATOR_CLASSES", "apps.engine.kernels.cache_locator.Locator")


@cache
def folder() -> Path:
    """Where numba's cache is for this process."""
    beside = _SOURCES / "__pycache__"
    if _is_complete(beside) or _is_writable(beside):
        return beside
    # Versions that one user has side by side do not replace each other's code.
    own = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "vectordb", fingerprint()[:16])
    # Code that somebody else may have put there is not run. Without a home the path is relative.
    is_own = own.is_absolute() and (not os.path.exists(own) or own.stat().st_uid == os.geteuid())
    return own if is_own else beside


def is_complete() -> bool:
    """Whether all kernels are compiled, for this machine."""
    return _is_complete(folder())


def compile_once() -> bool:
    """Compile all kernels unless that is done, in a process of low priority; return whether they are compiled.

    One process at a time compiles; others wait for it here.
    """
    if is_complete() or not _is_writable(folder()):
        return is_complete()
    folder().mkdir(mode=0o700, parents=True, exist_ok=True)
    with (folder() / "compiled.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not is_complete():
            _compile_apart(lock)
    return is_complete()


def _is_complete(folder: Path) -> bool:
    try:
        return (folder / "compiled").read_text() == fingerprint()
    except OSError:
        return False


def _is_writable(folder: Path) -> bool:
    return os.access(next(path for path in (folder, *folder.parents) if os.path.exists(path)), os.W_OK)


def compile_here() -> None:
    """Compile all kernels in this process, which ends when its standard input does."""

    def end_with_input() -> None:
        os.read(0, 1)  # sys.stdin has a lock, which would stop the interpreter's shutdown
        os._exit(1)

    threading.Thread(target=end_with_input, daemon=True).start()
    os.nice(19)
    for name in NAMES:
        importlib.import_module(f"apps.engine.kernels.{name}")
    (folder() / "compiled").write_text(fingerprint())


def _compile_apart(lock: IO[str]) -> None:
    logger.info("compiling the search kernels, once: a minute, longer on a busy machine; queries do without them")
    began = time.monotonic()
    code = "from apps.engine.kernels import cache; cache.compile_here()"
    # The lock is held as long as one of both processes lives.
    with subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=_SOURCES.parents[2],
        stdin=subprocess.PIPE,
        pass_fds=[lock.fileno()],
        start_new_session=True,  # the terminal's Ctrl-C is for the server, with which this ends
    ) as process:
        status = process.wait()
    if not status:
        logger.info("the search kernels are compiled, in %.0f s", time.monotonic() - began)


@cache
def fingerprint() -> str:
    """What the cached code depends on: sources, numba, Python and the processor."""
    found = hashlib.sha256()
    for source in sorted(_SOURCES.glob("[!_]*.py")):
        found.update(source.read_bytes())
    found.update(f"{importlib.metadata.version('numba')} {platform.python_version()} {_processor()}".encode())
    return found.hexdigest()


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.startswith(("flags", "Features"))), platform.machine())
