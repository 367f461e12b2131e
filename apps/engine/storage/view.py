"""One state of a library, as one process holds it: sealed segments, tails of newer rows, masks of dead rows.

A view never changes after it was made, so any number of threads search it without a lock. `apply` makes the next view
from this one and the rows that changed, sharing segments and tail; only one thread at a time may call it for the views
of a library. A key has at most one live row. Rows of a segment lie in ascending order of their keys.

Rows without a vector are *bare*. They lie in segments and in a tail of their own, which searches by vector pass over;
all else looks at every part. A row that gets a vector, or loses its, dies in one part and is new in another.

Rows may expire. `at` gives the view of a time, in which those that have are dead: the same view until the first does,
and then one that is kept until the next. Nothing is lost by it, so clocks may step back.

A step costs what changed, plus a byte per row of each mask that it touches. The live rows of a part in memory are
copied when a quarter of it is dead; maintenance does the same to segments that have files.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import NamedTuple, Self

import numpy as np

from apps.engine.expiry import NEVER
from apps.engine.indexes.base import NO_PARAMS, Params
from apps.engine.indexes.matrix import Matrix, Neighbors
from apps.engine.indexes.registry import BRUTE_FORCE
from apps.engine.metadata import Columns
from apps.engine.metadata.facets import ValuePage, rank_values
from apps.engine.metadata.filters import Filter
from apps.engine.metadata.ordering import OrderBy, OrderedRow, first_rows, merge_rows
from apps.engine.metadata.values import Scalar
from apps.engine.metrics import Metric
from apps.engine.selection import best
from apps.engine.storage.part import Part
from apps.engine.storage.row_data import BufferedRows, Row
from apps.engine.storage.row_lookup import RowLookup
from apps.engine.storage.segment import Segment
from apps.engine.storage.tail import Tail
from apps.engine.text.analyzer import TextQuery
from apps.engine.text.bm25 import search_text
from apps.engine.vectors import Float32, Int64, Mask

COMPACT_ROWS = 1024
_COMPACT_SHARE = 4
_NO_KEYS = np.empty(0, np.int64)


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


class _Shown(NamedTuple):
    """A view as it is from `since` on, and before `until`: in microseconds since the epoch."""

    since: int
    until: int
    view: "View"


class _Memo:
    """What `View.at` gave last, if anything."""

    shown: _Shown | None = None


@dataclass(frozen=True)
class View:
    """An immutable state of one library; see the head of this module.

    `dimension` is 0 where the library has none, and all rows are bare. `built_at` is in seconds since the epoch. A part
    in memory is copied from `compact_rows` dead rows on.
    """

    dimension: int
    metric: Metric
    segments: tuple[Segment, ...]
    tail: Tail
    bare_tail: Tail
    built_at: float
    compact_rows: int
    _memo: _Memo = field(default_factory=_Memo, init=False, repr=False, compare=False)

    @classmethod
    def build(
        cls,
        *,
        dimension: int,
        metric: Metric,
        keys: Int64,
        vectors: Float32,
        rows: Sequence[Row],
        bare_keys: Int64 = _NO_KEYS,
        bare_rows: Sequence[Row] = (),
        compact_rows: int = COMPACT_ROWS,
    ) -> Self:
        """A view of the rows with `vectors` [n, dimension] and the data `rows` [n], named by `keys` [n], and of the
        `bare_rows` [m], named by `bare_keys` [m]; both keys must ascend. Keeps the arrays."""
        given = (keys, vectors, rows), (bare_keys, _no_vectors(bare_keys), bare_rows)
        segments = tuple(
            Segment.build(keys=some, matrix=Matrix.build(matrix, metric), row_data=BufferedRows(data))
            for some, matrix, data in given
            if len(some)
        )
        return cls.of(
            dimension=dimension, metric=metric, segments=segments, built_at=time.time(), compact_rows=compact_rows
        )

    @classmethod
    def of(
        cls,
        *,
        dimension: int,
        metric: Metric,
        segments: tuple[Segment, ...],
        built_at: float,
        compact_rows: int = COMPACT_ROWS,
    ) -> Self:
        """A view of the live rows of `segments`, which have no live key in common."""
        tails = Tail.build(dimension, metric), Tail.build(0, metric)
        return cls(dimension, metric, segments, *tails, built_at, compact_rows)

    def __len__(self) -> int:
        """The number of live rows."""
        return self._live

    @cached_property
    def _live(self) -> int:
        return sum(part.live for part in self.parts)

    @cached_property
    def parts(self) -> tuple[Part, ...]:
        """The segments, and last the tails."""
        return (*self.segments, self.tail, self.bare_tail)

    @cached_property
    def kinds(self) -> frozenset[str]:
        """The types of the parts' indexes."""
        return frozenset(part.kind for part in self.parts)

    @property
    def bare(self) -> int:
        """The number of live rows without a vector."""
        return sum(part.live for part in self.parts if part.is_bare)

    @property
    def dead(self) -> int:
        """The number of dead rows that are still held."""
        return sum(part.dead for part in self.parts)

    @property
    def nbytes(self) -> int:
        """Memory and mapped files that this view holds; the tail's buffer is shared with earlier views."""
        return sum(part.nbytes for part in self.parts)

    @cached_property
    def first_expiry(self) -> int:
        """When the first row expires; NEVER where none does."""
        return min(part.expiring.span(-NEVER)[1] for part in self.parts)

    def at(self, now: int) -> "View":
        """This view without the rows that have expired by `now`, in microseconds since the epoch. Costs a byte per row
        of the parts that have such rows, once until the next row expires."""
        if now < self.first_expiry:
            return self
        shown = self._memo.shown
        if shown is None or not shown.since <= now < shown.until:
            spans = [part.expiring.span(now) for part in self.parts]
            segments = tuple(segment.at(now) for segment in self.segments)
            view = replace(self, segments=segments, tail=self.tail.at(now), bare_tail=self.bare_tail.at(now))
            shown = _Shown(max(since for since, _ in spans), min(until for _, until in spans), view)
            self._memo.shown = shown
        return shown.view

    def within(self, masks: Sequence[Mask]) -> "View":
        """This view, all rows dead but those that `matching` gave. It has no part without such rows, which hits would
        name by its kind."""
        *of_segments, of_tail, of_bare_tail = masks
        segments = tuple(
            replace(segment, alive=mask) for segment, mask in zip(self.segments, of_segments, strict=True) if mask.any()
        )
        tail, bare_tail = (
            replace(tail, alive=mask) if mask.any() else Tail.build(tail.matrix.dimension, self.metric)
            for tail, mask in ((self.tail, of_tail), (self.bare_tail, of_bare_tail))
        )
        return replace(self, segments=segments, tail=tail, bare_tail=bare_tail)

    def has(self, key: int) -> bool:
        """Whether a live row has this key."""
        keys = np.array([key], np.int64)
        places = [(part, part.places(keys)[0]) for part in self.parts if len(part.keys)]
        return any(place >= 0 and (part.alive is None or part.alive[place]) for part, place in places)

    def apply(
        self,
        *,
        keys: Int64,
        vectors: Float32,
        rows: Sequence[Row],
        gone: Int64,
        bare_keys: Int64 = _NO_KEYS,
        bare_rows: Sequence[Row] = (),
    ) -> "View":
        """The view in which the rows of `keys` [n] are `vectors` [n, dimension] and `rows` [n], those of `bare_keys`
        [m] are `bare_rows` [m], and those of `gone` are no more. No key may be in two of the three."""
        touched = np.concatenate([keys, bare_keys, gone])
        if not len(touched):
            return self
        segments = tuple(segment.without(touched) for segment in self.segments)
        tail = self.tail.apply(touched, keys, vectors, rows)
        bare_tail = self.bare_tail.apply(touched, bare_keys, _no_vectors(bare_keys), bare_rows)
        return replace(self, segments=segments, tail=tail, bare_tail=bare_tail)._compact()

    def _compact(self) -> "View":
        """This view, with the live rows of every part in memory copied where a quarter of the part is dead."""
        segments = [
            segment.copy_live()
            if isinstance(segment.row_data, BufferedRows) and _is_sparse(segment, self.compact_rows)
            else segment
            for segment in self.segments
        ]
        tail, bare_tail = (
            tail.copy_live() if _is_sparse(tail, self.compact_rows) else tail for tail in (self.tail, self.bare_tail)
        )
        segments = [segment for segment in segments if len(segment.keys)]
        return replace(self, segments=tuple(segments), tail=tail, bare_tail=bare_tail)

    def flush(self) -> list[Segment]:
        """The live rows that are in no file, as a segment of those with a vector and one of the others, where there are
        any."""
        loose = [part for part in self.parts if part.live and not (isinstance(part, Segment) and part.name)]
        groups = [part for part in loose if not part.is_bare], [part for part in loose if part.is_bare]
        return [Segment.merge(parts) for parts in groups if parts]

    def search(
        self,
        queries: Float32,
        k: int,
        *,
        exact: bool = False,
        params: Params = NO_PARAMS,
        allowed: Sequence[Mask] | None = None,
        sure: int | None = None,
    ) -> list[Hits]:
        """The k nearest chunks to each of `queries` [m, dimension], best first; ties go to the lower key.

        `exact` asks no approximate index; of the search parameters `params`, each index takes those that it knows.
        `allowed`, as `matching` gives it, limits the search to some of the live rows. An approximate index finds the
        first `sure` as surely as a search for that many would (None: all k).
        """
        found = [
            (part, part.search(queries, k, exact=exact, params=params, allowed=mask, sure=sure))
            for part, mask in self._parts_with(allowed)
            if len(part.keys) and not part.is_bare and (mask is None or mask.any())
        ]
        return [_merge_hits(found, query, k) for query in range(len(queries))]

    def search_text(self, query: TextQuery, k: int, *, allowed: Sequence[Mask] | None = None) -> Hits:
        """The k best rows for `query` by BM25, whose statistics are those of all live rows; `allowed`, as `matching`
        gives it, limits the search."""
        parts = [one for part, mask in self._parts_with(allowed) for one in part.text_parts(mask)]
        found = search_text(parts, query, k)
        return Hits(found.keys, found.scores, found.matched, True, frozenset())

    def _parts_with(self, allowed: Sequence[Mask] | None) -> list[tuple[Part, Mask | None]]:
        parts = self.parts
        return list(zip(parts, [None] * len(parts) if allowed is None else allowed, strict=True))

    def matching(self, filter: Filter) -> list[Mask]:
        """Of each part, the live rows that match."""
        return [part.matching(filter) for part in self.parts]

    def with_vectors(self, allowed: Sequence[Mask]) -> list[Mask]:
        """Of rows that `matching` gave, those that have a vector."""
        return [np.zeros_like(mask) if part.is_bare else mask for part, mask in zip(self.parts, allowed, strict=True)]

    def keys(self, allowed: Sequence[Mask]) -> Int64:
        """The keys of rows that `matching` gave, in ascending order."""
        return np.sort(np.concatenate([part.keys[mask] for part, mask in zip(self.parts, allowed, strict=True)]))

    def lookup(self, keys: Int64) -> RowLookup:
        """What the live rows `keys` [n] have and match."""
        return RowLookup.of(self.parts, keys)

    def facets(self, field: str, allowed: Sequence[Mask], page: ValuePage) -> tuple[list[tuple[Scalar, int]], int]:
        """A page of the values of a field among rows that `matching` gave, each with its number of rows; and the number
        of all that it is a page of. Values and their order are those of `rank_values`."""
        counts = [one for block, mask in self.columns(allowed, field) for one in block.counts(field, mask)]
        return rank_values(counts, page)

    def columns(self, allowed: Sequence[Mask], field: str | None = None) -> list[tuple[Columns, Mask | None]]:
        """The column of a field, or all columns, in blocks; and which rows of each block are among those that
        `matching` gave, None for all."""
        return [one for part, mask in zip(self.parts, allowed, strict=True) for one in part.columns(mask, field)]

    def unread(self) -> tuple[int, int]:
        """The number of rows, and that of the characters of their metadata, of which `columns` makes all columns each
        time: those in memory."""
        found = [part.row_data.unread(len(part.keys)) for part in self.parts]
        return sum(rows for rows, _ in found), sum(characters for _, characters in found)

    def ordered(
        self, order: Sequence[OrderBy], allowed: Sequence[Mask], after: OrderedRow | None, limit: int
    ) -> list[OrderedRow]:
        """The first `limit` rows behind `after`, in `order`, of those that `matching` gave."""
        fields = [by.field for by in order]
        found = [
            row
            for part, mask in zip(self.parts, allowed, strict=True)
            for start, end, ranks in part.ranks(fields)
            for row in first_rows(part.keys[start:end], mask[start:end], ranks, order, after, limit)
        ]
        return merge_rows(found, order, limit)


