"""Queries: plan -> search -> rerank -> rows. The hot path; two small statements and no ORM.

A query is answered whole from one snapshot: the view it searches and the rows it shows are of the same revision.
"""

import time
from collections.abc import Mapping, Sequence
from functools import partial
from math import inf
from typing import Any

from django.conf import settings

from apps.access.requests import current_principal
from apps.engine.indexes.registry import BRUTE_FORCE
from apps.engine.metrics import Metric
from apps.libraries.errors import ModelChanged
from apps.libraries.profile import record, stage
from apps.search import recall_samples
from apps.search.backend import OpenLibrary, open_library
from apps.search.query.boosts import add_boosts
from apps.search.query.budget import PER_TEXT_BYTE, RequestBudget
from apps.search.query.groups import group_hits, search_groups
from apps.search.query.plan import embed_texts, make_requests
from apps.search.query.rerank import apply_threshold, mmr, paginate
from apps.search.query.rows import hydrate
from apps.search.query.search import RankedHits, SearchRequest
from apps.search.query.shape import describe
from apps.search.query.spec import EVERYTHING, QuerySpec
from apps.search.query.tokens import limit_shown
from apps.telemetry.observation import current_observation

_EXACT_SCAN = frozenset([BRUTE_FORCE])
# How often texts are embedded for one answer, where the library's model changes meanwhile.
_ATTEMPTS = 3


def query(*, library_id: str, spec: QuerySpec) -> dict[str, Any]:
    """The answer to one query, as the API shows it. Raises NotFound (library, chunk_id), Invalid."""
    [answer] = _answer(library_id, {"": spec})
    return answer


def query_batch(*, library_id: str, specs: Sequence[QuerySpec]) -> list[dict[str, Any]]:
    """The answers to several queries, in order, all from one state of the library. Raises as `query`."""
    return _answer(library_id, {f"/queries/{i}": spec for i, spec in enumerate(specs)})


def _answer(library_id: str, specs: Mapping[str, QuerySpec]) -> list[dict[str, Any]]:
    """The answers to queries, which are named by their pointers."""
    began, budget = time.perf_counter(), RequestBudget()
    specs = limit_shown(specs)
    budget.spend(PER_TEXT_BYTE * sum(len(spec.text) for spec in specs.values()))
    some = list(specs.values())
    if (observation := current_observation.get()) is not None:
        observation.describe = partial(describe, some)
    with record(any(spec.profile for spec in some)) as profile:
        for _ in range(_ATTEMPTS):
            with stage("embed"):
                embedded = embed_texts(library_id, specs)
            with open_library(library_id, budget) as library:
                if not embedded.fits(library.state):
                    continue
                with stage("plan"):
                    requests = make_requests(library, specs, embedded.vectors)
                with stage("rerank"):
                    found = _search(library, requests, some)
                with stage("rows"):
                    results = hydrate(library, found, some)
            if observation is not None:
                observation.scanned, observation.plan = sum(hits.scanned for hits in found), found[0].plan
            took_ms = round((time.perf_counter() - began) * 1000, 3)
            stages = None if profile is None else profile.milliseconds()
            return [
                {"results": shown, "meta": _meta(library, hits, spec, took_ms, stages)}
                for shown, hits, spec in zip(results, found, some, strict=True)
            ]
    raise ModelChanged("The library's embedding model changed while the query was embedded; send it again.")


def _search(library: OpenLibrary, requests: Sequence[SearchRequest], specs: Sequence[QuerySpec]) -> list[RankedHits]:
    """The hits that each query shows. Queries that are one search each are searched together."""
    pairs = list(zip(requests, specs, strict=True))
    at_once = [request for request, spec in pairs if spec.boost or spec.group_by is None]
    with stage("search"):
        hits_at_once = library.searcher.search(at_once)
    if settings.RECALL_WATCH:
        for request, hits in zip(at_once, hits_at_once, strict=True):
            recall_samples.offer(library.state, library.snapshot, request, hits)
    searched = iter(hits_at_once)
    found = []
    for request, spec in pairs:
        library.budget.check_time()
        if spec.boost:
            most = spec.offset + spec.k if spec.group_by is None else None
            hits = add_boosts(library, next(searched), spec.boost, most)
            found.append(paginate(hits, spec) if spec.group_by is None else group_hits(library, hits, spec))
        elif spec.group_by is not None:
            found.append(search_groups(library, request, spec))
        elif spec.mmr is not None:
            assert request.vector is not None
            found.append(mmr(library, next(searched), request.vector, spec))
        else:
            found.append(apply_threshold(next(searched), spec))
    return found


def _highest_score(metric: Metric, spec: QuerySpec) -> float:
    """What no score of the query is above."""
    return _highest_base_score(metric, spec) + sum(max(boost.weight, 0.0) for boost in spec.boost)


def _highest_base_score(metric: Metric, spec: QuerySpec) -> float:
    if spec.mode == "hybrid":
        weights, first = (spec.hybrid.vector_weight, spec.hybrid.lexical_weight), spec.hybrid.rrf_k + 1
        return sum(weight / first for weight in weights)
    bounds = {Metric.COSINE: 1.0, Metric.EUCLIDEAN: 0.0}
    return bounds.get(metric, inf) if spec.mode == "vector" else inf


def _meta(
    library: OpenLibrary, hits: RankedHits, spec: QuerySpec, took_ms: float, stages: Mapping[str, float] | None
) -> dict[str, Any]:
    state, revision, scanned = library.state, library.state.position.seq, hits.scanned
    if current_principal.get().filter is not None:
        # Either would tell of rows that the search token may not see.
        revision, scanned = 0, library.searcher.count(EVERYTHING)
    meta = {
        "revision": revision,
        # Rows that are not in the index yet are scanned beside it.
        "index": ", ".join(sorted(hits.kinds - _EXACT_SCAN)) or BRUTE_FORCE,
        "exact": hits.exact,
        "plan": hits.plan,
        "scanned": scanned,
        "took_ms": took_ms,
    }
    if spec.profile:
        meta["profile"] = stages
    if spec.filter_mode == "post":
        meta["incomplete"] = hits.incomplete
    highest = _highest_score(state.metric, spec)
    if spec.score_threshold is not None and spec.score_threshold > highest:
        meta["warning"] = f"The score_threshold is {spec.score_threshold:g}, and no score is above {highest:.4}."
    elif hits.warning:
        meta["warning"] = hits.warning
    return meta
