"""Every error body of the server, on every path: RFC 9457 `application/problem+json`.

`CODES` lists the stable codes with their status and title; `docs/errors.md` explains each, and a test compares the two.
`problem_of` says which exception is which problem: the domain's errors, a body that does not parse, a database that is
busy or full, a process without means, REST framework's own. What it does not know is a bug, and is answered 500 without
details.
"""

import errno
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
from django.core.exceptions import PermissionDenied, RequestDataTooBig, SuspiciousOperation
from django.db import DatabaseError
from django.http import Http404, HttpRequest, HttpResponse
from pydantic import ValidationError
from pydantic_core import ErrorDetails
from rest_framework import exceptions as drf
from rest_framework.response import Response

from apps.access.requests import Answer, Refused, answer, current_request_id
from apps.api.hints import known_fields, meant_field, wrapping_field
from apps.embeddings.errors import EmbeddingError, TextRefused
from apps.engine.errors import is_exhaustion
from apps.libraries.dialects import Failure, database_name, failure_of, note_if_damaged
from apps.libraries.dialects.damage import DAMAGED, FULL, DatabaseUnusable
from apps.libraries.errors import (
    Conflict,
    EmbeddingRequired,
    Fault,
    Invalid,
    LibraryError,
    ModelMismatch,
    NotFound,
    PreconditionFailed,
    TooSlow,
    pointer,
)
from apps.libraries.validation import detail_of
from apps.transfer.errors import TransferError

logger = logging.getLogger(__name__)

CONTENT_TYPE = "application/problem+json"
MAX_ERRORS = 100
# A write that skips chunks lists faults of all of them, so few of each: to name one takes a tenth of a millisecond.
_MAX_ERRORS_OF_A_CHUNK = 5
# Pydantic has an error of each fault by then; it is not asked for more of them than this, at some kilobyte each.
_MOST_FAULTS = 100_000

CODES: dict[str, tuple[int, str]] = {
    "malformed": (400, "Malformed request"),
    "invalid": (400, "Invalid request"),
    "embedding_required": (400, "Embedding required"),
    "host_not_allowed": (400, "Host not allowed"),
    "unauthorized": (401, "Not authenticated"),
    "forbidden": (403, "Forbidden"),
    "not_found": (404, "Not found"),
    "method_not_allowed": (405, "Method not allowed"),
    "request_timeout": (408, "Request timeout"),
    "conflict": (409, "Conflict"),
    "model_mismatch": (409, "Embedding model mismatch"),
    "idempotency_key_reused": (409, "Idempotency key reused"),
    "idempotency_in_progress": (409, "Request still running"),
    "idempotency_answer_lost": (409, "Answer lost"),
    "precondition_failed": (412, "Precondition failed"),
    "body_too_large": (413, "Body too large"),
    "unsupported_media_type": (415, "Unsupported media type"),
    "rate_limited": (429, "Too many requests"),
    "too_many_logins": (429, "Too many logins"),
    "embedding_failed": (502, "Embedding failed"),
    "backups_unavailable": (502, "Backups unavailable"),
    "internal_error": (500, "Internal error"),
    "busy": (503, "Database busy"),
    "disk_full": (503, "Disk full"),
    "database_unavailable": (503, "Database unavailable"),
    "database_damaged": (503, "Database damaged"),
    "too_slow": (503, "Took too long"),
    "exhausted": (503, "Out of resources"),
}

_DOMAIN: dict[type[LibraryError], str] = {
    EmbeddingRequired: "embedding_required",
    Invalid: "invalid",
    NotFound: "not_found",
    ModelMismatch: "model_mismatch",
    Conflict: "conflict",
    PreconditionFailed: "precondition_failed",
    TooSlow: "too_slow",
}

_LATER = {"Retry-After": "30"}
_FAILURES: dict[Failure, tuple[str, int]] = {
    Failure.BUSY: ("Other writes held the database {name} for too long; nothing was written. Try again.", 1),
    Failure.FULL: (FULL, 30),
    Failure.UNAVAILABLE: ("The database {name} did not answer, or its files cannot be used. Try again.", 5),
    Failure.DAMAGED: (DAMAGED, 60),
}

