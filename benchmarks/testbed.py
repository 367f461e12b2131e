"""Where measurements take place: scratch folders, servers in them, and one data folder that holds all rows."""

import contextlib
import itertools
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import psutil

from benchmarks.client import HttpError, call, call_json
from benchmarks.dataset import Dataset, as_base64
from benchmarks.timing import progress
from tests.server import ROOT, Server, serving

WORKERS = 2
ROWS_PER_WRITE = 1000
# The libraries of the filled folder: all rows, a thousand of them, and one.
ALL, SMALL, OTHER = "all", "small", "other"
SMALL_ROWS = 1000
# As manage.py has it: the engine's products are by one thread.
ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}

# Without keys, which earlier versions did not have either; benchmarks/access.py tells what one costs.
_SETTINGS: dict[str, Any] = {"VECTORDB_WORKERS": WORKERS, "VECTORDB_AUTH": "off"}
_WAIT_SECONDS = 120
_BUILD_SECONDS = 1800


class Testbed:
    """What a measurement needs. With `quick` it repeats little, to see that everything works. `root` is the checkout
    that is served."""

    def __init__(
        self, data: Dataset, scratch: Path, *, quick: bool, chroma_python: str | None = None, root: Path = ROOT
    ) -> None:
        self.data = data
        self.scratch = scratch
        self.quick = quick
        self.chroma_python = chroma_python
        self.root = root
        self._numbers = itertools.count()

    def repeat(self, times: int, when_quick: int = 1) -> int:
        """How often to repeat what is done `times` times in a full run."""
        return when_quick if self.quick else times

    def new_path(self, name: str) -> Path:
        """A path in the scratch folder that does not exist."""
        return self.scratch / f"{name}-{next(self._numbers)}"

    def server(self, folder: Path, **settings: Any) -> Server:
        """A server that is not started. Another checkout makes its own database: its schema may be another."""
        return Server(folder, self.root, makes_database=self.root != ROOT, **_SETTINGS | settings)

    def serving(self, folder: Path, **settings: Any) -> contextlib.AbstractContextManager[Server]:
        """A running server, as `server`."""
        return serving(folder, self.root, makes_database=self.root != ROOT, **_SETTINGS | settings)

    @cached_property
    def filled(self) -> Path:
        """A data folder with the libraries `all`, `small` and `other`, all `brute_force`; whoever changes `all` takes a
        copy."""
        folder = self.new_path("filled")
        with self.serving(folder) as server:
            everything = range(len(self.data))
            for library, rows in {
                SMALL: everything[:: len(self.data) // SMALL_ROWS][:SMALL_ROWS],
                OTHER: everything[:1],
                ALL: everything,
            }.items():
                create_library(server.port, library, self.data.dimension)
                for start in progress(range(0, len(rows), ROWS_PER_WRITE), f"fill {library}"):
                    body = self.data.chunks_body(rows[start : start + ROWS_PER_WRITE], as_base64)
                    call(server.port, "POST", chunks_path(library), body)
            for library in (SMALL, OTHER, ALL):
                wait_until_built(server.port, library)
        return folder

    @cached_property
    def filled_auto(self) -> Path:
        """A data folder like `filled` whose library `all` is `auto`; not to be changed."""
        folder = self.copy_of_filled()
        with self.serving(folder) as server:
            call_json(server.port, "PATCH", f"/api/v1/libraries/{ALL}", {"index_type": "auto"})
            wait_until_built(server.port, ALL)
        return folder

    def copy_of_filled(self) -> Path:
        """A data folder like `filled` that may be changed."""
        return Path(shutil.copytree(self.filled, self.new_path("copy")))


def create_library(port: int, library: str, dimension: int, index_type: str = "brute_force") -> None:
    body = {"id": library, "name": library, "dimension": dimension, "index_type": index_type}
    call_json(port, "POST", "/api/v1/libraries", body)


def wait_until_built(port: int, library: str) -> float:
    """The seconds until maintenance has nothing left to do for a library."""
    began = time.monotonic()
    while (index := call_json(port, "GET", f"/api/v1/libraries/{library}/stats")["index"])["state"] != "ready":
        if time.monotonic() - began > _BUILD_SECONDS or index["state"] == "failed":
            raise TimeoutError(f"the index of {library} was not built: {index}")
        time.sleep(0.2)
    return time.monotonic() - began


def chunks_path(library: str) -> str:
    return f"/api/v1/libraries/{library}/chunks"


def query_path(library: str) -> str:
    return f"/api/v1/libraries/{library}/query"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for_answer(process: subprocess.Popen[bytes], port: int, path: str) -> None:
    """Wait until `process` answers a GET with 2xx."""
    deadline = time.monotonic() + _WAIT_SECONDS
    while True:
        try:
            call(port, "GET", path)
            return
        except (OSError, HttpError):
            if process.poll() is not None or time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def warm(server: Server, data: Dataset) -> None:
    """Let every worker answer a query of the library `all`, so that each has loaded it."""
    body = data.query_body(0, as_base64)
    deadline = time.monotonic() + _WAIT_SECONDS
    loaded = False
    while not loaded:
        if time.monotonic() > deadline:
            raise TimeoutError("a worker did not load the library")
        # As many at once as there are workers: while one worker loads, another takes the next.
        queries = [
            threading.Thread(target=call, args=(server.port, "POST", query_path(ALL), body)) for _ in server.workers()
        ]
        for query in queries:
            query.start()
        for query in queries:
            query.join()
        loaded = all(_has_loaded(worker, data) for worker in server.workers())


def _has_loaded(worker: psutil.Process, data: Dataset) -> bool:
    """Whether a worker holds the vectors, or has their file mapped."""
    if worker.memory_info().rss > data.vectors.nbytes:
        return True
    return any("/index/" in mapping.path and mapping.size >= 1 << 24 for mapping in worker.memory_maps())


def run_module(name: str, *args: str, folder: Path, **settings: str) -> str:
    """The standard output of `python -m benchmarks.<name>` in a process of its own, with the server's settings for the
    data folder `folder`, and `settings` as environment variables."""
    command = [sys.executable, "-m", f"benchmarks.{name}", *args]
    environ = os.environ | {"VECTORDB_DATA_DIR": str(folder)} | settings
    return subprocess.run(command, env=environ, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout


@contextlib.contextmanager
def running(command: list[str], **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """A process that is ended with the block."""
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, **options)
    try:
        yield process
    finally:
        process.terminate()
        process.wait()
