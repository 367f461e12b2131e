"""From hits to the results that a query asks for: threshold, pages, diversity."""

from collections.abc import Sequence

import numpy as np

from apps.engine.vectors import Float32
from apps.search.backend import OpenLibrary
from apps.search.query.budget import price_of_mmr
from apps.search.query.rows import read_vectors
from apps.search.query.search import RankedHits
from apps.search.query.spec import QuerySpec


def above_threshold(hits: RankedHits, spec: QuerySpec) -> Sequence[int]:
    """The places of the hits that score enough."""
    if spec.score_threshold is None:
        return range(len(hits.keys))
    return [place for place, score in enumerate(hits.scores) if score >= spec.score_threshold]


def apply_threshold(hits: RankedHits, spec: QuerySpec) -> RankedHits:
    """The hits without those that score less than the threshold."""
    return hits if spec.score_threshold is None else hits.take(above_threshold(hits, spec))


def paginate(hits: RankedHits, spec: QuerySpec) -> RankedHits:
    """The page of a ranking that the query asks for, of the hits that score enough."""
    places = above_threshold(hits, spec)[spec.offset : spec.offset + spec.k]
    return hits.take(places)._replace(incomplete=hits.incomplete and len(places) < spec.k)


def mmr(library: OpenLibrary, hits: RankedHits, query: Float32, spec: QuerySpec) -> RankedHits:
    """Results chosen one by one from the first ranks, each for being near the query and unlike those before (Carbonell
    and Goldstein, 1998); likeness is the cosine, whatever the metric. Those of further ranks follow as they are, behind
    chunks of the first ranks that words found and that have no vector."""
    assert spec.mmr is not None
    ranked = hits.take(above_threshold(hits, spec))
    end, first = spec.offset + spec.k, [int(key) for key in ranked.keys[: spec.mmr_ranks]]
    vectors = read_vectors(library, first) if first else {}
    if len(vectors) < len(first):
        places = sorted(range(len(first)), key=lambda place: first[place] not in vectors)
        ranked = ranked.take([*places, *range(len(first), len(ranked.keys))])
        first = [int(key) for key in ranked.keys[: len(vectors)]]
    if not first:
        return ranked.take(range(len(ranked.keys))[spec.offset : end])
    library.budget.spend(price_of_mmr(len(first), min(end, len(first)), len(query)))
    units = _unit_rows(np.array([vectors[key] for key in first]))
    relevance = units @ _unit_rows(query[np.newaxis])[0]
    likeness = np.zeros(len(units), np.float32)
    chosen: list[int] = []
    for _ in range(min(end, len(units))):
        merit = spec.mmr.lambda_ * relevance - (1 - spec.mmr.lambda_) * likeness
        merit[chosen] = -np.inf
        best = int(np.argmax(merit))
        likeness = np.maximum(likeness, units @ units[best]) if chosen else units @ units[best]
        chosen.append(best)
    chosen += range(len(units), len(ranked.keys))
    return ranked.take(chosen[spec.offset : end])._replace(exact=False)


def _unit_rows(vectors: Float32) -> Float32:
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    units: Float32 = (vectors / np.where(lengths > 0, lengths, 1)).astype(np.float32)
    return units
