"""`python -m benchmarks.filtered_peers.measure ENGINE DATA FOLDER QUERIES CHROMA_PYTHON`: one engine, as JSON.

Each variant and filter is asked in blocks, in turns with numpy's exact scan of the matching rows, which are copied out
beforehand.
"""

import gc
import os
import sys
from collections import defaultdict
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import orjson

from benchmarks.dataset import Dataset, Float32
from benchmarks.filtered import ANIMAL, NOUN, UNFILTERED, K, Truth
from benchmarks.filtered_peers.engine import Engine, NotInstalled
from benchmarks.filtered_peers.registry import ENGINES
from benchmarks.timing import milliseconds_each, seconds

_CASES = (UNFILTERED, ANIMAL, NOUN)
_PER_BLOCK = 25
# A block's first queries find the caches as the other side left them.
_DROPPED = 5


def main(name: str, data_folder: str, folder: str, queries: int, chroma_python: str) -> None:
    data = Dataset.load(data_folder)
    engine = ENGINES[name](Path(folder), chroma_python)
    len(data.rows)
    before = _resident_bytes()
    with engine.closing:
        try:
            took = seconds(engine.build, data)
        except (ImportError, NotInstalled) as reason:
            print(orjson.dumps({"missing": str(reason)}).decode())
            return
        memory = _memory_to_search(engine, data, before) if engine.way == "in process" else None
        truths = {case.name: Truth(data, case, queries) for case in _CASES}
        lines = [_measure(engine, variant, data, truths, queries) for variant in engine.variants]
    about = {"name": engine.name, "way": engine.way, "about": engine.about, "build_s": took - engine.waited_s}
    about |= {"memory": memory}
    print(orjson.dumps({"lines": [about | line for line in lines]}).decode())


def _measure(engine: Engine, variant: str, data: Dataset, truths: dict[str, Truth], queries: int) -> dict[str, Any]:
    """The p50 of engine and numpy, in ms, and the engine's recall, by filter."""
    engine.choose(variant)
    times: defaultdict[str, list[float]] = defaultdict(list)
    numpy_times: defaultdict[str, list[float]] = defaultdict(list)
    answers: defaultdict[str, list[list[int]]] = defaultdict(list)
    matrices = {name: np.ascontiguousarray(data.vectors[truth.mask]) for name, truth in truths.items()}
    for case in _CASES:
        engine.query(data.queries[-1], case.filter)
    for start in range(0, queries, _PER_BLOCK):
        block = data.queries[start : start + _PER_BLOCK]
        for case in _CASES:
            found = answers[case.name]
            asked = milliseconds_each(lambda query: found.append(engine.query(query, case.filter)), block)  # noqa: B023
            times[case.name] += asked[_DROPPED:]
            matrix = matrices[case.name]
            numpy_times[case.name] += milliseconds_each(lambda query: _scan(matrix, query), block)[_DROPPED:]  # noqa: B023
    return {
        "variant": variant,
        "cases": {
            name: {
                "p50_ms": median(times[name]),
                "numpy_ms": median(numpy_times[name]),
                "recall": truth.recall(answers[name]),
            }
            for name, truth in truths.items()
        },
    }


def _memory_to_search(engine: Engine, data: Dataset, before: int) -> int:
    """The bytes that the process has grown by once it has answered, whatever building has left behind included."""
    engine.choose(engine.variants[0])
    for query in data.queries[-100:]:
        engine.query(query, {})
    gc.collect()
    return _resident_bytes() - before


def _resident_bytes() -> int:
    """The memory of this process, mapped files included."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _scan(matrix: Float32, query: Float32) -> np.ndarray:
    scores = matrix @ query
    return np.argpartition(scores, len(scores) - K)[-K:]


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), sys.argv[5])
