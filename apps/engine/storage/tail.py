"""The rows that are newer than the last segment: an append-only buffer that successive views share.

A tail is the first n rows of the buffer. Appending writes behind them and copies nothing until the buffer is full,
when its rows move to one twice as large. Only the one thread that catches a library up may append.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from apps.engine.indexes.base import Params
from apps.engine.indexes.matrix import Matrix, Neighbors
from apps.engine.indexes.registry import BARE, BRUTE_FORCE
from apps.engine.metrics import Metric, row_norms
from apps.engine.storage.part import Part
from apps.engine.storage.row_data import BufferedRows, Row
from apps.engine.vectors import Float32, Int64, Mask

_FIRST_CAPACITY = 16
_NO_KEYS = np.empty(0, np.int64)


class _Buffer:
    """Has no room before its first row: most libraries that are open are not written to."""

    def __init__(self, dimension: int, metric: Metric) -> None:
        self.metric = metric
        self.vectors = np.empty((0, dimension), np.float32)
        self.norms = np.empty(0, np.float32)
        self.keys = np.empty(0, np.int64)
        self.length = 0
        self.places: dict[int, int] = {}
        self.row_data = BufferedRows()

    def append(self, keys: Int64, vectors: Float32, rows: Sequence[Row]) -> None:
        start, end = self.length, self.length + len(keys)
        if end > len(self.keys):
            capacity = max(2 * len(self.keys), end, _FIRST_CAPACITY)
            self.vectors = _grow(self.vectors, start, capacity)
            self.norms = _grow(self.norms, start, capacity)
            self.keys = _grow(self.keys, start, capacity)
        self.vectors[start:end] = vectors
        self.norms[start:end] = row_norms(vectors)
        self.keys[start:end] = keys
        self.places.update(zip(keys.tolist(), range(start, end), strict=True))
        self.row_data.append(rows)
        self.length = end

    @property
    def nbytes(self) -> int:
        return self.vectors.nbytes + self.norms.nbytes + self.keys.nbytes + self.row_data.nbytes


@dataclass(frozen=True)
class Tail(Part):
    """Rows in order of arrival; all arrays but `alive` are views of the buffer, and read-only."""

    alive: Mask
    buffer: _Buffer

    @classmethod
    def build(
        cls,
        dimension: int,
        metric: Metric,
        keys: Int64 = _NO_KEYS,
        vectors: Float32 | None = None,
        rows: Sequence[Row] = (),
    ) -> Self:
        """The tail of the rows `vectors` [n, dimension] and `rows` [n], named by `keys` [n]; none by default."""
        buffer = _Buffer(dimension, metric)
        if vectors is not None:
            buffer.append(keys, vectors, rows)
        return cls._of(buffer, np.ones(len(keys), np.bool_))

    @classmethod
    def _of(cls, buffer: _Buffer, alive: Mask) -> Self:
        arrays = buffer.keys[: buffer.length], buffer.vectors[: buffer.length], buffer.norms[: buffer.length]
        for array in arrays:
            array.flags.writeable = False
        keys, vectors, norms = arrays
        return cls(keys, Matrix(vectors, buffer.metric, norms), buffer.row_data, alive, buffer)

    def apply(self, touched: Int64, keys: Int64, vectors: Float32, rows: Sequence[Row]) -> "Tail":
        """This tail, the rows of `touched` dead, and behind it those of `keys`, as `build` takes them."""
        alive = np.ones(len(self.keys) + len(keys), np.bool_)
        alive[: len(self.keys)] = self.alive
        places = self.buffer.places
        alive[[places.pop(key) for key in touched.tolist() if key in places]] = False
        self.buffer.append(keys, vectors, rows)
        return self._of(self.buffer, alive)

    def places(self, keys: Int64) -> Int64:
        return np.array([self._place(key) for key in keys.tolist()], np.int64)

    def _place(self, key: int) -> int:
        place = self.buffer.places.get(key)
        if place is not None and place < len(self.keys):
            return place
        # Not here, or no more in a later tail, which shares the buffer.
        places = np.flatnonzero((self.keys == key) & self.alive)
        return int(places[0]) if len(places) else -1

    def copy_live(self) -> "Tail":
        """The live rows in a buffer of their own."""
        rows = self.buffer.row_data.select(self.alive)
        vectors = self.matrix.vectors[self.alive]
        return self.build(self.matrix.dimension, self.matrix.metric, self.live_keys(), vectors, rows)

    @property
    def kind(self) -> str:
        return BARE if self.is_bare else BRUTE_FORCE

    @property
    def nbytes(self) -> int:
        """Memory of the whole buffer, which is shared with other tails."""
        return self.buffer.nbytes

    def search(
        self, queries: Float32, k: int, *, exact: bool, params: Params, allowed: Mask | None, sure: int | None
    ) -> Neighbors:
        return self.matrix.search(queries, k, self.alive if allowed is None else allowed, order=self.keys)


def _grow(array: NDArray[Any], length: int, capacity: int) -> NDArray[Any]:
    larger = np.empty((capacity, *array.shape[1:]), array.dtype)
    larger[:length] = array[:length]
    return larger
