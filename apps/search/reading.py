"""Chunks as the API shows them, by their ids or as lists. All of an answer is of one snapshot."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from apps.engine.metadata.filters import And, Filter, parse_filter
from apps.engine.metadata.ordering import OrderBy, OrderedRow
from apps.libraries.chunk_fields import Shown, chunk_statement
from apps.libraries.errors import Invalid
from apps.libraries.expiry import EXPIRED_CHUNKS, IS_EXPIRED, JOIN_DOCUMENT
from apps.libraries.ids import is_id
from apps.libraries.response_budget import ResponseBudget
from apps.libraries.selectors import Page, PageKey, check_page_key
from apps.search.backend import open_library
from apps.search.query.rows import read_blocks
from apps.search.snapshots import LibraryState, Snapshot, open_snapshot

_IDS_PER_STATEMENT = 2000
# A chunk without a position, which no service leaves in a document, comes last.
_PLACE = "coalesce(position, 2147483648)"


def get_chunks(*, library_id: str, ids: Sequence[str], shown: Shown) -> tuple[list[dict[str, Any]], list[str]]:
    """Those of the chunks that exist, and the ids of those that do not, each once and in the order asked. Raises
    NotFound for the library, Invalid for too large an answer."""
    wanted = list(dict.fromkeys(ids))
    with open_snapshot() as snapshot:
        state = snapshot.existing_library(library_id)
        keys: dict[str, int] = {}
        for start in range(0, len(wanted), _IDS_PER_STATEMENT):
            some = wanted[start : start + _IDS_PER_STATEMENT]
            marks = ", ".join(["%s"] * len(some))
            sql = (
                f"SELECT chunk.public_id, chunk.id FROM vectordb_chunk AS chunk {JOIN_DOCUMENT}"
                f" WHERE {IS_EXPIRED} IS NOT TRUE AND chunk.library_id = %s AND chunk.public_id IN ({marks})"
            )
            keys |= snapshot.rows(sql, [*[snapshot.moment] * 2, state.key, *some])
        items = _read_items(snapshot, [keys[one] for one in wanted if one in keys], shown)
    return items, [one for one in wanted if one not in keys]


def list_chunks(
    *, library_id: str, filter: Filter, limit: int, after: PageKey, shown: Shown, document_id: str | None = None
) -> Page:
    """The chunks that match and are behind `after`, by creation; those of one document, by position, if it is named.
    Raises NotFound for the library, Invalid for the document and for too large a page."""
    check_page_key(after, by_position=document_id is not None)
    if filter.is_everything:
        with open_snapshot() as snapshot:
            state = snapshot.existing_library(library_id)
            return _page(snapshot, _places(snapshot, state, document_id, after, limit + 1), limit, shown)
    if document_id is not None:
        filter = And((filter, parse_filter({"@document_id": document_id})))
    with open_library(library_id) as library:
        keys = library.searcher.match(filter)
        # From the same state of the database.
        if document_id is None:
            first = int(np.searchsorted(keys, after[0], side="right")) if after else 0
            places: list[PageKey] = [(key,) for key in keys[first : first + limit + 1].tolist()]
        else:
            matching = set(keys.tolist())
            all_places = _places(library.snapshot, library.state, document_id, after)
            places = [place for place in all_places if place[-1] in matching]
        return _page(library.snapshot, places, limit, shown)


class OrderedPage(NamedTuple):
    """Items of a list that is ordered by fields, and the row behind which the next page begins; None on the last."""

    items: list[dict[str, Any]]
    last: OrderedRow | None


def list_ordered_chunks(
    *,
    library_id: str,
    filter: Filter,
    order: Sequence[OrderBy],
    limit: int,
    after: OrderedRow | None,
    shown: Shown,
    document_id: str | None = None,
) -> OrderedPage:
    """The chunks that match, those of one document if it is named, in `order` and behind `after`. Raises as
    `list_chunks`."""
    with open_library(library_id) as library:
        if document_id is not None:
            _document_key(library.snapshot, library.state, document_id)
            filter = And((filter, parse_filter({"@document_id": document_id})))
        rows = library.searcher.ordered(order, filter, after, limit + 1)
        # From the same state of the database.
        items = _read_items(library.snapshot, [row.key for row in rows[:limit]], shown)
    return OrderedPage(items, rows[limit - 1] if len(rows) > limit else None)


def _places(
    snapshot: Snapshot, state: LibraryState, document_id: str | None, after: PageKey, limit: int | None = None
) -> list[PageKey]:
    """The first chunks behind `after`: their keys, in a document their positions and keys. Raises Invalid for the
    document."""
    if document_id is None:
        where, place = "library_id = %s", "id"
        params: list[Any] = [state.key]
    else:
        where, place = "document_id = %s", f"{_PLACE}, id"
        params = [_document_key(snapshot, state, document_id)]
    if after:
        where += f" AND ({place}) > ({', '.join(['%s'] * len(after))})"
        params += after
    where += f" AND id NOT IN ({EXPIRED_CHUNKS})"
    params += [snapshot.moment] * 2
    sql = f"SELECT {place} FROM vectordb_chunk WHERE {where} ORDER BY {place}"
    if limit is not None:
        sql += " LIMIT %s"
        params.append(limit)
    return snapshot.rows(sql, params)


def _document_key(snapshot: Snapshot, state: LibraryState, document_id: str) -> int:
    """The key of a document; raises Invalid where a parameter names none of the library."""
    sql = "SELECT id FROM vectordb_document WHERE library_id = %s AND public_id = %s AND (expires_at <= %s) IS NOT TRUE"
    found = snapshot.rows(sql, [state.key, document_id, snapshot.moment]) if is_id(document_id) else []
    if not found:
        raise Invalid.at("/document_id", "names no document of this library")
    key: int = found[0][0]
    return key


def _page(snapshot: Snapshot, places: Sequence[PageKey], limit: int, shown: Shown) -> Page:
    """The page of the first `limit` places; there is another one if there are more."""
    some = places[:limit]
    items = _read_items(snapshot, [place[-1] for place in some], shown)
    return Page(items, some[-1] if len(places) > limit else None)


def _read_items(snapshot: Snapshot, keys: Sequence[int], shown: Shown) -> list[dict[str, Any]]:
    """The chunks of `keys`, in that order; Invalid for too large an answer."""
    statement, budget = chunk_statement(frozenset(shown.fields), snapshot.dialect), ResponseBudget()
    items: dict[int, dict[str, Any]] = {}
    for block in read_blocks(snapshot, statement, keys):
        items |= {key: budget.charge(item) for key, item in statement.items(block, shown)}
    return [items[key] for key in keys]
