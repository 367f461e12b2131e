"""From hits to the results that a query asks for: threshold, groups by document, diversity."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from apps.engine.metadata.filters import DOCUMENT_ID, Filter, Not, OneOf
from apps.engine.metadata.values import key_of
from apps.engine.vectors import Float32
from apps.search.backend import OpenLibrary
from apps.search.query.budget import PER_GROUPED_HIT, price_of_mmr
from apps.search.query.rows import read_vectors
from apps.search.query.search import FUSED_RANKS, RankedHits, SearchRequest
from apps.search.query.spec import EVERYTHING, QuerySpec
from apps.search.snapshots import Snapshot

_KEYS_PER_STATEMENT = 2000


def apply_threshold(hits: RankedHits, spec: QuerySpec) -> RankedHits:
    """The hits without those that score less than the threshold."""
    return hits if spec.score_threshold is None else hits.take(_above_threshold(hits, spec))


class _Hit(NamedTuple):
    key: int
    score: float


def group_by_document(library: OpenLibrary, request: SearchRequest, spec: QuerySpec) -> RankedHits:
    """The best chunks of each of the best documents, at most `group_size` of them, documents in order of their best
    one. A chunk without a document is a group of its own.

    Further searches, each four times as deep, look among the other documents until enough have been met, and those of
    which fewer chunks were met are then searched by themselves. So the order of documents does not depend on the page.

    A fused search, whose ranks depend on all documents, and one that is filtered afterwards, are widened as a whole. In
    a fused one a group has the chunks of the search that met its best one, and the depths of these searches are fixed.
    """
    wanted, total = spec.offset + spec.k, library.searcher.count(EVERYTHING)
    is_whole = request.mode == "hybrid" or request.filter_mode == "post"
    is_fused = request.mode == "hybrid" and spec.group_size > 1
    first = 2 * FUSED_RANKS if is_fused else _hits_for(spec.k, spec)
    fetch = _hits_for(wanted, spec) if is_whole and not is_fused else first
    groups: dict[int, list[_Hit]] = {}
    rounds: list[RankedHits] = []
    within: Filter = EVERYTHING
    start = 0
    while True:
        fetch = max(1, min(total, fetch))
        [hits] = library.searcher.search(
            [request._replace(fetch=fetch, first=first if is_whole else None, within=within)]
        )
        rounds.append(hits)
        met = hits.take(_above_threshold(hits, spec)[start:])
        library.budget.spend(PER_GROUPED_HIT * len(met.keys))
        documents = _documents_by_chunk(library.snapshot, met.keys)
        closed = frozenset(groups) if is_fused or not is_whole else frozenset()
        for key, score in zip(met.keys, met.scores, strict=True):
            # Keys of documents and chunks may be equal.
            group = documents[key] or -key
            if group not in closed:
                groups.setdefault(group, []).append(_Hit(key, score))
        is_exhausted = fetch >= total or (request.filter_mode != "post" and len(hits.keys) < fetch)
        if len(groups) >= wanted or is_exhausted or start + len(met.keys) < len(hits.keys):
            break
        if is_whole:
            start = len(hits.keys)
        else:
            within = Not(_filter_for_documents(library.snapshot, [group for group in groups if group > 0]))
        fetch *= 4
    chosen = {group: found[: spec.group_size] for group, found in list(groups.items())[spec.offset : wanted]}
    if spec.group_size > 1 and request.mode != "hybrid" and not (is_exhausted and (is_whole or len(rounds) == 1)):
        rounds += _complete_groups(library, request, spec, chosen)
    return rounds[0]._replace(
        keys=[hit.key for found in chosen.values() for hit in found],
        scores=[hit.score for found in chosen.values() for hit in found],
        exact=all(one.exact for one in rounds),
        scanned=sum(one.scanned for one in rounds),
        incomplete=False,
        ranks=hits.ranks,
    )


def _hits_for(groups: int, spec: QuerySpec) -> int:
    """How many hits usually have that many groups."""
    return 4 * groups * spec.group_size + 1


def _complete_groups(
    library: OpenLibrary, request: SearchRequest, spec: QuerySpec, groups: dict[int, list[_Hit]]
) -> Iterator[RankedHits]:
    """Replace the hits of documents that have too few by those of a search of these documents; yield its rounds, which
    are four times as deep each."""
    lacking = [group for group, found in groups.items() if group > 0 and len(found) < spec.group_size]
    fetch = _hits_for(len(lacking), spec)
    while lacking:
        within = _filter_for_documents(library.snapshot, lacking)
        [hits] = library.searcher.search([request._replace(fetch=fetch, filter_mode="pre", first=None, within=within)])
        yield hits
        library.budget.spend(PER_GROUPED_HIT * len(hits.keys))
        documents = _documents_by_chunk(library.snapshot, hits.keys)
        found: dict[int, list[_Hit]] = {group: [] for group in lacking}
        for place in _above_threshold(hits, spec):
            members = found[documents[hits.keys[place]] or 0]
            if len(members) < spec.group_size:
                members.append(_Hit(hits.keys[place], hits.scores[place]))
        groups |= found
        is_exhausted = len(hits.keys) < fetch
        lacking = [] if is_exhausted else [group for group in lacking if len(found[group]) < spec.group_size]
        fetch *= 4


def mmr(library: OpenLibrary, hits: RankedHits, query: Float32, spec: QuerySpec) -> RankedHits:
    """Results chosen one by one, each for being near the query and unlike those before (Carbonell and Goldstein, 1998);
    likeness is the cosine, whatever the metric."""
    assert spec.mmr is not None
    library.budget.spend(price_of_mmr(len(hits.keys), spec.offset + spec.k, len(query)))
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


def _documents_by_chunk(snapshot: Snapshot, keys: Sequence[int]) -> dict[int, int | None]:
    return dict(_select_by_keys(snapshot, "SELECT id, document_id FROM vectordb_chunk WHERE id IN ({})", keys))


def _filter_for_documents(snapshot: Snapshot, keys: Sequence[int]) -> OneOf:
    """The filter for the chunks of documents."""
    found = _select_by_keys(snapshot, "SELECT public_id FROM vectordb_document WHERE id IN ({})", keys)
    return OneOf(DOCUMENT_ID, tuple(key_of(public_id) for (public_id,) in found))


def _select_by_keys(snapshot: Snapshot, sql: str, keys: Sequence[int]) -> list[tuple[Any, ...]]:
    found: list[tuple[Any, ...]] = []
    for start in range(0, len(keys), _KEYS_PER_STATEMENT):
        some = keys[start : start + _KEYS_PER_STATEMENT]
        found += snapshot.rows(sql.format(", ".join(["%s"] * len(some))), some)
    return found
