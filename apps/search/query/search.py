"""Search: filter -> allowed rows -> search by vector, by words, or by both -> ranked hits.

Each distinct filter of a request is evaluated once, and searches that share their options are one call of the engine.
The result says how it was found, and whether it provably is the best there is.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple, Self

import numpy as np

from apps.engine.indexes.base import Params
from apps.engine.indexes.registry import BRUTE_FORCE
from apps.engine.metadata.filters import Filter, parse_filter
from apps.engine.metadata.values import Scalar
from apps.engine.storage.view import Hits, View
from apps.engine.text.analyzer import TextQuery
from apps.engine.vectors import Float32, Int64, Mask
from apps.search.query.spec import Hybrid, Mode

# The least number of ranks of either side that are fused.
_FUSED_RANKS = 100
_SCAN = "exact scan"
_WORDS = "words"


class SearchRequest(NamedTuple):
    """The `fetch` best chunks by `vector`, by `words` or by both, under a filter.

    `left_out` is the key of a chunk that is no hit. `document` is the id of the only document whose chunks are hits;
    its chunks are scanned.
    """

    fetch: int
    mode: Mode
    vector: Float32 | None
    words: TextQuery | None
    filter: Filter
    filter_mode: str
    exact: bool
    params: Params
    hybrid: Hybrid
    left_out: int | None = None
    document: str | None = None


class RankedHits(NamedTuple):
    """Hits of one search, best first. `kinds` are the types of index that were searched, `plan` says what was done.

    With `incomplete`, rows that match the filter may be missing though fewer than `fetch` were found. For hybrid
    searches, `ranks` holds the ranks by vector and by words of each key, from 1, or None.
    """

    keys: list[int]
    scores: list[float]
    exact: bool
    scanned: int
    kinds: frozenset[str]
    plan: str
    incomplete: bool = False
    ranks: Mapping[int, tuple[int | None, int | None]] = {}

    def take(self, places: Sequence[int]) -> "RankedHits":
        """The hits at `places`."""
        keys, scores = self.keys, self.scores
        return self._replace(keys=[keys[place] for place in places], scores=[scores[place] for place in places])


class Facets(NamedTuple):
    """The most frequent values of a field with their counts, the number of distinct values, and of chunks matched."""

    counts: list[tuple[Scalar, int]]
    distinct: int
    chunks: int


_NO_VECTORS = RankedHits([], [], exact=True, scanned=0, kinds=frozenset(), plan="no vectors yet")


class _Allowed(NamedTuple):
    """The rows that match a filter, by part of the view, and their number; `masks` is None for all, not counted."""

    masks: list[Mask] | None
    rows: int

    @classmethod
    def of(cls, masks: list[Mask]) -> Self:
        return cls(masks, sum(int(np.count_nonzero(mask)) for mask in masks))


_ALL = _Allowed(None, 0)


@lru_cache(maxsize=64)
def _plan_of(kinds: frozenset[str]) -> str:
    """What a plan says of the types of index that were searched."""
    others = sorted(kinds - {BRUTE_FORCE})
    return " + ".join([*others, _SCAN] if BRUTE_FORCE in kinds or not others else others)


class Searcher:
    """The embedded engine's answers from one view; None is the view of a library that has no vectors yet."""

    def __init__(self, view: View | None) -> None:
        self._view = view
        self._allowed: dict[Filter, _Allowed] = {}

    def search(self, requests: Sequence[SearchRequest]) -> list[RankedHits]:
        """The hits of each request, in the order of `requests`."""
        view = self._view
        if view is None:
            return [_NO_VECTORS] * len(requests)
        if len(requests) == 1 and requests[0].mode == "vector":
            return self._search_vectors(view, requests)
        hits: list[RankedHits] = [_NO_VECTORS] * len(requests)
        groups: defaultdict[tuple[Any, ...], list[int]] = defaultdict(list)
        for i, request in enumerate(requests):
            if request.mode == "vector":
                options = _depth(request), request.filter, request.filter_mode, request.exact, request.document
                groups[*options, *sorted(request.params.items())].append(i)
            elif request.mode == "lexical":
                hits[i] = _leave_out(self._search_words(view, request), request)
            else:
                hits[i] = _leave_out(self._search_both(view, request), request)
        for members in groups.values():
            for i, found in zip(members, self._search_vectors(view, [requests[i] for i in members]), strict=True):
                hits[i] = found
        return hits

    def match(self, filter: Filter) -> Int64:
        """The keys of the chunks that match, ascending."""
        return np.empty(0, np.int64) if self._view is None else self._view.keys(self._view.matching(filter))

    def count(self, filter: Filter) -> int:
        """The number of chunks that match."""
        if self._view is None:
            return 0
        return len(self._view) if filter.is_everything else self._allow(self._view, filter).rows

    def facets(self, field: str, filter: Filter, limit: int) -> Facets:
        """The `limit` most frequent values of a field among the chunks that match."""
        if self._view is None:
            return Facets([], 0, 0)
        masks = self._view.matching(filter)
        counts, distinct = self._view.facets(field, masks, limit)
        return Facets(counts, distinct, _Allowed.of(masks).rows)

    def _allow(self, view: View, filter: Filter, document: str | None = None) -> _Allowed:
        """The rows that match, those of one document if it is named."""
        if document is not None:
            # Not kept: there may be as many documents as rows.
            masks, outer = view.matching(parse_filter({"@document_id": document})), self._allow(view, filter).masks
            if outer is not None:
                masks = [mask & other for mask, other in zip(masks, outer, strict=True)]
            return _Allowed.of(masks)
        if filter.is_everything:
            return _ALL
        allowed = self._allowed.get(filter)
        if allowed is None:
            allowed = self._allowed[filter] = _Allowed.of(view.matching(filter))
        return allowed

    def _search_vectors(self, view: View, requests: Sequence[SearchRequest]) -> list[RankedHits]:
        """Searches that share all options but their vector and the chunk that they leave out."""
        request = requests[0]
        assert request.vector is not None
        vectors = np.array([one.vector for one in requests]) if len(requests) > 1 else request.vector[np.newaxis]
        fetch, allowed = _depth(request), self._allow(view, request.filter, request.document)
        if request.filter_mode == "post" and allowed.masks is not None:
            hits = view.search(vectors, fetch, exact=request.exact, params=request.params)
            keys = view.keys(allowed.masks)
            ranked = [_keep(one, keys, allowed) for one in hits]
        else:
            exact = request.exact or (request.filter_mode == "pre" and allowed.masks is not None)
            hits = view.search(vectors, fetch, exact=exact, params=request.params, allowed=allowed.masks)
            ranked = [_rank(one, allowed, view) for one in hits]
        return [_leave_out(found, one) for found, one in zip(ranked, requests, strict=True)]

    def _search_words(self, view: View, request: SearchRequest) -> RankedHits:
        assert request.words is not None
        fetch, allowed = _depth(request), self._allow(view, request.filter, request.document)
        if request.filter_mode == "post" and allowed.masks is not None:
            return _keep(view.search_text(request.words, fetch), view.keys(allowed.masks), allowed)
        hits = view.search_text(request.words, fetch, allowed=allowed.masks)
        ranked = _rank(hits, allowed, view)
        return ranked._replace(plan=ranked.plan.replace(_SCAN, _WORDS))

    def _search_both(self, view: View, request: SearchRequest) -> RankedHits:
        """Reciprocal rank fusion (Cormack, Clarke and Buettcher, 2009) of both rankings."""
        deeper = request._replace(fetch=max(_depth(request), _FUSED_RANKS), left_out=None)
        [by_vector] = self._search_vectors(view, [deeper])
        by_words = self._search_words(view, deeper)
        sides = ((by_vector, request.hybrid.vector_weight), (by_words, request.hybrid.lexical_weight))
        scores: defaultdict[int, float] = defaultdict(float)
        for side, weight in sides:
            for rank, key in enumerate(side.keys, 1):
                scores[key] += weight / (request.hybrid.rrf_k + rank)
        ranks = [{key: rank for rank, key in enumerate(side.keys, 1)} for side, _ in sides]
        keys = sorted(scores, key=lambda key: (-scores[key], key))[: _depth(request)]
        return RankedHits(
            keys,
            [scores[key] for key in keys],
            exact=False,
            scanned=by_vector.scanned + by_words.scanned,
            kinds=by_vector.kinds | by_words.kinds,
            plan=f"{by_vector.plan}; {by_words.plan}; fused by rank",
            incomplete=by_vector.incomplete or by_words.incomplete,
            ranks={key: (ranks[0].get(key), ranks[1].get(key)) for key in keys},
        )


