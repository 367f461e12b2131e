"""Chunks by filter, counted, changed and deleted, and their values; by the same evaluator as queries and lists."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from apps.access.audit import record_change
from apps.access.requests import current_principal
from apps.engine.metadata.facets import ValuePage
from apps.engine.metadata.filters import Filter
from apps.engine.metadata.summaries import ORDERED_TYPES, TypeSummary
from apps.engine.metadata.values import scalar_of
from apps.libraries import selectors
from apps.libraries.dialects import frees_room
from apps.libraries.response_budget import ResponseBudget
from apps.libraries.services import sql
from apps.libraries.services.metadata import MetadataChange, update_chunks_by_key
from apps.search.backend import open_library
from apps.search.query.budget import RequestBudget

# Between steps the clock is looked at.
_KEYS_PER_STEP = 5000


def count_chunks(*, library_id: str, filter: Filter) -> int:
    """The number of chunks that match. Raises NotFound for the library."""
    if filter.is_everything and current_principal.get().filter is None:
        return selectors.count_chunks(library_id=library_id)
    with open_library(library_id) as library:
        return library.searcher.count(filter)


@frees_room
def delete_chunks(*, library_id: str, filter: Filter) -> int:
    """Delete the chunks that match, and return their number. Raises NotFound for the library."""
    with _locked_matches(library_id, filter) as (keys, budget):
        for some in _steps(keys, budget):
            sql.delete_chunks(some)
        record_change("delete_chunks", library=library_id, count=len(keys))
        return len(keys)


def update_chunks(*, library_id: str, filter: Filter, change: MetadataChange) -> int:
    """Change the metadata of the chunks that match, and return their number. Raises NotFound for the library, Invalid
    where a chunk's metadata would be past a limit."""
    with _locked_matches(library_id, filter) as (keys, budget):
        for some in _steps(keys, budget):
            update_chunks_by_key(some, change)
        record_change("update_chunks", library=library_id, count=len(keys))
        return len(keys)


def _steps(keys: Sequence[int], budget: RequestBudget) -> Iterator[Sequence[int]]:
    """Some keys at a time; raise Invalid in between where the request has taken too long, which writes nothing."""
    for start in range(0, len(keys), _KEYS_PER_STEP):
        budget.check_time()
        yield keys[start : start + _KEYS_PER_STEP]


@contextmanager
def _locked_matches(library_id: str, filter: Filter) -> Iterator[tuple[list[int], RequestBudget]]:
    """A transaction with the keys of the chunks that match, to which nobody else writes in the block, and what is left
    of the request's budget."""
    budget = RequestBudget()
    # Searched before writers have to wait, and again only if the library has changed meanwhile.
    with open_library(library_id, budget) as before:
        keys = before.searcher.match(filter)
    with sql.write_transaction():
        sql.lock_library(library_id)
        with open_library(library_id, budget) as library:
            if library.state != before.state:
                keys = library.searcher.match(filter)
        yield keys.tolist(), budget


def count_values(*, library_id: str, field: str, filter: Filter, page: ValuePage) -> dict[str, Any]:
    """How often the values of a field on a page occur among the chunks that match. Raises NotFound, Invalid for too
    large an answer."""
    with open_library(library_id) as library:
        facets = library.searcher.facets(field, filter, page)
    budget = ResponseBudget()
    return {
        "facets": [budget.charge({"value": value, "count": count}) for value, count in facets.counts],
        "values": facets.distinct,
        "chunks": facets.chunks,
    }


def summarize_fields(*, library_id: str, names: Sequence[str] | None, filter: Filter, limit: int) -> dict[str, Any]:
    """What values the chunks that match have in the fields `names`, or in the `limit` fields of metadata that most of
    them have. Raises NotFound, Invalid for too large an answer."""
    with open_library(library_id) as library:
        found = library.searcher.fields(names, filter, limit)
    budget = ResponseBudget()
    fields = [
        {
            "field": name,
            "count": summary.rows,
            "distinct": summary.distinct,
            "types": {kind: _type_data(kind, one) for kind, one in summary.types.items()},
        }
        for name, summary in found.summaries.items()
    ]
    return {"fields": [budget.charge(field) for field in fields], "omitted": found.omitted}


def _type_data(kind: str, summary: TypeSummary) -> dict[str, Any]:
    if kind not in ORDERED_TYPES:
        return {"count": summary.rows}
    return {"count": summary.rows, "min": scalar_of(summary.least), "max": scalar_of(summary.greatest)}
