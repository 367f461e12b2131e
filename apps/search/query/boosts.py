"""Boosts: what a query adds to the scores of its best candidates, by filters and by the decay of a field's value."""

from collections.abc import Sequence

import numpy as np

from apps.engine.vectors import Float64
from apps.search.backend import OpenLibrary
from apps.search.query.budget import PER_BOOSTED_HIT
from apps.search.query.lookup import ChunkLookup
from apps.search.query.search import RankedHits
from apps.search.query.spec import Boost, Instant


def add_boosts(library: OpenLibrary, hits: RankedHits, boosts: Sequence[Boost]) -> RankedHits:
    """The hits in order of their scores with all boosts: each adds its weight times a value from 0 to 1."""
    library.budget.spend(PER_BOOSTED_HIT * len(boosts) * len(hits.keys))
    keys = np.array(hits.keys, np.int64)
    candidates = library.searcher.lookup(keys)
    scores = np.array(hits.scores, np.float64)
    warnings = []
    for boost in boosts:
        values = _decay(candidates, boost) if boost.field else candidates.matches(boost.filter)
        scores += boost.weight * values
        if boost.field and hits.keys and not values.any():
            warnings.append(_explain_no_effect(boost))
    order = np.lexsort((keys, -scores))
    return hits._replace(
        keys=keys[order].tolist(),
        scores=scores[order].tolist(),
        exact=False,
        plan=f"{hits.plan}, then boost ({len(hits.keys)} candidates)",
        base_scores=dict(zip(hits.keys, hits.scores, strict=True)),
        warning=" ".join(warnings),
    )


def _decay(candidates: ChunkLookup, boost: Boost) -> Float64:
    """float64 [n]: 2^(-distance / half-life) of each candidate; 0 where there is no value to measure from."""
    assert boost.decay is not None
    origin = boost.decay.origin
    if isinstance(origin, Instant):
        distances = np.abs(candidates.times(boost.field) - origin.seconds)
    else:
        distances = np.abs(candidates.numbers(boost.field) - origin)
    with np.errstate(over="ignore"):
        decay: Float64 = np.exp2(-distances / boost.decay.half_life)
    decay[np.isnan(decay)] = 0
    return decay


def _explain_no_effect(boost: Boost) -> str:
    """What a client is told whose decay is 0 for all candidates."""
    assert boost.decay is not None
    if isinstance(boost.decay.origin, Instant):
        return f"No candidate has a time at {boost.field} that is near enough to count; numbers need an origin."
    return f"No candidate has a number at {boost.field} that is near enough to count; times need a time as origin."
