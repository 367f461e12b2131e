"""Chunks by filter: counted, listed, deleted, and their values counted; by the same evaluator as queries."""

from typing import Any

import numpy as np
from django.db import transaction

from apps.engine.metadata.filters import And, Filter, parse_filter
from apps.engine.storage.view import View
from apps.engine.vectors import Int64
from apps.libraries import selectors
from apps.libraries.dialects import SNAPSHOT_ALIAS
from apps.libraries.response_budget import ResponseBudget
from apps.libraries.selectors import Page
from apps.libraries.services import sql
from apps.search.cache import views
from apps.search.snapshots import open_snapshot


def count_chunks(*, library_id: str, filter: Filter) -> int:
    """How many chunks match; raises NotFound for the library."""
    if filter.is_everything:
        return selectors.count_chunks(library_id=library_id)
    with open_snapshot() as snapshot:
        return len(_matching(views.current(snapshot, library_id).view, filter))


def list_chunks(
    *, library_id: str, filter: Filter, limit: int, after: int, document_id: str | None = None, embedding: bool = False
) -> Page:
    """The chunks that match and whose key is above `after`, by creation, of one document if it is named. Raises
    NotFound for the library, Invalid for the document and for too large a page."""
    if filter.is_everything:
        return selectors.chunks(
            library_id=library_id, limit=limit, after=after, document_id=document_id, embedding=embedding
        )
    if document_id is not None:
        selectors.check_document(library_id=library_id, document_id=document_id)
        filter = And((filter, parse_filter({"@document_id": document_id})))
    with open_snapshot() as snapshot:
        keys = _matching(views.current(snapshot, library_id).view, filter)
        first = int(np.searchsorted(keys, after, side="right"))
        some = keys[first : first + limit + 1].tolist()
        # From the same state of the database.
        items = selectors.chunks_by_key(keys=some[:limit], embedding=embedding, using=SNAPSHOT_ALIAS)
    return Page(items, some[limit - 1] if len(some) > limit else None)


def delete_chunks(*, library_id: str, filter: Filter) -> int:
    """Delete the chunks that match; answers how many. Raises NotFound for the library."""
    # Before writers have to wait; they are searched again only if the library has changed meanwhile.
    with open_snapshot() as snapshot:
        before = views.current(snapshot, library_id)
    keys = _matching(before.view, filter)
    with transaction.atomic():
        # Nobody writes to the library between the search and the deletion.
        sql.lock_library(library_id)
        with open_snapshot() as snapshot:
            current = views.current(snapshot, library_id)
        if current.view is not before.view:
            keys = _matching(current.view, filter)
        return sql.delete_chunks(keys.tolist())


def facets(*, library_id: str, field: str, filter: Filter, limit: int) -> dict[str, Any]:
    """How often each value of a field comes among the chunks that match, most frequent first; raises NotFound,
    Invalid for too large an answer."""
    with open_snapshot() as snapshot:
        view = views.current(snapshot, library_id).view
    if view is None:
        return {"facets": [], "values": 0, "chunks": 0}
    allowed = view.matching(filter)
    found, values = view.facets(field, allowed, limit)
    budget = ResponseBudget()
    return {
        "facets": [budget.charge({"value": value, "count": count}) for value, count in found],
        "values": values,
        "chunks": sum(int(np.count_nonzero(mask)) for mask in allowed),
    }


def _matching(view: View | None, filter: Filter) -> Int64:
    return np.empty(0, np.int64) if view is None else view.keys(view.matching(filter))
