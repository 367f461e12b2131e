"""Boosts: what a query adds to the scores of its best candidates, by filters and by the decay of a field's value."""

from collections.abc import Sequence

import numpy as np

from apps.engine.metadata.paths import TIMES
from apps.engine.vectors import Float64
from apps.search.backend import OpenLibrary
from apps.search.query.budget import PER_BOOSTED_HIT
from apps.search.query.lookup import ChunkLookup
from apps.search.query.search import RankedHits
from apps.search.query.spec import Boost, Instant


def add_boosts(library: OpenLibrary, hits: RankedHits, boosts: Sequence[Boost], most: int | None = None) -> RankedHits:
    """The first `most` hits (None: all) in order of their scores with all boosts: each adds its weight times a value
    from 0 to 1.

    A search has just emptied the processor's cache, so that each function of numpy costs some ten microseconds here,
    whatever it does with a few hundred numbers: they are as few as can be.
    """
    library.budget.spend(PER_BOOSTED_HIT * len(boosts) * len(hits.keys))
    keys = np.asarray(hits.keys, np.int64)
    candidates = library.searcher.lookup(keys)
    scores = np.array(hits.scores, np.float64)
    warnings = []
    # A distance that is too great for a float64 is infinite.
    with np.errstate(over="ignore"):
        for boost in boosts:
            if not boost.field:
                np.add(scores, boost.weight, out=scores, where=candidates.matches(boost.filter))
                continue
            values = _decay(candidates, boost)
            if len(keys) and values[0] == 0.0 and not np.count_nonzero(values):
                warnings.append(_explain_no_effect(boost))
            values *= boost.weight
            scores += values
    order = np.lexsort((keys, -scores))[:most]
    places, best = order.tolist(), keys[order].tolist()
    return hits._replace(
        keys=best,
        scores=scores[order].tolist(),
        exact=False,
        plan=f"{hits.plan}, then boost ({'1 candidate' if len(keys) == 1 else f'{len(keys)} candidates'})",
        base_scores={key: float(hits.scores[place]) for key, place in zip(best, places, strict=True)},
        warning=" ".join(warnings),
    )


def _decay(candidates: ChunkLookup, boost: Boost) -> Float64:
    """float64 [n]: 2^(-distance / half-life) of each candidate; 0 where there is no value to measure from."""
    assert boost.decay is not None
    origin = boost.decay.origin
    if isinstance(origin, Instant):
        values = candidates.times(boost.field)
        values -= origin.seconds
    else:
        values = candidates.numbers(boost.field)
        values -= origin
    np.abs(values, out=values)
    values /= -boost.decay.half_life
    # Where there is no value, the distance is infinite.
    return np.exp2(values, out=values)


def _explain_no_effect(boost: Boost) -> str:
    """What a client is told whose decay is 0 for all candidates."""
    assert boost.decay is not None
    if boost.field in TIMES:
        return f"No candidate has a time at {boost.field} that is near enough to count."
    if isinstance(boost.decay.origin, Instant):
        return f"No candidate has a time at {boost.field} that is near enough to count; numbers need an origin."
    return f"No candidate has a number at {boost.field} that is near enough to count; times need a time as origin."