# The settings that limit lists, by the lists' names.
_LIST_LIMITS: dict[int | str, str] = dict.fromkeys(("chunks", "documents"), "VECTORDB_MAX_CHUNKS_PER_WRITE")
_LIST_LIMITS["queries"] = "VECTORDB_MAX_QUERIES_PER_BATCH"


@dataclass(eq=False)
class Problem(Exception):
    """An error as the client sees it; may be raised by the HTTP edge itself."""

    code: str
    detail: str
    faults: tuple[Fault, ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def status(self) -> int:
        return CODES[self.code][0]

    def body(self, request_id: str) -> dict[str, Any]:
        """The members of the problem document."""
        return {
            "type": f"urn:vectordb:problem:{self.code}",
            "title": CODES[self.code][1],
            "status": self.status,
            "detail": self.detail,
            "code": self.code,
            "request_id": request_id,
            "errors": [fault._asdict() for fault in self.faults[:MAX_ERRORS]],
        }


class Denied(drf.APIException):
    """A request that is refused, as REST framework understands it: its pages leave out forms for which this is
    raised."""

    def __init__(self, refused: Refused) -> None:
        super().__init__()
        self.refused = refused


BUG = Problem("internal_error", "This is a bug. The server's log has the details under this request_id.")


def refuse(error: BaseException) -> Answer:
    """The answer to the request at hand, which failed by `error`. A bug is logged."""
    problem = problem_of(error)
    if problem is None:
        logger.error("a request failed", exc_info=error)
        problem = BUG
    body = orjson.dumps(problem.body(current_request_id.get()))
    return answer(problem.status, CONTENT_TYPE.encode(), body, **problem.headers)


def response_to(request: HttpRequest, problem: Problem) -> HttpResponse:
    """The HTTP response that carries a problem."""
    body = orjson.dumps(problem.body(getattr(request, "request_id", "")))
    return HttpResponse(body, status=problem.status, headers=dict(problem.headers), content_type=CONTENT_TYPE)


def problem_of(error: BaseException) -> Problem | None:
    """What to tell the client of an exception; None if it is a bug."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, Denied):
        return problem_of(error.refused)
    if isinstance(error, Refused):
        return Problem(error.code, error.detail, headers=error.headers)
    if isinstance(error, LibraryError):
        code = next(code for kind, code in _DOMAIN.items() if isinstance(error, kind))
        detail = error.detail if len(error.faults) != 1 else _sentence(error)
        return Problem(code, detail, error.faults, {"Retry-After": "5"} if code == "too_slow" else {})
    if isinstance(error, TransferError):
        logger.warning("%s", error)
        return Problem("backups_unavailable", str(error))
    if isinstance(error, TextRefused):
        return Problem("invalid", str(error))
    if isinstance(error, EmbeddingError):
        logger.warning("%s", error)
        return Problem("embedding_failed", f"{str(error).rstrip('.')}.")
    if isinstance(error, ValidationError):
        return _validation_problem(error)
    if isinstance(error, DatabaseError):
        failure = failure_of(error)
        if failure is None:
            return None
        note_if_damaged(error)
        if not (isinstance(error, DatabaseUnusable) and failure is Failure.UNAVAILABLE):
            # Files that are not in place have told so, once and not for each request.
            logger.warning("%s: %s: %s", failure.value, database_name(), error)
        detail, seconds = _FAILURES[failure]
        detail = str(error) if isinstance(error, DatabaseUnusable) else detail.format(name=Path(database_name()).name)
        return Problem(failure.value, detail, headers={"Retry-After": str(seconds)})
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        logger.warning("the disk is full: %s", error)
        return Problem("disk_full", "The disk of the data folder is full; nothing was kept.", headers=_LATER)
    if is_exhaustion(error):
        logger.warning("exhausted: %s", str(error) or type(error).__name__)
        detail = "The server has no memory or no file descriptors left for this. Try again."
        return Problem("exhausted", detail, headers={"Retry-After": "5"})
    if isinstance(error, Http404 | drf.NotFound):
        return Problem("not_found", "There is nothing at this path.")
    if isinstance(error, drf.MethodNotAllowed):
        return Problem("method_not_allowed", "This path does not have that method.")
    if isinstance(error, RequestDataTooBig):
        return Problem("body_too_large", "The body is larger than VECTORDB_MAX_BODY_BYTES allows.")
    if isinstance(error, PermissionDenied | drf.PermissionDenied | drf.NotAuthenticated):
        return Problem("forbidden", "That is not allowed.")
    if isinstance(error, SuspiciousOperation | drf.ParseError):
        return Problem("malformed", "The request could not be read.")
    return None


def exception_handler(error: Exception, context: dict[str, Any]) -> HttpResponse | None:
    """REST framework's hook: JSON for programs, the same members in a page for people."""
    problem = problem_of(error)
    if problem is None:
        return None
    request = context["request"]
    allow = getattr(context["view"], "allowed_methods", None)
    if problem.status == 405 and allow:
        problem = method_problem(request.method, ", ".join(allow))
    renderer = getattr(request, "accepted_renderer", None)
    if renderer is not None and renderer.format == "api":
        body = problem.body(getattr(request, "request_id", ""))
        return Response(body, status=problem.status, headers=dict(problem.headers))
    return response_to(request, problem)


def method_problem(method: str | None, allow: str) -> Problem:
    """The problem of a method that a path does not have; `allow` is the header that lists those it has."""
    *others, last = [name for name in allow.split(", ") if name not in ("HEAD", "OPTIONS")] or ["no other"]
    there_are = f"{', '.join(others)} or {last}" if others else last
    headers = {"Allow": allow} if allow else {}
    return Problem("method_not_allowed", f"This path has no method {method}; use {there_are}.", headers=headers)


def _sentence(error: LibraryError) -> str:
    fault = error.faults[0]
    if error.detail == fault.detail:
        return f"{fault.pointer} {fault.detail}."
    return f"{error.detail.removesuffix('.')}: {fault.pointer} {fault.detail}." if fault.pointer else error.detail


def _validation_problem(error: ValidationError) -> Problem:
    count = error.error_count()
    if count > _MOST_FAULTS:
        return Problem("invalid", f"The body has {count} faults, too many to list. Send one item alone to see its own.")
    items = error.errors(include_url=False, include_input=False)[:MAX_ERRORS]
    if items[0]["type"] == "json_invalid":
        return Problem("malformed", f"The body is not valid JSON: {items[0]['ctx']['error']}.")
    faults = [_fault(item, error.title) for item in items]
    unknown = frozenset(
        str(item["loc"][0]) for item in items if item["type"] == "extra_forbidden" and len(item["loc"]) == 1
    )
    if unknown and (wrapping := wrapping_field(error.title, unknown)):
        faults = [Fault(f"/{wrapping}", f'is required: a list of such objects, {{"{wrapping}": [{{...}}]}}')]
    first = faults[0]
    more = f" ({len(faults) - 1} more in `errors`.)" if len(faults) > 1 else ""
    return Problem("invalid", f"{first.pointer or 'The body'} {first.detail}.{more}", tuple(faults))


def chunk_faults(error: ValidationError, number: int) -> list[Fault]:
    """The first faults of one chunk of a request, which could not be parsed."""
    items = error.errors(include_url=False, include_input=False)[:_MAX_ERRORS_OF_A_CHUNK]
    return [_fault({**item, "loc": ("chunks", number, *item["loc"])}, "ChunksWrite") for item in items]


def _fault(item: ErrorDetails, body: str) -> Fault:
    return Fault(pointer((*item["loc"], *item.get("ctx", {}).get("path", ()))), _detail(item, body))


def _detail(item: ErrorDetails, body: str) -> str:
    """What one error of pydantic says here; `body` names the model of the body."""
    context = item.get("ctx", {})
    if item["type"] == "model_type" and not item["loc"] and (wrapping := wrapping_field(body)):
        return f'must be an object with a list, {{"{wrapping}": [{{...}}]}}'
    if item["type"] == "extra_forbidden":
        return _unknown_field(item["loc"], body)
    if item["type"] == "too_long":
        return _too_many_items(item["loc"][-1], context)
    return detail_of(item)


def _unknown_field(location: Sequence[int | str], body: str) -> str:
    *place, name = location
    known = known_fields(body, place)
    meant = meant_field(str(name), known)
    return f"is not a known field; {f'try {meant} instead' if meant else 'there are: ' + ', '.join(known)}"


def _too_many_items(name: int | str, context: Mapping[str, Any]) -> str:
    limit = f" (limit {_LIST_LIMITS[name]})" if name in _LIST_LIMITS else ""
    return f"must have at most {context['max_length']} items, not {context['actual_length']}{limit}"
