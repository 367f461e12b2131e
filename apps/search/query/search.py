"""Search: filter -> allowed rows -> search by vector, by words, or by both -> ranked hits.

Each distinct filter of a request is evaluated once, and searches that share their options are one call of the engine.
The result says how it was found, and whether it provably is the best there is.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import chain
from typing import Any, NamedTuple, Self

import numpy as np

from apps.engine.indexes.base import Params
from apps.engine.indexes.registry import BARE, BRUTE_FORCE
from apps.engine.metadata.facets import ValuePage
from apps.engine.metadata.filters import Filter
from apps.engine.metadata.ordering import OrderBy, OrderedRow
from apps.engine.metadata.summaries import FieldSummary, combine, most_rows
from apps.engine.metadata.values import Scalar
from apps.engine.storage.view import Hits, View
from apps.engine.text.analyzer import TextQuery
from apps.engine.vectors import Float32, Int64, Mask
from apps.libraries.profile import stage
from apps.search.query.budget import (
    PER_FETCHED_HIT,
    PER_FUSED_HIT,
    PER_VALUE,
    RequestBudget,
    price_of_fields,
    price_of_filters,
    price_of_order,
    price_of_reading,
    price_of_values,
    price_of_words,
)
from apps.search.query.lookup import ChunkLookup
from apps.search.query.spec import EVERYTHING, Hybrid, Mode
from apps.search.query.texts import decide_texts
from apps.search.snapshots import Snapshot
from apps.search.unindexed import Paths, check_field, check_filter

# The ranks of either side whose scores are added up.
FUSED_RANKS = 100
# A ranking by an approximate index is continued in searches that are deeper by this factor.
_STEP = 4
_SCAN = "exact scan"
# What has no index that may miss a row.
_SCANNED = frozenset([BRUTE_FORCE, BARE])
# Of components, by searches that are made together: some second of a core.
_PRODUCTS_AT_ONCE = 25_000_000_000
_WORDS = "words"


class SearchRequest(NamedTuple):
    """The chunks of ranks `offset` to `fetch` by `vector`, by `words` or by both, under a filter.

    `left_out` is the key of a chunk that is no hit. `within` is another filter, whose rows are not kept for the next
    request.

    An approximate index finds other rows when it is asked for more of them. So the ranking begins with what a search
    for `first` finds (None: a page, `fetch` - `offset`), and deeper searches continue it, whatever the `offset`.
    In mode `vector` the first `sure` ranks are found as surely as by a search for that many (None: all).
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
    within: Filter = EVERYTHING
    offset: int = 0
    first: int | None = None
    sure: int | None = None


class RankedHits(NamedTuple):
    """Hits of one search, best first. `kinds` are the types of index that were searched, `plan` says what was done.
    Keys and scores are arrays where the request says how `sure` it wants its ranks: who does goes on with arrays.

    With `incomplete`, rows that match the filter may be missing though fewer than `fetch` were found. For hybrid
    searches, `ranks` holds the ranks by vector and by words of each key, from 1, or None. With boosts, `base_scores`
    holds the score of each key without them; with groups by a field, `groups` holds its value of each key. `warning`
    says what the query probably did not mean.
    """

    keys: Sequence[int] | Int64
    scores: Sequence[float] | Float32
    exact: bool
    scanned: int
    kinds: frozenset[str]
    plan: str
    incomplete: bool = False
    ranks: Mapping[int, tuple[int | None, int | None]] = {}
    base_scores: Mapping[int, float] | None = None
    groups: Mapping[int, Scalar] | None = None
    warning: str = ""

    def take(self, places: Sequence[int]) -> "RankedHits":
        """The hits at `places`."""
        keys, scores = self.keys, self.scores
        return self._replace(keys=[keys[place] for place in places], scores=[scores[place] for place in places])


