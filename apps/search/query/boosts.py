"""Boosts: what a query adds to the scores of its best candidates, by filters and by the decay of a field's value."""

from collections.abc import Sequence

import numpy as np

from apps.engine.metadata.paths import TIMES, instants_of
from apps.engine.metadata.values import numbers_of
from apps.engine.vectors import Float64, Int64
from apps.search.backend import OpenLibrary
from apps.search.query.budget import PER_BOOSTED_HIT
from apps.search.query.search import RankedHits
from apps.search.query.spec import Boost, Instant


def add_boosts(library: OpenLibrary, hits: RankedHits, boosts: Sequence[Boost]) -> RankedHits:
    """The hits in order of their scores with all boosts: each adds its weight times a value from 0 to 1."""
    library.budget.spend(PER_BOOSTED_HIT * len(boosts) * len(hits.keys))
    keys = np.array(hits.keys, np.int64)
    scores = np.array(hits.scores, np.float64)
    warnings = []
    for boost in boosts:
        values = _decay(library, boost, keys) if boost.field else library.searcher.matches(boost.filter, keys)
        scores += boost.weight * values
        if boost.field and len(keys) and not values.any():
            warnings.append(_explain_no_effect(boost))
    order = np.lexsort((keys, -scores))
    return hits._replace(
        keys=keys[order].tolist(),
        scores=scores[order].tolist(),
        exact=False,
        plan=f"{hits.plan}, then boost ({len(keys)} candidates)",
        base_scores=dict(zip(hits.keys, hits.scores, strict=True)),
        warning=" ".join(warnings),
    )


def _decay(library: OpenLibrary, boost: Boost, keys: Int64) -> Float64:
    """float64 [n]: 2^(-distance / half-life) of the chunks `keys` [n]; 0 where there is no value to measure from."""
    assert boost.decay is not None
    origin = boost.decay.origin
    is_of_dates = isinstance(origin, Instant) and boost.field not in TIMES
    field = instants_of(boost.field) if is_of_dates else boost.field
    values = numbers_of(library.searcher.values_at(field, keys))
    if is_of_dates:
        values /= 1000  # instants are in nanoseconds
    if isinstance(origin, Instant):
        distances = np.abs(values - origin.microseconds) / 1e6
    else:
        distances = np.abs(values - origin)
    with np.errstate(over="ignore"):
        decay: Float64 = np.exp2(-distances / boost.decay.half_life)
    return np.nan_to_num(decay, nan=0.0)


def _explain_no_effect(boost: Boost) -> str:
    """What a client is told whose decay is 0 for all candidates."""
    assert boost.decay is not None
    if isinstance(boost.decay.origin, Instant):
        return f"No candidate has a time at {boost.field} that is near enough to count; numbers need an origin."
    return f"No candidate has a number at {boost.field} that is near enough to count; times need a time as origin."
