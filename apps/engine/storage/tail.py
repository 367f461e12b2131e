"""The rows that are newer than the last segment: an append-only buffer that successive views share.

A view looks at the first n rows and keeps that n; appending writes behind them, so it disturbs no view and copies
nothing until the buffer is full, when its rows move to one twice as large (older views keep the old one). Only the one
thread that catches a library up may append.

Holds [capacity, d] float32, one float32 norm and one int64 key per row, and a dict of the live rows' positions.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from apps.engine.indexes.matrix import Matrix
from apps.engine.metrics import Metric, row_norms
from apps.engine.storage.row_data import LooseContent, Row
from apps.engine.vectors import Float32, Int64

_FIRST_CAPACITY = 64


class TailBuffer:
    """Rows in order of arrival, each named by its chunk's integer key."""

    def __init__(self, dimension: int, metric: Metric) -> None:
        self._metric = metric
        self._vectors = np.empty((_FIRST_CAPACITY, dimension), np.float32)
        self._norms = np.empty(_FIRST_CAPACITY, np.float32)
        self._keys = np.empty(_FIRST_CAPACITY, np.int64)
        self._length = 0
        self.positions: dict[int, int] = {}
        self.content = LooseContent()

    def append(self, keys: Int64, vectors: Float32, rows: Sequence[Row]) -> None:
        """Add `vectors` [n, d] and `rows` [n] for `keys` [n]; a key that has a row already leaves that one dead."""
        start, end = self._length, self._length + len(keys)
        if end > len(self._keys):
            capacity = max(2 * len(self._keys), end)
            self._vectors = _grown(self._vectors, start, capacity)
            self._norms = _grown(self._norms, start, capacity)
            self._keys = _grown(self._keys, start, capacity)
        self._vectors[start:end] = vectors
        self._norms[start:end] = row_norms(vectors)
        self._keys[start:end] = keys
        self.positions.update(zip(keys.tolist(), range(start, end), strict=True))
        self.content.append(rows)
        self._length = end

    def rows(self) -> tuple[Int64, Matrix]:
        """Keys [n] and vectors of all rows so far, dead ones included; read-only."""
        arrays = self._keys[: self._length], self._vectors[: self._length], self._norms[: self._length]
        for array in arrays:
            array.flags.writeable = False
        keys, vectors, norms = arrays
        return keys, Matrix(vectors, self._metric, norms)

    @property
    def nbytes(self) -> int:
        return self._vectors.nbytes + self._norms.nbytes + self._keys.nbytes + self.content.nbytes


def _grown(array: NDArray[Any], length: int, capacity: int) -> NDArray[Any]:
    larger = np.empty((capacity, *array.shape[1:]), array.dtype)
    larger[:length] = array[:length]
    return larger
