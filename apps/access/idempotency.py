"""Requests that are carried out once, however often they are sent: those with an Idempotency-Key.

The transaction of a request's change inserts its row, which is unique by principal and key. So there is a row exactly
where a change was committed, and a request that changed nothing, or whose process ended before, may be sent again. A
request that makes more than one change makes them in one transaction.

The row has its answer at once where that is known within the transaction (`answer_with`), which saves another one, and
the wait for other writers before it. Elsewhere the answer is added afterwards: what ends in between leaves a row
without one. A lock on `Attempt.lock_key` tells that a request still runs; where such a lock is lost, the row still lets
one request through only.
"""

import hashlib
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.db import IntegrityError, transaction
from django.db.models import QuerySet
from django.utils import timezone

from apps.access.models import IdempotentRequest
from apps.access.requests import Principal, Refused

# Numbers below are the keys of libraries.
_LOCK_BITS = 58


@dataclass
class Attempt:
    """A request with an Idempotency-Key. The same one, sent again, is another attempt.

    `answer_of` makes the body of its answer, of status 200, of the result of its change; `is_answered` says that its
    row has that answer once the transaction is committed.
    """

    principal: str
    key: str
    fingerprint: str
    token: str = field(default_factory=lambda: secrets.token_hex(16))
    answer_of: Callable[[Any], bytes] | None = None
    is_answered: bool = False

    @property
    def lock_key(self) -> int:
        """The number that is locked while the request runs."""
        digest = hashlib.sha256(f"{self.principal}\n{self.key}".encode()).digest()
        return 1 << _LOCK_BITS | int.from_bytes(digest[:8]) >> (64 - _LOCK_BITS)


# The request at hand, if it is to be marked.
current_attempt: ContextVar[Attempt | None] = ContextVar("attempt", default=None)


def new_attempt(principal: Principal, key: str, *parts: bytes) -> Attempt:
    """Return the attempt of a request, which consists of `parts`."""
    fingerprint = hashlib.sha256()
    for part in parts:
        # With its length before each part, no two requests have the same bytes.
        fingerprint.update(b"%d:" % len(part))
        fingerprint.update(part)
    name = f"key {principal.key_id}" if principal.key_id else f"name {principal.name}"
    return Attempt(name, key, fingerprint.hexdigest())


def answer_with(answer_of: Callable[[Any], bytes]) -> None:
    """Say how the answer to the request at hand is made of the result of its change, for `mark_carried_out`."""
    if (attempt := current_attempt.get()) is not None:
        attempt.answer_of = answer_of


def mark_carried_out(result: object = None) -> None:
    """Insert the row of the request at hand, if it has a key, in the transaction of its change, with its answer if that
    can be made of `result`. Raise Refused where another attempt has a row."""
    attempt = current_attempt.get()
    if attempt is None:
        return
    answer: dict[str, Any] = {}
    if result is not None and attempt.answer_of is not None:
        answer = {"status": 200, "body": attempt.answer_of(result)}
    row = IdempotentRequest(
        principal=attempt.principal, key=attempt.key, fingerprint=attempt.fingerprint, token=attempt.token, **answer
    )
    try:
        with transaction.atomic():
            row.save(force_insert=True)
    except IntegrityError:
        # A request may make more than one change.
        own = _rows_of(attempt)
        if not (own.update(**answer) if answer else own.exists()):
            raise still_running() from None
    attempt.is_answered = bool(answer)


def _rows_of(attempt: Attempt) -> QuerySet[IdempotentRequest]:
    """Its row, if there is one; not that of another attempt with the same key."""
    return IdempotentRequest.objects.filter(principal=attempt.principal, key=attempt.key, token=attempt.token)


@contextmanager
def unmarked() -> Iterator[None]:
    """Leave changes of the block unmarked: a request that is sent again must not make them twice."""
    reset = current_attempt.set(None)
    try:
        yield
    finally:
        current_attempt.reset(reset)


def find_request(attempt: Attempt) -> IdempotentRequest | None:
    """Return the row of the principal's request with this key. Raise Refused if it was another request."""
    row = IdempotentRequest.objects.filter(principal=attempt.principal, key=attempt.key).first()
    if row is not None and row.fingerprint != attempt.fingerprint:
        raise Refused(
            "idempotency_key_reused",
            "This Idempotency-Key came before with another method, path, query or body. Send each request with a key "
            "of its own.",
        )
    return row


def store_answer(attempt: Attempt, status: int, headers: Mapping[str, str], body: bytes | None) -> None:
    """Keep the answer of a request that was carried out; of one that had nothing to change too, if it has a body."""
    columns = {"status": status, "headers": dict(headers), "body": body}
    if not _rows_of(attempt).update(**columns) and body is not None:
        IdempotentRequest.objects.create(
            principal=attempt.principal,
            key=attempt.key,
            fingerprint=attempt.fingerprint,
            token=attempt.token,
            **columns,
        )


def still_running() -> Refused:
    """Return the error of a request that runs already."""
    detail = "The request with this Idempotency-Key still runs. Wait for its answer, or send it again later."
    return Refused("idempotency_in_progress", detail, {"Retry-After": "1"})


def delete_old_requests(*, limit: int) -> int:
    """Delete at most `limit` requests that are older than the setting says, oldest first; return their number."""
    oldest_kept = timezone.now() - timedelta(hours=settings.IDEMPOTENCY_HOURS)
    oldest = IdempotentRequest.objects.order_by("pk").values_list("pk", "created_at")[:limit]
    deleted, _ = IdempotentRequest.objects.filter(pk__in=[pk for pk, at in oldest if at < oldest_kept]).delete()
    return deleted
