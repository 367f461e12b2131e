"""Groups: the best chunks of each of the best values of a field, such as the document.

Chunks whose field has the same scalar are a group. A chunk without the field, or whose value there is null, an array or
an object, is a group of its own.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, TypeAlias

from apps.engine.metadata.filters import And, Between, Filter, Not, OneOf, Or
from apps.engine.metadata.paths import DOCUMENT_ID
from apps.engine.metadata.values import ARRAY, LAST, NULL, scalar_of
from apps.libraries.profile import stage
from apps.search.backend import OpenLibrary
from apps.search.query.budget import PER_GROUPED_HIT
from apps.search.query.rerank import above_threshold
from apps.search.query.search import FUSED_RANKS, RankedHits, SearchRequest
from apps.search.query.spec import EVERYTHING, QuerySpec

# The key of a value (`engine/metadata/values.py`); or, of a chunk that is a group of its own, the chunk's.
_Group: TypeAlias = bytes | int


class _Hit(NamedTuple):
    key: int
    score: float


def search_groups(library: OpenLibrary, request: SearchRequest, spec: QuerySpec) -> RankedHits:
    """The best chunks of each of the best groups, at most `group_size` of them, groups in order of their best one.

    Further searches, each four times as deep, look among the other groups until enough have been met, and those of
    which fewer chunks were met are then searched by themselves. So the order of groups does not depend on the page.

    A fused search, whose ranks depend on all chunks, and one that is filtered afterwards, are widened as a whole. In
    a fused one a group has the chunks of the search that met its best one, and the depths of these searches are fixed.
    """
    field = _field(spec)
    wanted, total = spec.offset + spec.k, library.searcher.count(EVERYTHING)
    is_whole = request.mode == "hybrid" or request.filter_mode == "post"
    is_fused = request.mode == "hybrid" and spec.group_size > 1
    first = 2 * FUSED_RANKS if is_fused else _hits_for(spec.k, spec)
    fetch = _hits_for(wanted, spec) if is_whole and not is_fused else first
    groups: dict[_Group, list[_Hit]] = {}
    rounds: list[RankedHits] = []
    within: Filter = EVERYTHING
    start = 0
    while True:
        fetch = max(1, min(total, fetch))
        with stage("search"):
            [hits] = library.searcher.search(
                [request._replace(fetch=fetch, first=first if is_whole else None, within=within)]
            )
        rounds.append(hits)
        met = hits.take(above_threshold(hits, spec)[start:])
        closed = frozenset(groups) if is_fused or not is_whole else frozenset()
        for group, hit in _with_groups(library, field, met):
            if group not in closed:
                groups.setdefault(group, []).append(hit)
        is_exhausted = fetch >= total or (request.filter_mode != "post" and len(hits.keys) < fetch)
        if len(groups) >= wanted or is_exhausted or start + len(met.keys) < len(hits.keys):
            break
        if is_whole:
            start = len(hits.keys)
        else:
            within = _outside(field, _values(groups))
        fetch *= 4
    chosen = _choose(groups, spec)
    if spec.group_size > 1 and request.mode != "hybrid" and not (is_exhausted and (is_whole or len(rounds) == 1)):
        rounds += _complete_groups(library, request, spec, chosen)
    return _merge(rounds[0], chosen, spec)._replace(
        exact=all(one.exact for one in rounds),
        scanned=sum(one.scanned for one in rounds),
        incomplete=False,
        ranks=hits.ranks,
    )


def group_hits(library: OpenLibrary, hits: RankedHits, spec: QuerySpec) -> RankedHits:
    """The same of hits alone, which are in order, without any further search."""
    groups: dict[_Group, list[_Hit]] = {}
    for group, hit in _with_groups(library, _field(spec), hits.take(above_threshold(hits, spec))):
        groups.setdefault(group, []).append(hit)
    chosen = _choose(groups, spec)
    lacks = len(chosen) < spec.k or any(len(found) < spec.group_size for found in chosen.values())
    return _merge(hits, chosen, spec)._replace(incomplete=hits.incomplete and lacks)


def _field(spec: QuerySpec) -> str:
    assert spec.group_by is not None
    return spec.group_by


def _with_groups(library: OpenLibrary, field: str, hits: RankedHits) -> Iterator[tuple[_Group, _Hit]]:
    """Each hit with its group."""
    library.budget.spend(PER_GROUPED_HIT * len(hits.keys))
    values = library.searcher.lookup(hits.keys).keys_of_values(field)
    for value, key, score in zip(values, hits.keys, hits.scores, strict=True):
        yield key if value is None or not NULL < value < ARRAY else value, _Hit(key, score)


def _choose(groups: dict[_Group, list[_Hit]], spec: QuerySpec) -> dict[_Group, list[_Hit]]:
    """The groups of the page, which `groups` has in order."""
    page = list(groups.items())[spec.offset : spec.offset + spec.k]
    return {group: found[: spec.group_size] for group, found in page}


def _merge(hits: RankedHits, groups: dict[_Group, list[_Hit]], spec: QuerySpec) -> RankedHits:
    """`hits` with those of `groups` instead, one group after the other."""
    values = None
    if spec.group_by != DOCUMENT_ID:
        values = {
            hit.key: scalar_of(group) if isinstance(group, bytes) else None
            for group, found in groups.items()
            for hit in found
        }
    return hits._replace(
        keys=[hit.key for found in groups.values() for hit in found],
        scores=[hit.score for found in groups.values() for hit in found],
        groups=values,
    )


def _hits_for(groups: int, spec: QuerySpec) -> int:
    """How many hits usually have that many groups."""
    return 4 * groups * spec.group_size + 1


def _complete_groups(
    library: OpenLibrary, request: SearchRequest, spec: QuerySpec, groups: dict[_Group, list[_Hit]]
) -> Iterator[RankedHits]:
    """Replace the hits of groups that have too few by those of a search of these groups; yield its rounds, which are
    four times as deep each."""
    field = _field(spec)
    lacking = [group for group in _values(groups) if len(groups[group]) < spec.group_size]
    fetch = _hits_for(len(lacking), spec)
    while lacking:
        within = _inside(field, lacking)
        deeper = request._replace(fetch=fetch, filter_mode="pre", first=None, within=within)
        with stage("search"):
            [hits] = library.searcher.search([deeper])
        yield hits
        found: dict[_Group, list[_Hit]] = {group: [] for group in lacking}
        for group, hit in _with_groups(library, field, hits.take(above_threshold(hits, spec))):
            if len(found[group]) < spec.group_size:
                found[group].append(hit)
        groups |= found
        is_exhausted = len(hits.keys) < fetch
        lacking = [] if is_exhausted else [group for group in lacking if len(found[group]) < spec.group_size]
        fetch *= 4


def _values(groups: Iterable[_Group]) -> list[bytes]:
    """The groups that chunks may share."""
    return [group for group in groups if isinstance(group, bytes)]


# Of arrays, which `OneOf` finds by their members, each is a group of its own.


def _inside(field: str, groups: Sequence[bytes]) -> Filter:
    """The filter for the chunks of groups."""
    return And((OneOf(field, tuple(groups)), Not(Between(field, ARRAY, LAST))))


def _outside(field: str, groups: Sequence[bytes]) -> Filter:
    """The filter for all other chunks."""
    return Or((Not(OneOf(field, tuple(groups))), Between(field, ARRAY, LAST)))
