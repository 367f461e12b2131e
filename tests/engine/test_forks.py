"""gunicorn forks its workers from a process that may have searched before: every index answers in a forked child.

Run as a program, this file is that process for one index type.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from apps.engine import kernels
from apps.engine.indexes.base import VectorIndex
from apps.engine.indexes.matrix import Matrix
from apps.engine.indexes.registry import INDEX_TYPES, index_type
from apps.engine.metrics import Metric
from tests.engine.approximate import embeddings

FAISS = ("quantized", "ivf", "hnsw")
PARENT_SECONDS, CHILD_SECONDS = 180, 30


@pytest.mark.parametrize("kind", INDEX_TYPES)
def test_a_forked_child_searches_and_builds(kind: str) -> None:
    # Two threads are what OpenMP would take on its own; the engine must see to one.
    environment = os.environ | {"OMP_NUM_THREADS": "2", "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.engine.test_forks", kind]
    folder = Path(__file__).parents[2]
    with subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
    ) as parent:
        try:
            said, _ = parent.communicate(timeout=PARENT_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(parent.pid, signal.SIGKILL)
            pytest.fail("the parent itself hangs")
    assert parent.returncode == 0, said.decode()


def _answers(index: VectorIndex) -> list[list[int]]:
    """What several threads find at the same time, in a batch and one by one."""
    queries = embeddings(40, 24, seed=1)
    mask = np.arange(len(index)) % 3 > 0
    found: dict[int, list[list[int]]] = {}
    counts: list[int] = []

    def search(number: int) -> None:
        batch = [index.search(queries, 10, allowed).positions for allowed in (None, mask)]
        single = [index.search(queries[i : i + 1], 10).positions for i in range(5)]
        found[number] = np.concatenate([*batch, *single]).tolist()
        if "faiss" in sys.modules:
            counts.append(sys.modules["faiss"].omp_get_max_threads())

    threads = [threading.Thread(target=search, args=(number,)) for number in range(1, 4)]
    for thread in threads:
        thread.start()
    search(0)
    for thread in threads:
        thread.join()
    if not all(found.get(number) == found[0] for number in range(4)):
        raise SystemExit("threads found different rows")
    if set(counts) - {1}:
        raise SystemExit(f"OpenMP would take {counts} threads")
    return found[0]


def _serve_as_parent(kind: str) -> None:
    kernels.load()
    vectors = embeddings(9000, 24)
    index = index_type(kind).build(Matrix(vectors, Metric.COSINE))
    if kind in FAISS and index.search(vectors[:1], 10).exact:
        raise SystemExit("faiss was not asked")
    expected = _answers(index)
    child = os.fork()
    if child == 0:
        same = (
            _answers(index) == expected and _answers(index_type(kind).build(Matrix(vectors, Metric.COSINE))) == expected
        )
        os._exit(0 if same else 1)
    deadline = time.monotonic() + CHILD_SECONDS
    while time.monotonic() < deadline:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            raise SystemExit(0 if status == 0 else f"the child ended with {os.waitstatus_to_exitcode(status)}")
        time.sleep(0.02)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    raise SystemExit("the child hangs")


if __name__ == "__main__":
    _serve_as_parent(sys.argv[1])