def _depth(request: SearchRequest) -> int:
    """How many hits are searched for: one more where the chunk that is left out may be among them."""
    return request.fetch + (request.left_out is not None)


def _leave_out(ranked: RankedHits, request: SearchRequest) -> RankedHits:
    """The `fetch` best hits without the chunk that the request leaves out."""
    if request.left_out is None:
        return ranked
    places = [place for place, key in enumerate(ranked.keys) if key != request.left_out]
    return ranked.take(places[: request.fetch])


def _rank(hits: Hits, allowed: _Allowed, view: View) -> RankedHits:
    plan = _plan_of(hits.kinds)
    if allowed.masks is not None:
        plan = f"filter ({allowed.rows:,} of {len(view):,} rows), then {plan}"
    return RankedHits(hits.keys.tolist(), hits.scores.tolist(), hits.exact, hits.compared, hits.kinds, plan)


def _keep(hits: Hits, keys: Int64, allowed: _Allowed) -> RankedHits:
    """The hits among `keys`, those of all `allowed` rows: a filter applied to hits of a search without it."""
    kept = np.isin(hits.keys, keys, assume_unique=True)
    count = int(np.count_nonzero(kept))
    return RankedHits(
        hits.keys[kept].tolist(),
        hits.scores[kept].tolist(),
        exact=hits.exact and count == min(len(hits.keys), allowed.rows),
        scanned=hits.compared,
        kinds=hits.kinds,
        plan=f"{_plan_of(hits.kinds)}, then filter ({count} of {len(hits.keys)} hits)",
        incomplete=count < min(len(hits.keys), allowed.rows),
    )