class Facets(NamedTuple):
    """Values of a field with their counts, the number of values that these are a page of, and of chunks matched."""

    counts: list[tuple[Scalar, int]]
    distinct: int
    chunks: int


class Fields(NamedTuple):
    """Summaries of fields by their names, and the number of further fields."""

    summaries: dict[str, FieldSummary]
    omitted: int


_NO_VECTORS = RankedHits([], [], exact=True, scanned=0, kinds=frozenset(), plan="no vectors yet")
# A side of a fusion that counts nothing.
_NOT_ASKED = _NO_VECTORS._replace(plan="")


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
    """The embedded engine's answers from one view. They are paid from the budget of a request before work begins: a
    method raises Invalid where it is too small. `snapshot` has the view's texts, which conditions on them need. No
    condition may look at what is `unindexed`."""

    def __init__(
        self,
        view: View,
        budget: RequestBudget | None = None,
        snapshot: Snapshot | None = None,
        unindexed: Paths = (),
        *,
        is_restricted: bool = False,
    ) -> None:
        self._view = view
        self._is_restricted = is_restricted
        self._budget = budget or RequestBudget()
        self._snapshot, self._unindexed = snapshot, unindexed
        self._allowed: dict[Filter, _Allowed] = {}

    def restrict(self, filter: Filter) -> "Searcher":
        """A searcher of the rows that match. Nothing that it answers or takes from the budget depends on others. So
        `filter` is paid apart: whoever asks can find out what is left."""
        budget = self._budget.apart()
        budget.spend(price_of_filters([filter], len(self._view)))
        whole = Searcher(self._view, budget, self._snapshot, self._unindexed)
        view = self._view.within(whole._matching(self._view, filter))
        return Searcher(view, self._budget, self._snapshot, self._unindexed, is_restricted=True)

    def has(self, key: int) -> bool:
        """Whether there is a chunk of this key."""
        return self._view.has(key)

    def search(self, requests: Sequence[SearchRequest]) -> list[RankedHits]:
        """The hits of each request, in the order of `requests`. Raises TooSlow."""
        view = self._view
        self._pay(view, requests)
        if len(requests) == 1 and requests[0].mode == "vector":
            return [self._select(view, self._search_vectors(view, requests)[0], requests[0])]
        hits: list[RankedHits] = [_NO_VECTORS] * len(requests)
        groups: defaultdict[tuple[Any, ...], list[int]] = defaultdict(list)
        for i, request in enumerate(requests):
            if request.mode == "vector":
                depths = _depth(request), request.offset, request.first, request.sure
                options = request.filter, request.filter_mode, request.exact, request.within
                groups[*depths, *options, *sorted(request.params.items())].append(i)
            else:
                self._budget.check_time()
                search = self._search_words if request.mode == "lexical" else self._search_both
                hits[i] = self._select(view, search(view, request), request)
        for members in chain.from_iterable(map(self._slices, groups.values())):
            self._budget.check_time()
            for i, found in zip(members, self._search_vectors(view, [requests[i] for i in members]), strict=True):
                hits[i] = self._select(view, found, requests[i])
        return hits

    def _slices(self, members: Sequence[int]) -> Iterator[Sequence[int]]:
        """Slices of searches that are made together, so that the clock is looked at between them."""
        size = max(1, _PRODUCTS_AT_ONCE // max(1, len(self._view) * (self._view.dimension or 0)))
        return (members[start : start + size] for start in range(0, len(members), size))

    def match(self, filter: Filter) -> Int64:
        """The keys of the chunks that match, ascending."""
        self._budget.spend(price_of_filters([filter], len(self._view)))
        return self._view.keys(self._matching(self._view, filter))

    def count(self, filter: Filter) -> int:
        """The number of chunks that match."""
        if filter.is_everything:
            return len(self._view)
        self._budget.spend(price_of_filters([filter], len(self._view)))
        return self._allow(self._view, filter).rows

    def lookup(self, keys: Sequence[int] | Int64) -> ChunkLookup:
        """What the chunks `keys` have and match."""
        view, chunks = self._view, np.asarray(keys, np.int64)

        def decide(filter: Filter) -> Filter:
            self._budget.spend(price_of_filters([filter], len(view)))
            return self._decide(view, filter, among=chunks)

        return ChunkLookup(view.lookup(chunks), decide)

    def facets(self, field: str, filter: Filter, page: ValuePage) -> Facets:
        """A page of the values of a field among the chunks that match."""
        check_field(self._unindexed, field, "/field")
        self._budget.spend(price_of_filters([filter], len(self._view)) + price_of_values(page, len(self._view)))
        masks = self._matching(self._view, filter)
        counts, distinct = self._view.facets(field, masks, page)
        return Facets(counts, distinct, _Allowed.of(masks).rows)

    def fields(self, names: Sequence[str] | None, filter: Filter, limit: int) -> Fields:
        """What values the chunks that match have in the fields `names`, or in the `limit` fields of metadata that most
        of them have."""
        view = self._view
        for i, name in enumerate(names or ()):
            check_field(self._unindexed, name, f"/fields/{i}")
        self._budget.spend(price_of_filters([filter], len(view)))
        masks, columns, omitted = self._matching(view, filter), None, 0
        if names is None:
            self._budget.spend(price_of_reading(*view.unread()))
            columns = view.columns(masks)
            self._budget.spend(PER_VALUE * sum(block.field_count for block, _ in columns))
            names, found = most_rows(chain.from_iterable(block.row_counts(mask) for block, mask in columns), limit)
            omitted = found - len(names)
        self._budget.spend(price_of_fields(len(names), len(view)))
        summaries = {}
        for name in names:
            self._budget.check_time()
            blocks = view.columns(masks, name) if columns is None else columns
            summaries[name] = combine([block.summary(name, mask) for block, mask in blocks])
        return Fields(summaries, omitted)

    def ordered(
        self, order: Sequence[OrderBy], filter: Filter, after: OrderedRow | None, limit: int
    ) -> list[OrderedRow]:
        """The first `limit` chunks behind `after` that match, in `order`."""
        view = self._view
        for i, by in enumerate(order):
            check_field(self._unindexed, by.field, f"/order_by/{i}/field")
        self._budget.spend(price_of_filters([filter], len(view)) + price_of_order(len(order), len(view)))
        return view.ordered(order, self._matching(view, filter), after, limit)

    def _matching(self, view: View, filter: Filter) -> list[Mask]:
        """Of each part, the live rows that match."""
        filter = self._decide(view, filter)
        with stage("filter"):
            return view.matching(filter)

    def _decide(self, view: View, filter: Filter, among: Int64 | None = None) -> Filter:
        """A filter that matches the same of the chunks `among` (None: all), and has no condition on texts."""
        check_filter(self._unindexed, filter)
        self._budget.check_time()
        if self._snapshot is None:
            return filter
        with stage("filter"):
            return decide_texts(view, filter, self._snapshot, self._budget, among)

    def _pay(self, view: View, requests: Sequence[SearchRequest]) -> None:
        rows = len(view)
        filters = {request.filter for request in requests if not request.filter.is_everything}.difference(self._allowed)
        filters |= {request.within for request in requests if request.within is not EVERYTHING}
        points = price_of_filters(filters, rows) if filters else 0
        for request in requests:
            per_hit = PER_FUSED_HIT if request.mode == "hybrid" else PER_FETCHED_HIT
            points += per_hit * min(request.fetch, rows) + price_of_words(request.words, rows)
        self._budget.spend(points)

    def _allow(self, view: View, filter: Filter, within: Filter = EVERYTHING) -> _Allowed:
        """The rows that match both filters."""
        if within is not EVERYTHING:
            # Not kept: there may be as many of these filters as rows.
            masks, outer = self._matching(view, within), self._allow(view, filter).masks
            if outer is not None:
                masks = [mask & other for mask, other in zip(masks, outer, strict=True)]
            return _Allowed.of(masks)
        if filter.is_everything:
            return _ALL
        allowed = self._allowed.get(filter)
        if allowed is None:
            allowed = self._allowed[filter] = _Allowed.of(self._matching(view, filter))
        return allowed

    def _search_vectors(self, view: View, requests: Sequence[SearchRequest]) -> list[RankedHits]:
        """Searches that share all options but their vector and the chunk that they leave out."""
        request = requests[0]
        if not view.dimension:
            return [_NO_VECTORS] * len(requests)
        assert request.vector is not None
        vectors = np.array([one.vector for one in requests]) if len(requests) > 1 else request.vector[np.newaxis]
        allowed = self._allow_before(view, request)
        exact = request.exact or (request.filter_mode == "pre" and allowed.masks is not None)
        first, *deeper = _depths(view, request, exact)
        # How many rows an index compares depends on those that are not permitted too.
        is_paid_before = self._is_restricted or _is_scan(view, exact)
        if is_paid_before:
            self._budget.scan(len(requests) * (len(view) if allowed.masks is None else allowed.rows))
        params, sure = request.params, request.sure
        hits = view.search(vectors, first, exact=exact, params=params, allowed=allowed.masks, sure=sure)
        for depth in deeper:
            self._budget.check_time()
            more = view.search(vectors, depth, exact=exact, params=params, allowed=allowed.masks, sure=sure)
            hits = [_continue(one, other, depth) for one, other in zip(hits, more, strict=True)]
        if not is_paid_before:
            self._budget.scan(sum(one.compared for one in hits))
        return [_rank(one, allowed, view, as_arrays=sure is not None) for one in hits]

    def _search_words(self, view: View, request: SearchRequest) -> RankedHits:
        assert request.words is not None
        allowed = self._allow_before(view, request)
        ranked = _rank(view.search_text(request.words, _depth(request), allowed=allowed.masks), allowed, view)
        return ranked._replace(plan=ranked.plan.replace(_SCAN, _WORDS))

    def _search_both(self, view: View, request: SearchRequest) -> RankedHits:
        """Reciprocal rank fusion (Cormack, Clarke and Buettcher, 2009) of the first ranks of both rankings; of one, if
        the other's weight is 0.

        Chunks further down in both follow by their better rank, with the smaller weight: that scores less than any
        before, and is the same however many are asked for.
        """
        depth = max(_depth(request), FUSED_RANKS)
        deeper = request._replace(fetch=depth, offset=0, first=FUSED_RANKS, sure=None, left_out=None)
        weights, constant = (request.hybrid.vector_weight, request.hybrid.lexical_weight), request.hybrid.rrf_k
        sides = (
            self._search_vectors(view, [deeper])[0] if weights[0] else _NOT_ASKED,
            self._search_words(view, deeper) if weights[1] else _NOT_ASKED,
        )
        scores: defaultdict[int, float] = defaultdict(float)
        for side, weight in zip(sides, weights, strict=True):
            for rank, key in enumerate(side.keys[:FUSED_RANKS], 1):
                scores[key] += weight / (constant + rank)
        ranks = [{key: rank for rank, key in enumerate(side.keys[:FUSED_RANKS], 1)} for side in sides]
        least = min(filter(None, weights), default=0.0)
        for rank in range(FUSED_RANKS + 1, depth + 1):
            for side, ranks_of_side in zip(sides, ranks, strict=True):
                if rank <= len(side.keys) and (key := side.keys[rank - 1]) not in scores:
                    scores[key], ranks_of_side[key] = least / (constant + rank), rank
        keys = sorted(scores, key=lambda key: (-scores[key], key))[: _depth(request)]
        return RankedHits(
            keys,
            [scores[key] for key in keys],
            exact=False,
            scanned=sum(side.scanned for side in sides),
            kinds=sides[0].kinds | sides[1].kinds,
            plan="; ".join([*(side.plan for side in sides if side.plan), "fused by rank"]),
            ranks={key: (ranks[0].get(key), ranks[1].get(key)) for key in keys},
        )

    def _allow_before(self, view: View, request: SearchRequest) -> _Allowed:
        """The rows among which is searched: all, where the filter is applied after the search."""
        return _ALL if request.filter_mode == "post" else self._allow(view, request.filter, request.within)

    def _select(self, view: View, ranked: RankedHits, request: SearchRequest) -> RankedHits:
        """The hits that the request asks for, of the ranking from its beginning."""
        if request.left_out is not None:
            ranked = ranked.take([place for place, key in enumerate(ranked.keys) if key != request.left_out])
        if request.offset or len(ranked.keys) > request.fetch:
            places: Sequence[int] = range(request.offset, min(request.fetch, len(ranked.keys)))
            if request.offset:
                # What a deeper search found may score more than the last of the search before.
                places = sorted(places, key=lambda place: (-ranked.scores[place], ranked.keys[place]))
            ranked = ranked.take(places)
        if request.filter_mode == "post":
            allowed = self._allow(view, request.filter)
            if allowed.masks is not None:
                masks = view.with_vectors(allowed.masks) if request.mode == "vector" else allowed.masks
                return _keep(ranked, view.keys(masks), _Allowed.of(masks))
        return ranked


def _depth(request: SearchRequest) -> int:
    """How many hits are searched for: one more where the chunk that is left out may be among them."""
    return request.fetch + (request.left_out is not None)


def _is_scan(view: View, exact: bool) -> bool:
    """Whether all rows are compared that a search may find."""
    return exact or view.kinds <= _SCANNED


def _depths(view: View, request: SearchRequest, exact: bool) -> list[int]:
    """The depths of the searches that make a ranking by vector, ascending."""
    depth, extra = _depth(request), request.left_out is not None
    if _is_scan(view, exact):
        return [depth]
    depths = [(request.first or request.fetch - request.offset) + extra]
    while depths[-1] < depth:
        depths.append(_STEP * depths[-1])
    return depths


def _continue(hits: Hits, deeper: Hits, depth: int) -> Hits:
    """The hits, and behind them those that only a deeper search found; at most `depth`."""
    is_new = np.isin(deeper.keys, hits.keys, invert=True)
    return Hits(
        np.concatenate([hits.keys, deeper.keys[is_new]])[:depth],
        np.concatenate([hits.scores, deeper.scores[is_new]])[:depth],
        compared=hits.compared + deeper.compared,
        exact=hits.exact and deeper.exact,
        kinds=hits.kinds | deeper.kinds,
    )


def _rank(hits: Hits, allowed: _Allowed, view: View, *, as_arrays: bool = False) -> RankedHits:
    keys, scores = (hits.keys, hits.scores) if as_arrays else (hits.keys.tolist(), hits.scores.tolist())
    plan = _plan_of(hits.kinds)
    if allowed.masks is not None:
        plan = f"filter ({allowed.rows:,} of {len(view):,} rows), then {plan}"
    return RankedHits(keys, scores, hits.exact, hits.compared, hits.kinds, plan)


def _keep(ranked: RankedHits, keys: Int64, allowed: _Allowed) -> RankedHits:
    """The hits among `keys`, those of all `allowed` rows: a filter applied to hits of a search without it."""
    places = np.flatnonzero(np.isin(np.array(ranked.keys, np.int64), keys, assume_unique=True)).tolist()
    found, enough = len(ranked.keys), min(len(ranked.keys), allowed.rows)
    return ranked.take(places)._replace(
        exact=ranked.exact and len(places) == enough,
        plan=f"{ranked.plan}, then filter ({len(places)} of {found} hits)",
        incomplete=len(places) < enough,
    )
