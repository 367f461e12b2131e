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
from typing import NamedTuple, Self

import numpy as np

from apps.engine.indexes.base import NO_PARAMS, Params
from apps.engine.indexes.matrix import Matrix, Neighbors
from apps.engine.indexes.registry import BRUTE_FORCE
from apps.engine.metadata.facets import most_frequent
from apps.engine.metadata.filters import Filter
from apps.engine.metadata.values import Scalar
from apps.engine.metrics import Metric
from apps.engine.selection import best
from apps.engine.storage.row_data import LooseContent, Row
from apps.engine.storage.segment import Part, Segment, merged_rows
from apps.engine.storage.tail import TailBuffer
from apps.engine.text.analyzer import TextQuery
from apps.engine.text.bm25 import TextPart, search_text
from apps.engine.text.inverted_index import InvertedIndex
from apps.engine.vectors import Float32, Int64, Mask

_COMPACT_ROWS = 1024
_COMPACT_SHARE = 4


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
    tail_rows: tuple[Int64, Matrix]
    tail_alive: Mask
    built_at: float

    @classmethod
    def build(cls, *, dimension: int, metric: Metric, keys: Int64, vectors: Float32, rows: Sequence[Row]) -> Self:
        """A view of the rows with `vectors` [n, dimension] and what `rows` [n] says besides, named by `keys` [n], which
        must ascend. Keeps both arrays."""
        segments: tuple[Segment, ...] = ()
        if len(keys):
            segments = (Segment.build(keys=keys, matrix=Matrix.build(vectors, metric), content=LooseContent(rows)),)
        return cls.of(dimension=dimension, metric=metric, segments=segments, built_at=time.time())

    @classmethod
    def of(cls, *, dimension: int, metric: Metric, segments: tuple[Segment, ...], built_at: float) -> Self:
        """A view of the live rows of `segments`, which have no live key in common."""
        tail = TailBuffer(dimension, metric)
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

    def advanced(self, *, keys: Int64, vectors: Float32, rows: Sequence[Row], gone: Int64) -> "View":
        """The view in which the rows of `keys` [n] are `vectors` [n, dimension] and `rows` [n], and those of `gone` are
        no more. `keys` and `gone` must not have a key in common."""
        touched = np.concatenate([keys, gone])
        if not len(touched):
            return self
        segments = tuple(segment.without(touched) for segment in self.segments)
        alive = np.ones(len(self.tail_alive) + len(keys), np.bool_)
        alive[: len(self.tail_alive)] = self.tail_alive
        alive[[self.tail.positions.pop(key) for key in touched.tolist() if key in self.tail.positions]] = False
        self.tail.append(keys, vectors, rows)
        return replace(self, segments=segments, tail_rows=self.tail.rows(), tail_alive=alive)._compacted()

    def search(
        self,
        queries: Float32,
        k: int,
        *,
        exact: bool = False,
        params: Params = NO_PARAMS,
        allowed: Sequence[Mask] | None = None,
    ) -> list[Hits]:
        """The k nearest chunks to each of `queries` [m, dimension], best first; ties go to the lower key.

        `exact` asks no approximate index; of the search parameters `params`, each index takes those that it knows.
        `allowed`, as `matching` gives it, limits the search to some of the live rows.
        """
        masks: Sequence[Mask | None] = [None] * len(self.segments) if allowed is None else allowed
        parts = []
        for segment, mask in zip(self.segments, masks, strict=False):
            if mask is None or mask.any():
                found = segment.search(queries, k, exact=exact, params=params, allowed=mask)
                parts.append(_PartFound(segment.keys, segment.index.kind, found))
        keys, matrix = self.tail_rows
        tail_mask = self.tail_alive if allowed is None else allowed[-1]
        if len(keys) and (allowed is None or tail_mask.any()):
            parts.append(_PartFound(keys, BRUTE_FORCE, matrix.search(queries, k, tail_mask, order=keys)))
        return [_merged(parts, query, k) for query in range(len(queries))]

    def matching(self, filter: Filter) -> list[Mask]:
        """Of each segment, and last of the tail, the live rows that match."""
        found = []
        for part in self.parts():
            columns = part.content.columns(len(part.keys))
            mask = np.concatenate([some.mask(filter) for some in columns] or [np.empty(0, np.bool_)])[: len(part.keys)]
            found.append(mask if part.alive is None else mask & part.alive)
        return found

    def keys(self, allowed: Sequence[Mask]) -> Int64:
        """The keys of rows that `matching` gave, in ascending order."""
        some = [part.keys[mask] for part, mask in zip(self.parts(), allowed, strict=True)]
        return np.sort(np.concatenate(some))

    def facets(self, field: str, allowed: Sequence[Mask], limit: int) -> tuple[list[tuple[Scalar, int]], int]:
        """The `limit` most frequent values of a field among rows that `matching` gave, with the number of rows that
        have each, and how many different values there are; values and their order are those of `columns.facets`."""
        counts = []
        for part, mask in zip(self.parts(), allowed, strict=True):
            start = 0
            for columns in part.content.columns(len(part.keys)):
                some = np.zeros(len(columns), np.bool_)
                here = mask[start : start + len(columns)]
                some[: len(here)] = here
                counts.append(columns.counts(field, None if some.all() else some))
                start += len(columns)
        return most_frequent(counts, limit)

    def search_words(self, words: TextQuery, k: int, *, allowed: Sequence[Mask] | None = None) -> Hits:
        """The k best rows for `words` by BM25, whose statistics are those of all live rows; `allowed`, as `matching`
        gives it, limits the search."""
        parts = []
        masks: Sequence[Mask | None] = [None] * (len(self.segments) + 1) if allowed is None else allowed
        for part, mask in zip(self.parts(), masks, strict=True):
            start, count = 0, len(part.keys)
            for index in part.content.words(count):
                end = min(start + len(index), count)
                parts.append(_words_part(index, part, mask, start, end))
                start = end
        found = search_text(parts, words, k)
        return Hits(found.keys, found.scores, found.matched, True, frozenset())

    def loose_segment(self) -> Segment | None:
        """A segment of the live rows that are in no file; None where there are none."""
        parts = [*(segment.part() for segment in self.segments if not segment.name), self._tail_part()]
        merged = merged_rows(parts, self.dimension, self.metric)
        if not len(merged.keys):
            return None
        return Segment.build(keys=merged.keys, matrix=merged.matrix, content=merged.content(parts))

    def parts(self) -> list[Part]:
        """The rows of the segments, and last of the tail."""
        return [*(segment.part() for segment in self.segments), self._tail_part()]

    def _tail_part(self) -> Part:
        keys, matrix = self.tail_rows
        return Part(keys, matrix, self.tail.content, self.tail_alive)

    def _compacted(self) -> "View":
        """This view, with the live rows of every part in memory copied where a quarter of the part is dead."""
        segments = tuple(
            self._copied(segment)
            if isinstance(segment.content, LooseContent) and is_sparse(segment.dead, len(segment.keys))
            else segment
            for segment in self.segments
        )
        view = replace(self, segments=tuple(segment for segment in segments if len(segment.keys)))
        if not is_sparse(len(self.tail_alive) - int(np.count_nonzero(self.tail_alive)), len(self.tail_alive)):
            return view
        keys, matrix = self.tail_rows
        tail = TailBuffer(self.dimension, self.metric)
        tail.append(keys[self.tail_alive], matrix.vectors[self.tail_alive], self.tail.content.rows(self.tail_alive))
        rows = tail.rows()
        return replace(view, tail=tail, tail_rows=rows, tail_alive=np.ones(len(rows[0]), np.bool_))

    def _copied(self, segment: Segment) -> Segment:
        """The live rows of a segment in memory."""
        assert isinstance(segment.content, LooseContent)
        assert segment.alive is not None
        content = LooseContent(segment.content.rows(segment.alive))
        matrix = Matrix.build(segment.matrix.vectors[segment.alive], self.metric)
        return Segment.build(keys=segment.keys[segment.alive], matrix=matrix, content=content)


