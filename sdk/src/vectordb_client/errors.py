"""What can go wrong. Every error has `status`, `code`, `errors`, `pointers`, `request_id` and `retry_after`.

VectorDBError
├── InvalidArgument        nothing was sent: an argument cannot be used; also a ValueError
├── ConnectionFailed       no answer came: refused, cut off
│   └── RequestTimedOut    no answer came in time
├── InvalidAnswer          what came is not this server's answer: not JSON, a page of a proxy
├── JobFailed              a job that was waited for has failed or was cancelled
├── WaitTimedOut           a job that was waited for is still running
├── UploadFailed           an upload stopped early; `report` says what was stored before
└── APIError               the server refused
    ├── BadRequest         400
    │   └── EmbeddingRequired
    ├── Unauthorized       401
    ├── Forbidden          403
    ├── NotFound           404
    ├── Conflict           409
    │   └── ModelMismatch
    ├── PreconditionFailed 412
    ├── BodyTooLarge       413
    ├── RateLimited        429
    └── ServerError        5xx
        ├── EmbeddingFailed    502 embedding_failed
        └── Unavailable        503: busy, disk full, not ready
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vectordb_client.types import UploadReport


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong: a JSON pointer into the request, and what is wrong there."""

    pointer: str
    detail: str


class VectorDBError(Exception):
    """The base of all errors of this package.

    `status` and `code` are those of the answer, None where none came. `retry_after` is in seconds.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        code: str | None = None,
        errors: tuple[Fault, ...] = (),
        request_id: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.errors = errors
        self.request_id = request_id
        self.retry_after = retry_after

    @property
    def pointers(self) -> tuple[str, ...]:
        """The JSON pointers of `errors`: the places in the request that are wrong."""
        return tuple(fault.pointer for fault in self.errors)


class InvalidArgument(VectorDBError, ValueError):
    """An argument cannot be used; nothing was sent."""


class ConnectionFailed(VectorDBError):
    """No answer came. `is_sent` tells whether the request may have reached the server."""

    is_sent = True


class RequestTimedOut(ConnectionFailed):
    """No answer came in time; `timeout` of the client says how long it waits."""


class InvalidAnswer(VectorDBError):
    """The answer is not one of this server: not JSON, cut off, or a page of something in between."""


class JobFailed(VectorDBError):
    """The job failed or was cancelled."""


class WaitTimedOut(VectorDBError):
    """The job is still running after the time to wait."""


class UploadFailed(VectorDBError):
    """An upload stopped before its end. `report` says what was stored; `__cause__` is why it stopped."""

    report: UploadReport


class APIError(VectorDBError):
    """The server refused the request."""


class BadRequest(APIError):
    """400: malformed, or a value breaks a rule; `errors` says which."""


class EmbeddingRequired(BadRequest):
    """The library has no embedding model, so text needs a vector beside it."""


class Unauthorized(APIError):
    """401: no API key, or one that is not good."""


class Forbidden(APIError):
    """403: the key's scopes do not reach so far."""


class NotFound(APIError):
    """404: there is no such thing, or the key may not see it."""


class Conflict(APIError):
    """409: the id is taken."""


class ModelMismatch(Conflict):
    """The request names another embedding model than the library's."""


class PreconditionFailed(APIError):
    """412: somebody else wrote since the ETag was read."""


class BodyTooLarge(APIError):
    """413: the body is larger than the server takes."""


class RateLimited(APIError):
    """429: too many requests; `retry_after` says how long to wait."""


class ServerError(APIError):
    """5xx: the server, or something in front of it, failed."""


class EmbeddingFailed(ServerError):
    """502: the embedding provider failed."""


class Unavailable(ServerError):
    """503: busy, disk full or not ready."""


_BY_CODE: dict[str, type[APIError]] = {
    "embedding_required": EmbeddingRequired,
    "model_mismatch": ModelMismatch,
    "embedding_failed": EmbeddingFailed,
}
_BY_STATUS: dict[int, type[APIError]] = {
    400: BadRequest,
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    412: PreconditionFailed,
    413: BodyTooLarge,
    429: RateLimited,
    503: Unavailable,
}


def error_of(status: int, headers: Mapping[str, str], content: bytes) -> APIError:
    """The error that an answer with a status of 300 or more stands for, problem document or not."""
    problem = _problem(content)
    code = problem.get("code")
    kind = _BY_CODE.get(str(code)) or _BY_STATUS.get(status) or (ServerError if status >= 500 else APIError)
    faults = problem.get("errors")
    return kind(
        _message(status, headers, content, problem),
        status=status,
        code=code if isinstance(code, str) else None,
        errors=tuple(
            Fault(str(fault.get("pointer", "")), str(fault.get("detail", "")))
            for fault in (faults if isinstance(faults, list) else ())
            if isinstance(fault, dict)
        ),
        request_id=headers.get("x-request-id"),
        retry_after=_seconds(headers.get("retry-after")),
    )


def _problem(content: bytes) -> dict[str, Any]:
    try:
        problem = json.loads(content)
    except ValueError:
        return {}
    return problem if isinstance(problem, dict) else {}


def _message(status: int, headers: Mapping[str, str], content: bytes, problem: Mapping[str, Any]) -> str:
    if "detail" in problem:
        return str(problem["detail"])
    if 300 <= status < 400:
        return f"The server answered {status} and points to {headers.get('location')}: use that address."
    text = " ".join(content[:1000].decode(errors="replace").split())[:200]
    return f"The answer has status {status} and is not this server's; it begins: {text!r}"


def _seconds(text: str | None) -> float | None:
    """`Retry-After` in seconds; a date, which this server never sends, counts as absent."""
    try:
        return max(float(text), 0.0) if text is not None else None
    except ValueError:
        return None
