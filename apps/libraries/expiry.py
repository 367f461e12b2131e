"""Which chunks and documents have expired. From `expires_at` on, which chunks inherit of their document, they are in no
answer, as if they were deleted; maintenance deletes them some seconds later.

Statements that read the rows anyway look at their times. Those that count, or list by an index, take out the keys that
the indexes of expiring rows have, so they cost nothing more where nothing expires.
"""

from datetime import datetime
from typing import Any, Final

from django.db import connections
from django.db.models import Count, QuerySet, Subquery
from django.db.models.expressions import RawSQL
from django.utils import timezone

from apps.libraries.models import Chunk, Document

# Of rows `chunk`, joined with `document`: whether it has expired, or null. Takes the time twice.
IS_EXPIRED: Final = "(chunk.expires_at <= %s OR document.expires_at <= %s)"
# Joins the rows `chunk` with their documents.
JOIN_DOCUMENT: Final = "LEFT JOIN vectordb_document AS document ON document.id = chunk.document_id"
# The keys of the chunks that have expired. Takes the time twice.
EXPIRED_CHUNKS: Final = """
    SELECT id FROM vectordb_chunk WHERE expires_at <= %s
    UNION SELECT chunk.id FROM vectordb_document AS document
    JOIN vectordb_chunk AS chunk ON chunk.document_id = document.id WHERE document.expires_at <= %s"""
# The keys of the documents that have expired. Takes the time once.
EXPIRED_DOCUMENTS: Final = "SELECT id FROM vectordb_document WHERE expires_at <= %s"


def parameter(moment: datetime | None) -> Any:
    """A time as statements take it."""
    return connections["default"].ops.adapt_datetimefield_value(moment)


def live_chunks(rows: QuerySet[Chunk], now: datetime | None = None) -> QuerySet[Chunk]:
    """Those of the chunks that have not expired by `now`, the current time if it is left out."""
    return rows.exclude(pk__in=_keys(EXPIRED_CHUNKS, now))


def live_documents(rows: QuerySet[Document], now: datetime | None = None) -> QuerySet[Document]:
    """Those of the documents that have not expired by `now`, the current time if it is left out."""
    return rows.exclude(pk__in=_keys(EXPIRED_DOCUMENTS, now))


class _RowCount(Subquery):
    """The number of rows of a query, in another one."""

    template = "(SELECT count(*) FROM (%(subquery)s) AS counted)"


def count_live_chunks(rows: QuerySet[Chunk]) -> int:
    """The number of those of the chunks that have not expired. Reads no more than a count of all does, and those that
    have; in one statement, since what has expired may be deleted at any time."""
    expired = rows.filter(pk__in=_keys(EXPIRED_CHUNKS)).values("pk")
    count: int = rows.aggregate(live=Count("*") - _RowCount(expired))["live"]
    return count


def _keys(expired: str, now: datetime | None = None) -> RawSQL:
    """The keys that one of the constants above selects by `now`."""
    return RawSQL(expired, [parameter(now or timezone.now())] * expired.count("%s"))  # noqa: S611 # nosec B611
