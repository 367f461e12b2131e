"""From hits to the results that a query asks for: threshold, groups by document, diversity."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from apps.engine.vectors import Float32
from apps.search.backend import OpenLibrary
from apps.search.query.rows import read_vectors
from apps.search.query.search import FUSED_RANKS, RankedHits, SearchRequest
from apps.search.query.spec import EVERYTHING, QuerySpec
from apps.search.snapshots import Snapshot

_KEYS_PER_STATEMENT = 2000


def apply_threshold(hits: RankedHits, spec: QuerySpec) -> RankedHits:
    """The hits without those that score less than the threshold."""
    return hits if spec.score_threshold is None else hits.take(_above_threshold(hits, spec))


def group_by_document(library: OpenLibrary, request: SearchRequest, spec: QuerySpec) -> RankedHits:
    """The best chunks of each of the best documents, at most `group_size` of them, documents in order of their best
    one. A chunk without a document is a group of its own.

    The search is widened until it has met enough documents. Those of which fewer chunks were met are then searched by
    themselves. Not so in a fused search, whose ranks depend on all documents: there, a group has the chunks of the
    search that met its best one, and the depths of these searches are fixed.
    """
    wanted, total = spec.offset + spec.k, library.searcher.count(EVERYTHING)
    is_fused = request.mode == "hybrid" and spec.group_size > 1
    first, fetch = (_hits_for(count, spec) for count in (spec.k, wanted))
    if is_fused:
        first = fetch = 2 * FUSED_RANKS
    groups: dict[int, list[int]] = {}
    start = 0
    while True:
        fetch = max(1, min(total, fetch))
        [hits] = library.searcher.search([request._replace(fetch=fetch, first=first)])
        places = _above_threshold(hits, spec)
        documents = _documents_of(library.snapshot, hits.keys[start:])
        closed = frozenset(groups) if is_fused else frozenset()
        for place in places[start:]:
            key = hits.keys[place]
            # Keys of documents and chunks may be equal.
            group = documents[key] or -key
            if group not in closed:
                groups.setdefault(group, []).append(place)
        start = len(hits.keys)
        is_exhausted = fetch >= total or (request.filter_mode != "post" and start < fetch)
        if len(groups) >= wanted or is_exhausted or len(places) < start:
            break
        fetch *= 4
    hits = hits._replace(incomplete=False)
    chosen = {document: found[: spec.group_size] for document, found in list(groups.items())[spec.offset : wanted]}
    if spec.group_size == 1 or request.mode == "hybrid" or is_exhausted:
        return hits.take([place for found in chosen.values() for place in found])
    return _complete_groups(library, request, spec, hits, chosen)


def _hits_for(groups: int, spec: QuerySpec) -> int:
    """How many hits usually have that many groups."""
    return 4 * groups * spec.group_size + 1


def _complete_groups(
    library: OpenLibrary, request: SearchRequest, spec: QuerySpec, hits: RankedHits, groups: dict[int, list[int]]
) -> RankedHits:
    """The hits of all groups, by documents; those with too few are completed by a search of their document."""
    lacking = [document for document, places in groups.items() if document > 0 and len(places) < spec.group_size]
    within = request._replace(fetch=spec.group_size, filter_mode="pre", first=None)
    ids = _ids_of_documents(library.snapshot, lacking)
    found = library.searcher.search([within._replace(document=ids[document]) for document in lacking])
    completed = dict(zip(lacking, found, strict=True))
    best = [
        completed[document].take(_above_threshold(completed[document], spec))
        if document in completed
        else hits.take(places)
        for document, places in groups.items()
    ]
    return hits._replace(
        keys=[key for group in best for key in group.keys],
        scores=[score for group in best for score in group.scores],
        exact=hits.exact and all(one.exact for one in found),
        scanned=hits.scanned + sum(one.scanned for one in found),
    )


def mmr(library: OpenLibrary, hits: RankedHits, query: Float32, spec: QuerySpec) -> RankedHits:
    """Results chosen one by one, each for being near the query and unlike those before (Carbonell and Goldstein, 1998);
    likeness is the cosine, whatever the metric."""
    assert spec.mmr is not None
    candidates = hits.take(_above_threshold(hits, spec)[: spec.mmr.fetch_k])
    if not candidates.keys:
        return candidates
    units = _unit_rows(read_vectors(library, candidates.keys))
    relevance = units @ _unit_rows(query[np.newaxis])[0]
    likeness = np.zeros(len(units), np.float32)
    chosen: list[int] = []
    for _ in range(min(spec.offset + spec.k, len(units))):
        merit = spec.mmr.lambda_ * relevance - (1 - spec.mmr.lambda_) * likeness
        merit[chosen] = -np.inf
        best = int(np.argmax(merit))
        likeness = np.maximum(likeness, units @ units[best]) if chosen else units @ units[best]
        chosen.append(best)
    return candidates.take(chosen[spec.offset :])._replace(exact=False)


def _above_threshold(hits: RankedHits, spec: QuerySpec) -> Sequence[int]:
    """The places of the hits that score enough."""
    if spec.score_threshold is None:
        return range(len(hits.keys))
    return [place for place, score in enumerate(hits.scores) if score >= spec.score_threshold]


def _unit_rows(vectors: Float32) -> Float32:
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    units: Float32 = (vectors / np.where(lengths > 0, lengths, 1)).astype(np.float32)
    return units


def _documents_of(snapshot: Snapshot, keys: Sequence[int]) -> dict[int, int | None]:
    return dict(_select_by_keys(snapshot, "SELECT id, document_id FROM vectordb_chunk WHERE id IN ({})", keys))


def _ids_of_documents(snapshot: Snapshot, keys: Sequence[int]) -> dict[int, str]:
    return dict(_select_by_keys(snapshot, "SELECT id, public_id FROM vectordb_document WHERE id IN ({})", keys))


def _select_by_keys(snapshot: Snapshot, sql: str, keys: Sequence[int]) -> list[tuple[Any, ...]]:
    found: list[tuple[Any, ...]] = []
    for start in range(0, len(keys), _KEYS_PER_STATEMENT):
        some = keys[start : start + _KEYS_PER_STATEMENT]
        found += snapshot.rows(sql.format(", ".join(["%s"] * len(some))), some)
    return found
