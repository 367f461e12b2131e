"""From hits to the results that a query asks for: threshold, groups by document, diversity, and the window of them."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from apps.engine.metadata.filters import parse_filter
from apps.engine.vectors import Float32
from apps.search.query.search import Execution, Ranked, Search
from apps.search.query.spec import QuerySpec
from apps.search.snapshots import Snapshot

_KEYS_PER_STATEMENT = 2000


def window(ranked: Ranked, spec: QuerySpec, left_out: int | None) -> Ranked:
    """The results from `offset` on, without the chunk `left_out` and what scores less than the threshold."""
    if spec.score_threshold is None and left_out is None:
        if spec.offset == 0 and len(ranked.keys) <= spec.k:
            return ranked
        return _taken(ranked, range(spec.offset, min(spec.offset + spec.k, len(ranked.keys))))
    threshold = -np.inf if spec.score_threshold is None else spec.score_threshold
    pairs = enumerate(zip(ranked.keys, ranked.scores, strict=True))
    places = [place for place, (key, score) in pairs if key != left_out and score >= threshold]
    return _taken(ranked, places[spec.offset : spec.offset + spec.k])


def grouped(execution: Execution, snapshot: Snapshot, search: Search, spec: QuerySpec, left_out: int | None) -> Ranked:
    """The best chunks of each of the best documents, at most `group_size` of them, documents in order of their best
    one. A chunk without a document is a group of its own.

    The search is widened until it has met enough documents. Documents of which fewer chunks were met are then searched
    by themselves; the ranks of a fused search depend on all of them, so there it is as many as were met.
    """
    threshold = -np.inf if spec.score_threshold is None else spec.score_threshold
    wanted, total = spec.offset + spec.k, len(execution.view)
    fetch = min(total, 4 * wanted * spec.group_size + 1)
    while True:
        [ranked] = execution.run([replace(search, fetch=max(1, fetch))])
        documents = _documents_of(snapshot, ranked.keys)
        groups: dict[int, list[int]] = {}
        for place, (key, score) in enumerate(zip(ranked.keys, ranked.scores, strict=True)):
            if key != left_out and score >= threshold:
                # Keys of documents and chunks may be equal.
                group = documents[key]
                groups.setdefault(-key if group is None else group, []).append(place)
        below = bool(ranked.scores) and ranked.scores[-1] < threshold
        if len(groups) >= wanted or len(ranked.keys) < fetch or fetch >= total or below:
            break
        fetch = min(total, 4 * fetch)
    chosen = list(groups.items())[spec.offset : wanted]
    merged = _taken(ranked, [place for _, places in chosen for place in places[: spec.group_size]])
    if spec.group_size == 1 or search.mode == "hybrid" or len(ranked.keys) < fetch or fetch >= total:
        return merged
    return _filled(execution, snapshot, search, spec, left_out, ranked, chosen)


def _filled(
    execution: Execution,
    snapshot: Snapshot,
    search: Search,
    spec: QuerySpec,
    left_out: int | None,
    ranked: Ranked,
    chosen: Sequence[tuple[int, list[int]]],
) -> Ranked:
    """The groups, those with too few chunks completed by a search of their document."""
    threshold = -np.inf if spec.score_threshold is None else spec.score_threshold
    names = _ids_of_documents(snapshot, [document for document, _ in chosen if document > 0])
    keys: list[int] = []
    scores: list[float] = []
    exact, scanned = ranked.exact, ranked.scanned
    for document, places in chosen:
        if len(places) >= spec.group_size or document < 0:
            keys += [ranked.keys[place] for place in places[: spec.group_size]]
            scores += [ranked.scores[place] for place in places[: spec.group_size]]
            continue
        fetch = spec.group_size + (left_out is not None)
        found = execution.within(replace(search, fetch=fetch), parse_filter({"@document_id": names[document]}))
        pairs = zip(found.keys, found.scores, strict=True)
        best = [(key, score) for key, score in pairs if key != left_out and score >= threshold][: spec.group_size]
        keys += [key for key, _ in best]
        scores += [score for _, score in best]
        exact, scanned = exact and found.exact, scanned + found.scanned
    return replace(ranked, keys=keys, scores=scores, exact=exact, scanned=scanned)


def diverse(
    ranked: Ranked,
    spec: QuerySpec,
    left_out: int | None,
    query: Float32,
    vectors: Callable[[Sequence[int]], Float32],
) -> Ranked:
    """Results chosen one by one, each for being near the query and unlike those before (Carbonell and Goldstein, 1998);
    likeness is the cosine, whatever the metric."""
    mmr = spec.mmr
    assert mmr is not None
    candidates = window(ranked, spec.model_copy(update={"offset": 0, "k": mmr.fetch_k}), left_out)
    if not candidates.keys:
        return replace(candidates, exact=False)
    units = _units(vectors(candidates.keys))
    relevance = units @ _units(query[np.newaxis])[0]
    nearest = np.full(len(units), -np.inf, np.float32)
    chosen: list[int] = []
    for _ in range(min(spec.offset + spec.k, len(units))):
        unlike = nearest if chosen else np.zeros(len(units), np.float32)
        merit = mmr.lambda_ * relevance - (1 - mmr.lambda_) * unlike
        merit[chosen] = -np.inf
        best = int(np.argmax(merit))
        chosen.append(best)
        nearest = np.maximum(nearest, units @ units[best])
    return replace(_taken(candidates, chosen[spec.offset :]), exact=False)


def _taken(ranked: Ranked, places: Sequence[int]) -> Ranked:
    keys, scores = [ranked.keys[place] for place in places], [ranked.scores[place] for place in places]
    return replace(ranked, keys=keys, scores=scores)


def _units(vectors: Float32) -> Float32:
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    units: Float32 = (vectors / np.where(lengths > 0, lengths, 1)).astype(np.float32)
    return units


def _documents_of(snapshot: Snapshot, keys: Sequence[int]) -> dict[int, int | None]:
    return dict(_by_keys(snapshot, "SELECT id, document_id FROM vectordb_chunk WHERE id IN ({})", keys))


def _ids_of_documents(snapshot: Snapshot, keys: Sequence[int]) -> dict[int, str]:
    return dict(_by_keys(snapshot, "SELECT id, public_id FROM vectordb_document WHERE id IN ({})", keys))


def _by_keys(snapshot: Snapshot, sql: str, keys: Sequence[int]) -> list[tuple[Any, ...]]:
    found: list[tuple[Any, ...]] = []
    for start in range(0, len(keys), _KEYS_PER_STATEMENT):
        some = keys[start : start + _KEYS_PER_STATEMENT]
        found += snapshot.rows(sql.format(", ".join(["%s"] * len(some))), some)
    return found
