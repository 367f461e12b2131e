"""The real data: rows with text, metadata and vector, and queries with their true neighbours. docs/benchmarks.md says
what the files are.

`python -m benchmarks` gets the folder from --data or from the environment variable BENCHMARK_DATA.
"""

import base64
import gzip
import mmap
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

Float32 = NDArray[np.float32]

FILES = ("rows.jsonl.gz", "vectors.f16.npy", "queries.f16.npy", "scores100.npy")


class MissingData(Exception):
    """The folder of the data is not named, or lacks a file."""


@dataclass(frozen=True)
class Dataset:
    """n rows and m queries.

    folder   where it comes from
    lines    n lines of JSON, an object with id, text and metadata each
    vectors  float32 [n, dimension] of unit norm
    queries  float32 [m, dimension] of unit norm
    scores   float32 [m, 100], the cosines of each query's true nearest rows, best first
    """

    folder: Path
    lines: Sequence[bytes]
    vectors: Float32
    queries: Float32
    scores: Float32

    @classmethod
    def load(cls, folder: str | None) -> "Dataset":
        """Raises MissingData."""
        if not folder:
            raise MissingData("no folder is named")
        path = Path(folder)
        for name in FILES:
            if not (path / name).is_file():
                raise MissingData(f"{path / name} does not exist")
        with gzip.open(path / "rows.jsonl.gz") as file:
            lines = file.read().splitlines()
        vectors, queries = (_unit_rows(np.load(path / f"{name}.f16.npy")) for name in ("vectors", "queries"))
        return cls(path, lines, vectors, queries, np.load(path / "scores100.npy"))

    def __len__(self) -> int:
        return len(self.lines)

    @property
    def dimension(self) -> int:
        return int(self.vectors.shape[1])

    @cached_property
    def positions(self) -> dict[str, int]:
        """The place of each row by its id."""
        return {row["id"]: place for place, row in enumerate(self.rows)}

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        """The lines, parsed."""
        return [orjson.loads(line) for line in self.lines]

    def chunks_body(self, rows: Iterable[int], encode: Callable[[Float32], bytes]) -> bytes:
        """The body of a write of `rows`; `encode` says how a vector is written."""
        chunks = (self.lines[row][:-1] + b',"embedding":' + encode(self.vectors[row]) + b"}" for row in rows)
        return b'{"chunks":[' + b",".join(chunks) + b"]}"

    def query_body(self, query: int, encode: Callable[[Float32], bytes], k: int = 10, **options: Any) -> bytes:
        """The body of a query for the `k` nearest rows, text and metadata returned; `options` are further fields."""
        return b'{"vector":' + encode(self.queries[query]) + b"," + orjson.dumps({"k": k} | options)[1:]


def as_array(vector: Float32) -> bytes:
    """A JSON array with as many digits as tell float32 values apart."""
    return orjson.dumps(vector, option=orjson.OPT_SERIALIZE_NUMPY)


def as_long_array(vector: Float32) -> bytes:
    """A JSON array with as many digits as tell doubles apart, as `json.dumps(vector.tolist())` writes them."""
    return orjson.dumps(vector.tolist())


def as_base64(vector: Float32) -> bytes:
    """A base64 string of the float32 values."""
    return b'"' + base64.b64encode(vector.tobytes()) + b'"'


def map_bodies(path: Path, bodies: Iterable[bytes]) -> list[memoryview]:
    """`bodies` by way of a mapped file: made before the clock starts, and no memory of this process.

    The file is on the disk before this returns, so that its writing does not compete with a server's.
    """
    offsets = [0]
    with path.open("w+b") as file:
        for body in bodies:
            offsets.append(offsets[-1] + file.write(body))
        file.flush()
        os.fsync(file.fileno())
        view = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    return [view[start:end] for start, end in pairwise(offsets)]


def _unit_rows(vectors: NDArray[np.float16]) -> Float32:
    wide: Float32 = vectors.astype(np.float32)
    wide /= np.linalg.norm(wide, axis=1, keepdims=True)
    return wide
