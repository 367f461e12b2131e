"""Executes searches on a view: filter -> allowed rows -> search by vector, by words, or by both -> ranked hits.

Each distinct filter of a request is evaluated once, and searches that share their options are one call of the engine.
What comes out says how it was found, and whether it provably is the best there is.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, Self

import numpy as np

from apps.engine.indexes.base import Params
from apps.engine.indexes.brute_force import BruteForce
from apps.engine.metadata.filters import And, Filter
from apps.engine.storage.view import Hits, View
from apps.engine.text.analyzer import TextQuery
from apps.engine.vectors import Float32, Mask
from apps.search.query.spec import Hybrid, Mode

# So many ranks of either side are fused at least.
_FUSED_RANKS = 100
_SCAN = "exact scan"
_WORDS = "words"


@dataclass(frozen=True)
class Search:
    """What the engine is asked: the `fetch` best by `vector`, by `words` or by both, under a filter."""

    fetch: int
    mode: Mode
    vector: Float32 | None
    words: TextQuery | None
    filter: Filter
    filter_mode: str
    exact: bool
    params: Params
    hybrid: Hybrid


@dataclass(frozen=True)
class Ranked:
    """Hits of one search, best first. `kinds` are the types of index that were asked, `plan` says what was done;
    `incomplete` that rows which match the filter may be missing though fewer than `fetch` were found. `ranks` holds,
    for hybrid searches, the ranks by vector and by words of each key, from 1, or None."""

    keys: list[int]
    scores: list[float]
    exact: bool
    scanned: int
    kinds: frozenset[str]
    plan: str
    incomplete: bool = False
    ranks: dict[int, tuple[int | None, int | None]] = field(default_factory=dict)


NOTHING = Ranked([], [], exact=True, scanned=0, kinds=frozenset(), plan="no vectors yet")


@dataclass(frozen=True)
class _Allowed:
    """The rows that match a filter, by part of the view, and their number; `masks` is None for all, not counted."""

    masks: list[Mask] | None
    count: int

    @classmethod
    def of(cls, masks: list[Mask]) -> Self:
        """The rows of masks as a view gives them."""
        return cls(masks, sum(int(np.count_nonzero(mask)) for mask in masks))


_ALL = _Allowed(None, 0)


@lru_cache(maxsize=64)
def _how(kinds: frozenset[str]) -> str:
    """What a plan says of the types of index that were asked."""
    others = sorted(kinds - {BruteForce.kind})
    return " + ".join([*others, _SCAN] if BruteForce.kind in kinds or not others else others)


class Execution:
    """Searches of one view."""

    def __init__(self, view: View) -> None:
        self.view = view
        # By their text: as keys, filters of 1 and of true would be one.
        self._allowed: dict[str, _Allowed] = {}

    def allowed(self, filter: Filter) -> _Allowed:
        """The rows that match."""
        if filter.is_everything:
            return _ALL
        found = self._allowed.get(repr(filter))
        if found is None:
            found = self._allowed[repr(filter)] = _Allowed.of(self.view.matching(filter))
        return found

    def within(self, search: Search, filter: Filter) -> Ranked:
        """What an exact scan finds among the rows that match `filter` too. Unlike those of `search`, they are not kept:
        there may be as many such filters as there are documents."""
        masks, outer = self.view.matching(filter), self.allowed(search.filter).masks
        if outer is not None:
            masks = [mask & other for mask, other in zip(masks, outer, strict=True)]
        narrower = replace(search, filter=And((search.filter, filter)), filter_mode="pre")
        execution = Execution(self.view)
        execution._allowed[repr(narrower.filter)] = _Allowed.of(masks)
        [found] = execution.run([narrower])
        return found

    def run(self, searches: Sequence[Search]) -> list[Ranked]:
        """What is found, in the order of `searches`."""
        if len(searches) == 1 and searches[0].mode == "vector":
            [search] = searches
            assert search.vector is not None
            return self._by_vectors([search], search.vector[np.newaxis])
        found: list[Ranked] = [NOTHING] * len(searches)
        groups: defaultdict[tuple[Any, ...], list[int]] = defaultdict(list)
        for i, search in enumerate(searches):
            if search.mode == "vector":
                options = search.fetch, repr(search.filter), search.filter_mode, search.exact
                groups[*options, *sorted(search.params.items())].append(i)
            else:
                found[i] = self._by_words(search) if search.mode == "lexical" else self._by_both(search)
        for members in groups.values():
            some = [searches[i] for i in members]
            ranked = self._by_vectors(some, np.array([search.vector for search in some]))
            for i, one in zip(members, ranked, strict=True):
                found[i] = one
        return found

    def _by_vectors(self, searches: Sequence[Search], vectors: Float32) -> list[Ranked]:
        """Searches that share all options but their vector."""
        search = searches[0]
        if search.filter_mode == "post" and not search.filter.is_everything:
            hits = self.view.search(vectors, search.fetch, exact=search.exact, params=search.params)
            allowed = self.allowed(search.filter)
            assert allowed.masks is not None
            keys = self.view.keys(allowed.masks)
            return [self._kept(one, np.isin(one.keys, keys, assume_unique=True), allowed) for one in hits]
        allowed = self.allowed(search.filter)
        exact = search.exact or (search.filter_mode == "pre" and allowed.masks is not None)
        hits = self.view.search(vectors, search.fetch, exact=exact, params=search.params, allowed=allowed.masks)
        return [self._ranked(one, allowed) for one in hits]

    def _ranked(self, hits: Hits, allowed: _Allowed) -> Ranked:
        how = _how(hits.kinds)
        plan = how if allowed.masks is None else f"filter ({allowed.count:,} of {len(self.view):,} rows), then {how}"
        return Ranked(hits.keys.tolist(), hits.scores.tolist(), hits.exact, hits.compared, hits.kinds, plan)

    def _kept(self, hits: Hits, kept: Mask, allowed: _Allowed) -> Ranked:
        """What is left of hits that a filter was applied to afterwards."""
        ranked = self._ranked(hits, replace(allowed, masks=None))
        count = int(np.count_nonzero(kept))
        return replace(
            ranked,
            keys=hits.keys[kept].tolist(),
            scores=hits.scores[kept].tolist(),
            exact=hits.exact and count == min(len(hits.keys), allowed.count),
            plan=f"{ranked.plan}, then filter ({count} of {len(hits.keys)} hits)",
            incomplete=count < min(len(hits.keys), allowed.count),
        )

    def _by_words(self, search: Search) -> Ranked:
        assert search.words is not None
        allowed = self.allowed(search.filter)
        if search.filter_mode == "post" and allowed.masks is not None:
            hits = self.view.search_words(search.words, search.fetch)
            kept = np.isin(hits.keys, self.view.keys(allowed.masks), assume_unique=True)
            return self._kept(hits, kept, allowed)
        hits = self.view.search_words(search.words, search.fetch, allowed=allowed.masks)
        ranked = self._ranked(hits, allowed)
        return replace(ranked, plan=ranked.plan.replace(_SCAN, _WORDS))

    def _by_both(self, search: Search) -> Ranked:
        """Reciprocal rank fusion (Cormack, Clarke and Buettcher, 2009) of both rankings."""
        depth = max(search.fetch, _FUSED_RANKS)
        assert search.vector is not None
        deeper = replace(search, fetch=depth)
        [by_vector] = self._by_vectors([deeper], search.vector[np.newaxis])
        by_words = self._by_words(deeper)
        sides = ((by_vector, search.hybrid.vector_weight), (by_words, search.hybrid.lexical_weight))
        scores: defaultdict[int, float] = defaultdict(float)
        for side, weight in sides:
            for rank, key in enumerate(side.keys, 1):
                scores[key] += weight / (search.hybrid.rrf_k + rank)
        ranks = [{key: rank for rank, key in enumerate(side.keys, 1)} for side, _ in sides]
        keys = sorted(scores, key=lambda key: (-scores[key], key))[: search.fetch]
        return Ranked(
            keys,
            [scores[key] for key in keys],
            exact=False,
            scanned=by_vector.scanned + by_words.scanned,
            kinds=by_vector.kinds | by_words.kinds,
            plan=f"{by_vector.plan}; {by_words.plan}; fused by rank",
            incomplete=by_vector.incomplete or by_words.incomplete,
            ranks={key: (ranks[0].get(key), ranks[1].get(key)) for key in keys},
        )
