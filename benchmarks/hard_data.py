"""Any number of rows that are as hard to search as real ones, made from the real ones.

Gaussian clusters flatter approximate indexes: their local dimension is small at the distance of the nearest rows. Here
the first rows are the real ones in a shuffled order. Each further row is a real row mixed with one of its near
neighbours, plus noise in proportion to their distance. The queries are real and held out. Fewer rows are a prefix of
more rows, and the same seed gives the same rows.

`python -m benchmarks.hard_data ROWS` makes them and prints the local dimension beside that of the real rows. They are
kept in the folder BENCHMARK_CACHE (default: in the system's folder for temporary files), 4 bytes a value.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from benchmarks.dataset import Dataset, Float32, MissingData
from benchmarks.timing import progress

_SEED = 0
# Neighbours that a row is mixed with; the share of noise in their distance. Chosen so that the local dimension of a
# million rows is somewhat above that of WordNet.
_NEIGHBOURS = 8
_NOISE = 0.7
_QUERIES = 1000
_BLOCK = 16_384
_FOUND = 100


def hard_dataset(real: Dataset, rows: int, cache: Path | None = None) -> Dataset:
    """`rows` rows and 1,000 real queries with their true neighbours; made once, then mapped from the files in `cache`.
    Texts and metadata are those of the real rows, the ids are `row-<number>`."""
    folder = cache or cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    order = np.random.default_rng(_SEED).permutation(len(real))
    name = f"hard-{len(real)}x{real.dimension}-{rows}"

    def write(path: Path) -> None:
        matrix = open_memmap(path, mode="w+", dtype=np.float32, shape=(rows, real.dimension))
        near = _near_rows(real.vectors, folder) if rows > len(real) else None
        for start in progress(range(0, rows, _BLOCK), "hard data"):
            matrix[start : start + _BLOCK] = _block(real.vectors, order, near, start)[: rows - start]
        matrix.flush()

    vectors = _mapped(folder / f"{name}.npy", write)
    queries = real.queries[:_QUERIES]
    scores = _mapped(folder / f"{name}-scores.npy", lambda path: np.save(path, _true_scores(vectors, queries)))
    return Dataset(real.folder, _Lines(real.lines, order, rows), vectors, queries, scores)


def cache_folder() -> Path:
    return Path(os.environ.get("BENCHMARK_CACHE") or Path(tempfile.gettempdir(), "vectordb-hard-data"))


def local_dimension(scores: Float32) -> float:
    """The local dimension about queries by the cosines of their nearest rows, best first.

    Maximum likelihood (Levina and Bickel, 2004), averaged over queries as MacKay and Ghahramani (2005) correct it.
    """
    distances = np.sqrt(np.maximum(2 - 2 * scores.astype(np.float64), 1e-12))
    return float(1 / np.mean(np.log(distances[:, -1:] / distances[:, :-1])))


class _Lines(Sequence[bytes]):
    """The line of the real row that each row was made from, with the id of the row; made when it is asked for."""

    def __init__(self, lines: Sequence[bytes], order: NDArray[np.int64], rows: int) -> None:
        self._lines, self._order, self._rows = lines, order, rows

    def __len__(self) -> int:
        return self._rows

    @overload
    def __getitem__(self, row: int) -> bytes: ...
    @overload
    def __getitem__(self, row: slice) -> list[bytes]: ...
    def __getitem__(self, row: int | slice) -> bytes | list[bytes]:
        if isinstance(row, slice):
            return [self[one] for one in range(*row.indices(self._rows))]
        if not 0 <= row < self._rows:
            raise IndexError(row)
        line: bytes = self._lines[int(self._order[row % len(self._order)])]
        before, _, after = line.partition(b'"id":')
        _, _, after = after.partition(b",")
        return before + b'"id":"row-%d",' % row + after


def _block(real: Float32, order: NDArray[np.int64], near: NDArray[np.int32] | None, start: int) -> Float32:
    """A whole block of rows, so that fewer rows are a prefix of more."""
    numbers = np.arange(start, start + _BLOCK)
    chosen = order[numbers % len(order)]
    block: Float32 = real[chosen]
    made = numbers >= len(real)
    if near is None or not made.any():
        return block
    rng = np.random.default_rng([_SEED, start])
    others = real[near[chosen, rng.integers(near.shape[1], size=len(chosen))]]
    share = rng.random((len(chosen), 1), np.float32)
    noise = rng.standard_normal(block.shape, np.float32) * np.float32(_NOISE / np.sqrt(block.shape[1]))
    mixed = block + share * (others - block) + noise * np.linalg.norm(others - block, axis=1, keepdims=True)
    mixed /= np.linalg.norm(mixed, axis=1, keepdims=True)
    return np.where(made[:, None], mixed, block)


def _near_rows(real: Float32, folder: Path) -> NDArray[np.int32]:
    """Near neighbours of each real row [n, _NEIGHBOURS], most of them the nearest."""

    def write(path: Path) -> None:
        import faiss

        lists = max(1, len(real) // 230)
        index = faiss.IndexIVFFlat(faiss.IndexFlatIP(real.shape[1]), real.shape[1], lists, faiss.METRIC_INNER_PRODUCT)
        index.cp.niter = 4
        index.train(real[:: max(1, len(real) // (40 * lists))])
        index.add(real)
        index.nprobe = 8
        found = np.empty((len(real), _NEIGHBOURS), np.int32)
        for start in progress(range(0, len(real), _BLOCK), "neighbours"):
            rows = np.arange(start, min(start + _BLOCK, len(real)))
            near = index.search(real[rows], _NEIGHBOURS + 1)[1][:, 1:]  # the first is the row itself, or equal to it
            found[rows] = np.where(near < 0, rows[:, None], near)
        np.save(path, found)

    return _mapped(folder / f"hard-{len(real)}x{real.shape[1]}-near.npy", write)


def _true_scores(vectors: Float32, queries: Float32) -> Float32:
    """The cosines of each query's nearest rows, best first [m, _FOUND]."""
    best = np.full((len(queries), _FOUND), -np.inf, np.float32)
    for start in progress(range(0, len(vectors), _BLOCK), "true neighbours"):
        scores = np.concatenate([best, queries @ vectors[start : start + _BLOCK].T], axis=1)
        best = -np.partition(-scores, _FOUND - 1, axis=1)[:, :_FOUND]
    return -np.sort(-best, axis=1)


def _mapped(path: Path, write: Callable[[Path], None]) -> NDArray[Any]:
    """The array in a file, which `write` makes where it is not there."""
    if not path.exists():
        draft = path.with_name(f"{os.getpid()}-{path.name}")
        try:
            write(draft)
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)
    return np.asarray(np.load(path, mmap_mode="r"))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.hard_data", description=__doc__)
    parser.add_argument("rows", type=int)
    parser.add_argument("--data", default=os.environ.get("BENCHMARK_DATA"), help="folder of the data (BENCHMARK_DATA)")
    options = parser.parse_args()
    try:
        real = Dataset.load(options.data)
    except MissingData as reason:
        print(f"Nothing was made: {reason}; docs/benchmarks.md says what the data are.", file=sys.stderr)
        return 0
    began = time.perf_counter()
    data = hard_dataset(real, options.rows)
    print(
        f"{len(data):,} rows x {data.dimension} in {cache_folder()} after {time.perf_counter() - began:.0f} s; local "
        f"dimension about real queries {local_dimension(data.scores):.1f}, of the {len(real):,} real rows "
        f"{local_dimension(real.scores[: len(data.scores)]):.1f}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
