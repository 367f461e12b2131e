"""One state of a library, as one process holds it: sealed segments, a tail of newer rows, masks of dead rows.

What always holds: a view never changes after it was made, so any number of threads search it without a lock. `advanced`
makes the next view from this one and the rows that changed, sharing segments and tail; only one thread at a time may
advance the views of a library. A key has at most one live row. Rows of a segment lie in ascending order of their keys.

A step costs what changed, plus one byte per row of each mask that it touches. When a quarter of a part's rows are dead
its live rows are copied, which keeps the cost of a change constant on average; segments that have files are left to
maintenance, which does the same.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from apps.engine.brute_force import BruteForce, search_matrix
from apps.engine.index import NO_PARAMS, Neighbors, Params
from apps.engine.metrics import Metric
from apps.engine.segment import Segment, merged_rows
from apps.engine.selection import best
from apps.engine.tail import TailBuffer
from apps.engine.vectors import Float32, Int64, Mask

_COMPACT_ROWS = 1024
_COMPACT_SHARE = 4
_EXACT_KIND = frozenset([BruteForce.kind])


@dataclass(frozen=True)
class Hits:
    """The nearest chunks of one query, best first: `keys` int64 [n], `scores` float32 [n], n <= k.

    `compared` counts the vectors the query was compared with; `exact` says that these provably are the k best. `kinds`
    names the types of index that were asked.
    """

    keys: Int64
    scores: Float32
    compared: int
    exact: bool
    kinds: frozenset[str]


@dataclass(frozen=True)
class View:
    """An immutable state of one library; see the head of this module. `built_at` is in seconds since the epoch."""

    dimension: int
    metric: Metric
    segments: tuple[Segment, ...]
    tail: TailBuffer
    tail_rows: tuple[Int64, Float32, Float32]
    tail_alive: Mask
    built_at: float

    @classmethod
    def build(cls, *, dimension: int, metric: Metric, keys: Int64, vectors: Float32) -> Self:
        """A view of the rows `vectors` [n, dimension] named by `keys` [n], which must ascend. Keeps both arrays."""
        segments = (Segment.build(keys=keys, vectors=vectors, metric=metric),) if len(keys) else ()
        return cls.of(dimension=dimension, metric=metric, segments=segments, built_at=time.time())

    @classmethod
    def of(cls, *, dimension: int, metric: Metric, segments: tuple[Segment, ...], built_at: float) -> Self:
        """A view of the live rows of `segments`, which have no live key in common."""
        tail = TailBuffer(dimension)
        return cls(dimension, metric, segments, tail, tail.rows(), np.ones(0, np.bool_), built_at)

    def __len__(self) -> int:
        """The number of live rows."""
        return sum(segment.live for segment in self.segments) + self.pending

    @property
    def pending(self) -> int:
        """The number of live rows in the tail."""
        return int(np.count_nonzero(self.tail_alive))

    @property
    def dead(self) -> int:
        """The number of dead rows that are still held."""
        return sum(segment.dead for segment in self.segments) + len(self.tail_alive) - self.pending

    @property
    def nbytes(self) -> int:
        """Memory and mapped files that this view holds; the tail's buffer is shared with earlier views."""
        return sum(segment.nbytes for segment in self.segments) + self.tail.nbytes

    def advanced(self, *, keys: Int64, vectors: Float32, gone: Int64) -> "View":
        """The view in which the rows of `keys` [n] are `vectors` [n, dimension] and those of `gone` are no more.

        A row whose vector did not change stays where it is. `keys` and `gone` must not have a key in common.
        """
        changed = ~self._holds(keys, vectors)
        keys, vectors = keys[changed], vectors[changed]
        touched = np.concatenate([keys, gone])
        if not len(touched):
            return self
        segments = tuple(segment.without(touched) for segment in self.segments)
        alive = np.ones(len(self.tail_alive) + len(keys), np.bool_)
        alive[: len(self.tail_alive)] = self.tail_alive
        alive[[self.tail.positions.pop(key) for key in touched.tolist() if key in self.tail.positions]] = False
        self.tail.append(keys, vectors)
        return replace(self, segments=segments, tail_rows=self.tail.rows(), tail_alive=alive)._compacted()

    def search(self, queries: Float32, k: int, *, exact: bool = False, params: Params = NO_PARAMS) -> list[Hits]:
        """The k nearest chunks to each of `queries` [m, dimension], best first; ties go to the lower key.

        `exact` asks no approximate index; of the search parameters `params`, each index takes those that it knows.
        """
        parts = [(s.keys, s.search(queries, k, exact=exact, params=params)) for s in self.segments]
        kinds = frozenset(BruteForce.kind if exact else segment.index.kind for segment in self.segments)
        keys, vectors, norms = self.tail_rows
        if len(keys):
            parts.append((keys, search_matrix(vectors, norms, self.metric, queries, k, self.tail_alive, keys)))
            kinds |= _EXACT_KIND
        return [_merged(parts, query, k, kinds) for query in range(len(queries))]

    def rows(self) -> tuple[Int64, Float32]:
        """Keys and vectors of all live rows, in ascending order of the keys; a copy."""
        return self._rows_of(self.segments)

    def loose_rows(self) -> tuple[Int64, Float32]:
        """Keys and vectors of the live rows that are in no file, in ascending order of the keys; a copy."""
        return self._rows_of([segment for segment in self.segments if not segment.name])

    def _rows_of(self, segments: Sequence[Segment]) -> tuple[Int64, Float32]:
        """The live rows of `segments` and of the tail."""
        keys, vectors, _ = self.tail_rows
        tail = keys[self.tail_alive], vectors[self.tail_alive]
        return merged_rows([*(segment.rows() for segment in segments), tail])

    def _holds(self, keys: Int64, vectors: Float32) -> Mask:
        """Which of `keys` have a live row with exactly these `vectors`."""
        same = np.zeros(len(keys), np.bool_)
        for segment in self.segments:
            positions, found = segment.locate(keys)
            same[found] = (segment.vectors[positions] == vectors[found]).all(axis=1)
        for i, key in enumerate(keys.tolist()):
            position = self.tail.positions.get(key)
            if position is not None:
                same[i] = np.array_equal(self.tail_rows[1][position], vectors[i])
        return same

    def _compacted(self) -> "View":
        """This view, with the live rows of every part in memory copied where a quarter of the part is dead."""
        segments = tuple(
            Segment.build(keys=segment.keys[segment.alive], vectors=segment.vectors[segment.alive], metric=self.metric)
            if segment.alive is not None and not segment.name and is_sparse(segment.dead, len(segment.keys))
            else segment
            for segment in self.segments
        )
        view = replace(self, segments=tuple(segment for segment in segments if len(segment.keys)))
        if not is_sparse(len(self.tail_alive) - int(np.count_nonzero(self.tail_alive)), len(self.tail_alive)):
            return view
        keys, vectors, _ = self.tail_rows
        tail = TailBuffer(self.dimension)
        tail.append(keys[self.tail_alive], vectors[self.tail_alive])
        rows = tail.rows()
        return replace(view, tail=tail, tail_rows=rows, tail_alive=np.ones(len(rows[0]), np.bool_))