def _no_vectors(keys: Int64) -> Float32:
    return np.empty((len(keys), 0), np.float32)


def _is_sparse(part: Part, compact_rows: int) -> bool:
    """Whether a part has enough dead rows for its live ones to be copied."""
    return part.dead >= compact_rows and part.dead * _COMPACT_SHARE >= len(part.keys)


def _merge_hits(found: Sequence[tuple[Part, Neighbors]], query: int, k: int) -> Hits:
    """The k best of what was found in the parts for one query."""
    # An index leaves to a scan what that does quicker.
    kinds = frozenset([BRUTE_FORCE if one.scanned[query] else part.kind for part, one in found])
    if len(found) == 1:
        [(part, one)] = found
        positions = one.positions[query]
        if positions[-1] < 0:
            positions = positions[positions >= 0]
        compared, is_exact = int(one.compared[query]), bool(one.proven[query])
        return Hits(part.keys[positions], one.scores[query, : len(positions)], compared, is_exact, kinds)
    keys, scores = [np.empty(0, np.int64)], [np.empty(0, np.float32)]
    for part, one in found:
        filled = one.positions[query] >= 0
        keys.append(part.keys[one.positions[query][filled]])
        scores.append(one.scores[query][filled])
    all_keys, all_scores = np.concatenate(keys), np.concatenate(scores)
    chosen = best(all_scores, all_keys, k)
    return Hits(
        all_keys[chosen],
        all_scores[chosen],
        compared=sum(int(one.compared[query]) for _, one in found),
        exact=all(bool(one.proven[query]) for _, one in found),
        kinds=kinds,
    )
