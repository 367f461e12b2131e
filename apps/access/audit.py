"""The audit trail: who changed what, when, and how much. An entry is written in the transaction of its change, so that
there is one for each change that was committed, and none for any other."""

from datetime import datetime, timedelta

from django.conf import settings
from django.db.models import QuerySet
from django.utils import timezone

from apps.access.idempotency import mark_carried_out
from apps.access.models import AuditEntry
from apps.access.requests import SERVER, current_principal, current_request_id

_LONGEST_TARGET = 1000


def record_change(
    action: str, *, library: str = "", target: str = "", count: int | None = None, result: object = None
) -> None:
    """Add an entry for a change in the transaction at hand.

    `target` says what was changed within the library or the server, such as the id of a document; `count` is how many
    chunks, documents or other things. What the server does by itself, as maintenance does, is none of it. A request
    with an Idempotency-Key is marked as carried out; `result` is what its answer may be made of.
    """
    mark_carried_out(result)
    entry = new_entry(action, library=library, target=target, count=count)
    if entry is not None:
        entry.save(force_insert=True)


def record_job(action: str, *, key_id: str, name: str, library: str, target: str, count: int) -> None:
    """Add an entry for what a job has changed, in the transaction at hand: by whoever asked for the job, and by the
    request whose entry has the same target."""
    if not settings.AUDIT_DAYS:
        return
    asked = AuditEntry.objects.filter(library=library, target=target).values_list("request_id", flat=True).first()
    AuditEntry(
        key_id=key_id, name=name, action=action, library=library, target=target, count=count, request_id=asked or ""
    ).save(force_insert=True)


def new_entry(action: str, *, library: str = "", target: str = "", count: int | None = None) -> AuditEntry | None:
    """Return the entry of a change, for whoever writes it by other means; None where there is to be none."""
    principal = current_principal.get()
    if principal is SERVER or not settings.AUDIT_DAYS:
        return None
    return AuditEntry(
        key_id=principal.key_id,
        name=principal.name,
        action=action,
        library=library,
        target=target[:_LONGEST_TARGET],
        count=count,
        request_id=current_request_id.get(),
    )


def find_entries(
    *, library: str | None = None, key_id: str | None = None, since: datetime | None = None
) -> QuerySet[AuditEntry]:
    """Return all entries, or those of a library, of a key, or since a time."""
    entries = AuditEntry.objects.all()
    if library is not None:
        entries = entries.filter(library=library)
    if key_id is not None:
        entries = entries.filter(key_id=key_id)
    if since is not None:
        entries = entries.filter(at__gte=since)
    return entries


def delete_old_entries(*, limit: int) -> int:
    """Delete at most `limit` entries that are older than the setting says, oldest first; return their number."""
    oldest_kept = timezone.now() - timedelta(days=settings.AUDIT_DAYS)
    oldest = AuditEntry.objects.order_by("pk").values_list("pk", "at")[:limit]
    deleted, _ = AuditEntry.objects.filter(pk__in=[pk for pk, at in oldest if at < oldest_kept]).delete()
    return deleted
