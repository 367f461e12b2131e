"""Sealed rows: their keys, their vectors, an exact index and the one that answers, with a mask of dead rows.

What always holds: keys ascend; nothing but the mask ever changes, and a changed mask makes another Segment. A segment
that was saved is named by its folder:

keys.npy      int64 [n], ascending
vectors.npy   float32 [n, dimension]
exact/        the files of its `brute_force`, which answers exact queries and those with few allowed rows
index/        the files of its other index, where it has one

Loading maps the files, so that all processes of a host share one copy.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np

from apps.engine.brute_force import BruteForce
from apps.engine.errors import Damaged
from apps.engine.files import map_array, save_array
from apps.engine.index import NO_PARAMS, Neighbors, Params, VectorIndex
from apps.engine.metrics import Metric
from apps.engine.registry import AUTO, chosen_kind, index_type
from apps.engine.vectors import Float32, Int64, Mask

_KEYS, _VECTORS, _EXACT, _INDEX = "keys.npy", "vectors.npy", "exact", "index"


@dataclass(frozen=True)
class Segment:
    """`name` is that of its folder, empty while it is in memory only. `index` is `exact` where no other is wished."""

    name: str
    keys: Int64
    vectors: Float32
    exact: BruteForce
    index: VectorIndex
    params: Params
    alive: Mask | None = None

    @classmethod
    def build(
        cls,
        *,
        name: str = "",
        keys: Int64,
        vectors: Float32,
        metric: Metric,
        kind: str = BruteForce.kind,
        params: Params = NO_PARAMS,
    ) -> Self:
        """A segment of the rows `vectors` [n, dimension] named by `keys` [n], which must ascend; keeps both arrays."""
        exact = BruteForce.build(vectors, metric)
        index = exact if kind == BruteForce.kind else index_type(kind).build(vectors, metric, params)
        return cls(name, keys, vectors, exact, index, params)

    def save(self, folder: Path) -> None:
        """Write the files of the segment into `folder`, which must not exist."""
        (folder / _EXACT).mkdir(parents=True)
        save_array(folder / _KEYS, self.keys)
        save_array(folder / _VECTORS, self.vectors)
        self.exact.save(folder / _EXACT)
        if self.index is not self.exact:
            (folder / _INDEX).mkdir()
            self.index.save(folder / _INDEX)

    @classmethod
    def load(cls, folder: Path, *, dimension: int, metric: Metric, kind: str, params: Params) -> Self:
        """The segment in `folder`, without dead rows; raises Damaged for files that make none."""
        try:
            keys, vectors = map_array(folder / _KEYS), map_array(folder / _VECTORS)
            exact = BruteForce.load(folder / _EXACT, vectors, metric)
            index = exact if kind == BruteForce.kind else index_type(kind).load(folder / _INDEX, vectors, metric)
        except (OSError, EOFError, ValueError, RuntimeError) as error:
            raise Damaged(f"{folder.name} cannot be loaded: {error}") from error
        if keys.dtype != np.int64 or vectors.dtype != np.float32 or vectors.shape != (len(keys), dimension):
            raise Damaged(f"{folder.name} holds arrays of another type or shape")
        if not len(exact) == len(index) == len(keys):
            raise Damaged(f"{folder.name} holds indexes of another number of rows")
        return cls(folder.name, keys, vectors, exact, index, params)

    def is_as_wished(self, name: str, params: Params) -> bool:
        """Whether a library wishes the segment so whose index type is `name`, which may be `auto`, with `params`."""
        rows, dimension = self.vectors.shape
        return self.index.kind == chosen_kind(name, rows, dimension) and (name == AUTO or params == self.params)

    @property
    def dead(self) -> int:
        """The number of dead rows."""
        return 0 if self.alive is None else len(self.keys) - int(np.count_nonzero(self.alive))

    @property
    def live(self) -> int:
        """The number of live rows."""
        return len(self.keys) - self.dead

    @property
    def nbytes(self) -> int:
        """Memory or mapped files."""
        indexes = self.exact.nbytes + (0 if self.index is self.exact else self.index.nbytes)
        return self.keys.nbytes + self.vectors.nbytes + indexes

    def search(self, queries: Float32, k: int, *, exact: bool, params: Params) -> Neighbors:
        """The k nearest live rows to each of `queries` [m, dimension]; of `params`, those that the index takes."""
        if exact or self.index is self.exact:
            return self.exact.search(queries, k, self.alive)
        if params:
            known = {parameter.name for parameter in self.index.search_parameters}
            params = {name: value for name, value in params.items() if name in known}
        return self.index.search(queries, k, self.alive, params)

    def locate(self, keys: Int64) -> tuple[Int64, Mask]:
        """Positions of the live rows of `keys` and a mask over `keys` of those that have one."""
        places = np.searchsorted(self.keys, keys)
        inside = np.minimum(places, len(self.keys) - 1)
        found = self.keys[inside] == keys
        if self.alive is not None:
            found &= self.alive[inside]
        return inside[found], found

    def without(self, keys: Int64) -> "Segment":
        """This segment, the rows of `keys` dead."""
        positions, _ = self.locate(keys)
        if not len(positions):
            return self
        alive = np.ones(len(self.keys), np.bool_) if self.alive is None else self.alive.copy()
        alive[positions] = False
        return replace(self, alive=alive)

    def live_keys(self) -> Int64:
        """The keys of the live rows."""
        return self.keys if self.alive is None else self.keys[self.alive]

    def rows(self) -> tuple[Int64, Float32]:
        """Keys and vectors of the live rows."""
        return self.live_keys(), self.vectors if self.alive is None else self.vectors[self.alive]


def merged_rows(parts: list[tuple[Int64, Float32]]) -> tuple[Int64, Float32]:
    """Keys and vectors of several parts that have no key in common, in ascending order of the keys."""
    keys = np.concatenate([keys for keys, _ in parts])
    order = np.argsort(keys, kind="stable")
    places = np.empty(len(keys), np.int64)
    places[order] = np.arange(len(keys))
    vectors = np.empty((len(keys), parts[0][1].shape[1]), np.float32)
    start = 0
    # Part by part: all vectors are held twice at no time.
    for part_keys, part in parts:
        vectors[places[start : start + len(part_keys)]] = part
        start += len(part_keys)
    return keys[order], vectors