def _words_part(index: InvertedIndex, part: Part, allowed: Mask | None, start: int, end: int) -> TextPart:
    """The rows `start` to `end` of a part, as a search for words takes them; `index` may reach beyond."""
    keys = np.full(len(index), -1, np.int64)
    alive = np.zeros(len(index), np.bool_)
    keys[: end - start] = part.keys[start:end]
    alive[: end - start] = True if part.alive is None else part.alive[start:end]
    mask = None
    if allowed is not None:
        mask = np.zeros(len(index), np.bool_)
        mask[: end - start] = allowed[start:end]
    return TextPart(index, keys, alive, mask)


def is_sparse(dead: int, rows: int) -> bool:
    """Whether so many dead rows of all are worth a copy of the live ones."""
    return dead >= _COMPACT_ROWS and dead * _COMPACT_SHARE >= rows


class _PartFound(NamedTuple):
    """What was found in one part of a view, whose rows are named by `keys`, by an index of type `kind`."""

    keys: Int64
    kind: str
    found: Neighbors

    def answered_by(self, query: int) -> str:
        """The type of index that answered: one leaves to a scan what that does quicker."""
        return BRUTE_FORCE if self.found.scanned[query] else self.kind


def _merged(parts: Sequence[_PartFound], query: int, k: int) -> Hits:
    """The k best of what the parts found for one query."""
    kinds = frozenset([part.answered_by(query) for part in parts])
    if len(parts) == 1:
        [(part_keys, _, found)] = parts
        positions = found.positions[query]
        if positions[-1] < 0:
            positions = positions[positions >= 0]
        compared, is_exact = int(found.compared[query]), bool(found.proven[query])
        return Hits(part_keys[positions], found.scores[query, : len(positions)], compared, is_exact, kinds)
    keys, scores = [], []
    for part_keys, _, found in parts:
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
        compared=sum(int(part.found.compared[query]) for part in parts),
        exact=all(bool(part.found.proven[query]) for part in parts),
        kinds=kinds,
    )