def is_sparse(dead: int, rows: int) -> bool:
    """Whether so many dead rows of all are worth a copy of the live ones."""
    return dead >= _COMPACT_ROWS and dead * _COMPACT_SHARE >= rows


def _merged(parts: Sequence[tuple[Int64, Neighbors]], query: int, k: int, kinds: frozenset[str]) -> Hits:
    """The k best of what the parts found for one query."""
    if len(parts) == 1:
        [(part_keys, found)] = parts
        filled = int(np.count_nonzero(found.positions[query] >= 0))
        positions = found.positions[query, :filled]
        return Hits(part_keys[positions], found.scores[query, :filled], int(found.compared[query]), found.exact, kinds)
    keys, scores = [], []
    for part_keys, found in parts:
        positions = found.positions[query]
        filled = positions >= 0
        keys.append(part_keys[positions[filled]])
        scores.append(found.scores[query][filled])
    all_keys = np.concatenate([np.empty(0, np.int64), *keys])
    all_scores = np.concatenate([np.empty(0, np.float32), *scores])
    chosen = best(all_scores, all_keys, k)
    return Hits(
        all_keys[chosen],
        all_scores[chosen],
        compared=sum(int(found.compared[query]) for _, found in parts),
        exact=all(found.exact for _, found in parts),
        kinds=kinds,
    )
