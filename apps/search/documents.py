"""Documents: one, or a list by a filter on their own metadata, by the evaluator of chunks' filters.

Documents are in no index: for a list they are read in order, and a page ends where enough were looked at, however few
matched.
"""

from typing import Any

import numpy as np

from apps.engine.metadata import Columns
from apps.engine.metadata.filters import Filter, conditions
from apps.engine.metadata.paths import DOCUMENT, DOCUMENT_ID, TEXT, field_of
from apps.libraries import selectors
from apps.libraries.dialects import SNAPSHOT_ALIAS
from apps.libraries.errors import Invalid, pointer
from apps.libraries.selectors import Page, PageKey
from apps.search.query.budget import RequestBudget, price_of_filters
from apps.search.snapshots import Snapshot, open_snapshot
from apps.search.stored_rows import read_documents

# Documents that are read at once; and those that are read for one page, and characters of their metadata.
_PER_READ = 200
_PER_PAGE, _CHARACTERS_PER_PAGE = 10_000, 16 << 20


def get_document(*, library_id: str, document_id: str) -> tuple[dict[str, Any], str]:
    """The document as the API shows it, and its entity tag. Raises NotFound, for the library too."""
    with open_snapshot() as snapshot:
        row = selectors.document_row(
            library_id=library_id, document_id=document_id, using=SNAPSHOT_ALIAS, now=snapshot.time
        )
        return selectors.document_with_etag(row, snapshot.time)


def list_documents(*, library_id: str, filter: Filter, limit: int, after: PageKey, most: int = _PER_PAGE) -> Page:
    """Documents behind `after` that match, of the next `most` or some more; so there may be fewer than `limit` though
    others follow. Raises NotFound for the library, Invalid for a filter of what documents do not have, and for too
    large a page."""
    if filter.is_everything:
        return selectors.documents(library_id=library_id, limit=limit, after=after)
    _check_fields(filter)
    selectors.check_page_key(after, by_position=False)
    with open_snapshot() as snapshot:
        library = snapshot.existing_library(library_id)
        keys, next_key = _match(snapshot, library.key, filter, limit, after, most)
        items = selectors.documents_by_key(keys=keys, using=SNAPSHOT_ALIAS, now=snapshot.time)
        return Page(items, next_key)


def _match(
    snapshot: Snapshot, library_key: int, filter: Filter, limit: int, after: PageKey, most: int
) -> tuple[list[int], PageKey | None]:
    """The keys of the page's documents, and the key after which the next page begins, None if nothing is left."""
    budget = RequestBudget()
    last = after[0] if after else None
    found: list[int] = []
    looked_at = characters = 0
    while looked_at < most and characters < _CHARACTERS_PER_PAGE:
        budget.check_time()
        documents = read_documents(snapshot, library_key, last, _PER_READ)
        budget.spend(price_of_filters([filter], len(documents)))
        rows, keys = list(documents.values()), np.array(list(documents), np.int64)
        is_live = np.array([row.expires_at > snapshot.now for row in rows], np.bool_)
        found += keys[Columns.build(rows).mask(filter) & is_live].tolist()
        if len(found) > limit:
            return found[:limit], (found[limit - 1],)
        if len(documents) < _PER_READ:
            return found, None
        last = int(keys[-1])
        looked_at += len(documents)
        characters += sum(len(row.metadata) for row in rows)
    return found, None if last is None else (last,)


def _check_fields(filter: Filter) -> None:
    for condition in conditions(filter):
        field = field_of(condition.path)
        if field in (DOCUMENT_ID, TEXT) or field.startswith(DOCUMENT):
            raise Invalid.at(
                "/filter" + pointer(condition.at),
                f"looks at {field}, which is a chunk's; documents have the fields of their own metadata, @id, "
                "@created_at and @expires_at",
            )
