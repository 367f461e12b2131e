"""The audit trail."""

from datetime import datetime
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, WithJsonSchema
from rest_framework.request import Request
from rest_framework.response import Response

from apps.access.audit import find_entries
from apps.access.models import AuditEntry
from apps.api.parameters import PageParameters, page_data
from apps.api.v1 import schemas
from apps.api.v1.base import ApiView, respond
from apps.api.v1.operation import operation
from apps.libraries.chunk_fields import timestamp
from apps.libraries.fields import NotNull, check_time
from apps.libraries.selectors import page_of


class AuditParameters(PageParameters):
    """A page of the audit trail."""

    library: Annotated[str | None, NotNull()] = Field(None, description="Only changes of the library of this id.")
    key_id: Annotated[str | None, NotNull()] = Field(None, description="Only changes by the key of this id.")
    since: Annotated[
        datetime | None, BeforeValidator(check_time), WithJsonSchema({"type": "string", "format": "date-time"})
    ] = Field(None, description="Only changes from this time on, RFC 3339 with offset.")


class Audit(ApiView):
    """Who changed what, when, and how much: one entry for each change, written with it."""

    name = "Audit trail"
    parameters = AuditParameters
    query: AuditParameters
    scopes = {"GET": "admin"}
    is_server_wide = True

    @operation("list_audit", "List changes", schemas.AuditPage)
    def get(self, request: Request) -> Response:
        query = self.query
        entries = find_entries(library=query.library, key_id=query.key_id, since=query.since)
        return respond(page_data(page_of(entries, query.limit, query.cursor, _entry_data)))


def _entry_data(row: AuditEntry) -> dict[str, Any]:
    """A change as the API shows it."""
    return {
        "at": timestamp(row.at),
        "key_id": row.key_id or None,
        "name": row.name,
        "action": row.action,
        "library": row.library or None,
        "target": row.target or None,
        "count": row.count,
        "request_id": row.request_id,
    }
