"""Chunks by filter: counted, listed, changed, deleted, and their values counted; by the same evaluator as queries."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from django.db import transaction

from apps.engine.metadata.facets import ValuePage
from apps.engine.metadata.filters import And, Filter, parse_filter
from apps.libraries import selectors
from apps.libraries.dialects import SNAPSHOT_ALIAS, frees_room
from apps.libraries.response_budget import ResponseBudget
from apps.libraries.selectors import Page, PageKey
from apps.libraries.services import sql
from apps.libraries.services.metadata import MetadataChange, update_chunks_by_key
from apps.search.backend import open_library


def count_chunks(*, library_id: str, filter: Filter) -> int:
    """The number of chunks that match. Raises NotFound for the library."""
    if filter.is_everything:
        return selectors.count_chunks(library_id=library_id)
    with open_library(library_id) as library:
        return library.searcher.count(filter)


def list_chunks(
    *,
    library_id: str,
    filter: Filter,
    limit: int,
    after: PageKey,
    document_id: str | None = None,
    embedding: bool = False,
) -> Page:
    """The chunks that match and are behind `after`, by creation; those of one document, by position, if it is named.
    Raises NotFound for the library, Invalid for the document and for too large a page."""
    if filter.is_everything:
        return selectors.chunks(
            library_id=library_id, limit=limit, after=after, document_id=document_id, embedding=embedding
        )
    selectors.check_page_key(after, by_position=document_id is not None)
    if document_id is not None:
        selectors.check_document(library_id=library_id, document_id=document_id)
        filter = And((filter, parse_filter({"@document_id": document_id})))
    with open_library(library_id) as library:
        keys = library.searcher.match(filter)
        # From the same state of the database.
        if document_id is None:
            first = int(np.searchsorted(keys, after[0], side="right")) if after else 0
            some: list[PageKey] = [(key,) for key in keys[first : first + limit + 1].tolist()]
        else:
            matching = set(keys.tolist())
            places = selectors.chunk_places(
                library_key=library.state.key, document_id=document_id, using=SNAPSHOT_ALIAS
            )
            some = [place for place in places if place > after and place[-1] in matching][: limit + 1]
        page = [place[-1] for place in some[:limit]]
        items = selectors.chunks_by_key(keys=page, embedding=embedding, using=SNAPSHOT_ALIAS)
    return Page(items, some[limit - 1] if len(some) > limit else None)


@frees_room
def delete_chunks(*, library_id: str, filter: Filter) -> int:
    """Delete the chunks that match, and return their number. Raises NotFound for the library."""
    with _locked_matches(library_id, filter) as keys:
        return sql.delete_chunks(keys)


def update_chunks(*, library_id: str, filter: Filter, change: MetadataChange) -> int:
    """Change the metadata of the chunks that match, and return their number. Raises NotFound for the library, Invalid
    where a chunk's metadata would be past a limit."""
    with _locked_matches(library_id, filter) as keys:
        return update_chunks_by_key(keys, change)


@contextmanager
def _locked_matches(library_id: str, filter: Filter) -> Iterator[list[int]]:
    """A transaction with the keys of the chunks that match, to which nobody else writes in the block."""
    # Searched before writers have to wait, and again only if the library has changed meanwhile.
    with open_library(library_id) as before:
        keys = before.searcher.match(filter)
    with transaction.atomic():
        sql.lock_library(library_id)
        with open_library(library_id) as library:
            if library.state != before.state:
                keys = library.searcher.match(filter)
        yield keys.tolist()


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
