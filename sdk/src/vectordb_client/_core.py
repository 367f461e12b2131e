"""How a call is made, without any I/O.

A call is written once, as a generator ("steps") that yields what has to be done, `Send` a request or `Sleep`, and is
given the outcome: the answer, or a `ConnectionFailed` that is raised at the `yield`. What it returns is the result of
the call. Retries, several requests in a row and the reading of answers are all such generators, put together by `yield
from`. Two loops of a few lines run them (`_runners.py`): one calls httpx2, the other awaits it. The classes that users
meet bind the same generators to either (`_binding.py`), so sync and async have no line of logic twice.
"""

from __future__ import annotations

import json
import logging
import random
import time
import uuid
from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias, TypeVar
from urllib.parse import quote, urlencode

from vectordb_client.errors import (
    ConnectionFailed,
    InvalidAnswer,
    InvalidArgument,
    RequestTimedOut,
    VectorDBError,
    error_of,
)
from vectordb_client.filters import Filter

T = TypeVar("T")

logger = logging.getLogger("vectordb_client")

_RETRIED = frozenset({408, 429, 502, 503, 504})


class Route(NamedTuple):
    """An operation of the server: its path as the schema has it, and how it may be repeated."""

    method: str
    path: str
    # It changes nothing, or repeated changes nothing more.
    is_idempotent: bool = True


@dataclass(frozen=True, slots=True)
class Request:
    """A request, complete but for the address of the server and the key."""

    route: Route
    # Percent-encoded, from the root of the server on, with the query.
    target: str
    body: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    # A file to send as the body, and one to write the body of the answer to.
    source: Path | None = None
    sink: Path | None = None


class _Body(dict[str, Any]):
    def __missing__(self, name: str) -> Any:
        raise InvalidAnswer(f"The answer lacks {name!r}: it is not this server's, or of another version.")


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer, whole. Names of headers are in lower case."""

    status: int
    headers: Mapping[str, str]
    content: bytes

    def json(self) -> Any:
        """The object in the body; raise InvalidAnswer where there is none, and for a name that it lacks."""
        try:
            return _Body(json.loads(self.content))
        except (TypeError, ValueError) as error:
            begin = " ".join(self.content[:200].decode(errors="replace").split())[:80]
            raise InvalidAnswer(
                f"The answer, of status {self.status}, is no JSON object ({error}); it begins: {begin!r}",
                status=self.status,
                request_id=self.headers.get("x-request-id"),
            ) from None


@dataclass(frozen=True, slots=True)
class Send:
    """To be done: send a request; the outcome is an Answer of any status, or ConnectionFailed."""

    request: Request
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Sleep:
    """To be done: wait."""

    seconds: float


Steps: TypeAlias = Generator[Send | Sleep, Any, T]


@dataclass(frozen=True, slots=True)
class Retry:
    """When a request is sent again: after lost connections and the statuses 408, 429, 502, 503 and 504.

    `attempts` counts the first one, so 1 never retries. The wait doubles from `delay` up to `max_delay` seconds, less a
    random part; `Retry-After` is waited for if it is at most `max_retry_after` seconds.
    """

    attempts: int = 5
    delay: float = 0.25
    max_delay: float = 8.0
    max_retry_after: float = 60.0

    def wait(self, attempt: int, retry_after: float | None) -> float | None:
        """Seconds to wait after the attempt of this number, from 1; None to give up."""
        if attempt >= self.attempts or (retry_after or 0) > self.max_retry_after:
            return None
        delay = min(self.delay * 2.0 ** (attempt - 1), self.max_delay)
        # Many clients that were refused together come again one by one.
        jitter = delay * random.random()  # noqa: S311
        return retry_after + jitter / 4 if retry_after is not None else delay / 2 + jitter / 2


@dataclass(frozen=True, slots=True)
class RequestInfo:
    """What `on_request` is told, before each attempt. No header is among it, so no key."""

    method: str
    path: str
    route: str
    body_bytes: int
    attempt: int


@dataclass(frozen=True, slots=True)
class ResponseInfo:
    """What `on_response` is told, after each attempt: `status` is None, and `error` says why, where no answer came."""

    request: RequestInfo
    status: int | None
    seconds: float
    request_id: str | None
    error: Exception | None
    # How long is waited until the next attempt; None if this was the last.
    retry_in: float | None


@dataclass(frozen=True, slots=True)
class Session:
    """What all calls of a client have in common."""

    retry: Retry
    on_request: Callable[[RequestInfo], None] | None = None
    on_response: Callable[[ResponseInfo], None] | None = None

    def call(self, request: Request, retry: Retry | None = None, *, answered: Collection[int] = ()) -> Steps[Answer]:
        """Send a request until it is answered; raise what the last attempt ended with. Statuses below 300 are answers,
        and those of `answered`."""
        policy = retry or self.retry
        route, headers = request.route, request.headers
        if not route.is_idempotent:
            # One for all attempts: the server gives its first answer again.
            headers = {**headers, "Idempotency-Key": uuid.uuid4().hex}
        # What is only good for one state is refused when the first attempt has changed it already.
        is_repeatable = "If-Match" not in headers and "If-None-Match" not in headers
        attempt, is_lost = 0, False
        while True:
            attempt += 1
            failure: VectorDBError
            answer: Answer | None = None
            info = self._tell_request(request, attempt)
            began = time.perf_counter()
            try:
                answer = yield Send(request, headers)
            except ConnectionFailed as error:
                failure = error
                is_lost |= error.is_sent
                may_retry = not error.is_sent or (is_repeatable and not isinstance(error, RequestTimedOut))
            else:
                if answer.status < 300 or answer.status in answered:
                    self._tell_response(info, answer, time.perf_counter() - began)
                    return answer
                failure = error_of(answer.status, answer.headers, answer.content)
                # The other attempt was taken for lost, and is still being carried out.
                may_retry = answer.status in _RETRIED or failure.code == "idempotency_in_progress"
            wait = policy.wait(attempt, failure.retry_after) if may_retry else None
            self._tell_response(info, answer, time.perf_counter() - began, failure, wait)
            if answer is not None and answer.status == 404 and is_lost and route.method == "DELETE":
                return answer  # the attempt whose answer was lost has deleted it
            if wait is None:
                raise failure
            yield Sleep(wait)

    def _tell_request(self, request: Request, attempt: int) -> RequestInfo | None:
        if self.on_request is None and self.on_response is None and not logger.isEnabledFor(logging.INFO):
            return None
        body = len(request.body or b"") if request.source is None else request.source.stat().st_size
        route = request.route
        info = RequestInfo(route.method, request.target, route.path, body, attempt)
        if self.on_request is not None:
            self.on_request(info)
        return info

    def _tell_response(
        self,
        info: RequestInfo | None,
        answer: Answer | None,
        seconds: float,
        failure: Exception | None = None,
        wait: float | None = None,
    ) -> None:
        if info is None:
            return
        status = None if answer is None else answer.status
        request_id = None if answer is None else answer.headers.get("x-request-id")
        if self.on_response is not None:
            self.on_response(ResponseInfo(info, status, seconds, request_id, failure if answer is None else None, wait))
        outcome = failure if answer is None else status
        logger.debug("%s %s: %s in %.1f ms", info.method, info.path, outcome, seconds * 1000)
        if wait is not None:
            logger.info(
                "%s %s: %s; attempt %d follows in %.2f s", info.method, info.path, failure, info.attempt + 1, wait
            )


def build_request(
    route: Route,
    *ids: str,
    body: Mapping[str, Any] | bytes | None = None,
    query: Mapping[str, Any] | None = None,
    if_match: str | None = None,
    if_none_match: str | None = None,
    source: Path | None = None,
    media_type: str | None = None,
    sink: Path | None = None,
) -> Request:
    """A request to a route. `ids` fill the gaps of its path in order; what is None of `query` is left out. The body may
    be a file, `source`, of a `media_type`; that of the answer is written to `sink`."""
    target = route.path
    if ids:
        before, *rest = _gaps(target)
        target = before + "".join(_quote(one) + after for one, after in zip(ids, rest, strict=True))
    parameters = {name: value for name, value in (query or {}).items() if value is not None}
    if parameters:
        target += "?" + urlencode(parameters, doseq=True)
    special = {"If-Match": if_match, "If-None-Match": if_none_match, "Content-Type": media_type}
    headers = {name: value for name, value in special.items() if value is not None}
    content = body if body is None or isinstance(body, bytes) else to_json(body)
    return Request(route, target, content, headers, source, sink)


def _gaps(path: str) -> list[str]:
    parts = _GAPS.get(path)
    if parts is None:
        parts = _GAPS[path] = [part.partition("}")[2] if "}" in part else part for part in path.split("{")]
    return parts


_GAPS: dict[str, list[str]] = {}


def _quote(one: str) -> str:
    if not isinstance(one, str) or not one:
        raise InvalidArgument(f"an id is a text that is not empty, not {one!r}")
    try:
        return quote(one, safe="")
    except UnicodeEncodeError as error:
        raise InvalidArgument(f"{one!r} is no id: {error.reason}") from None


def _plain(value: Any) -> Any:
    """What JSON has no word for: filters, dates, ids, scalars and arrays of numpy."""
    if isinstance(value, Filter):
        return value.to_dict()
    for name in ("isoformat", "tolist", "item"):
        if hasattr(value, name):
            plain = getattr(value, name)()
            # What pandas has for no time says so by its name.
            return None if plain == "NaT" and name == "isoformat" else plain
    if isinstance(value, uuid.UUID | Path):
        return str(value)
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, set | frozenset):
        return sorted(value)
    raise TypeError(f"{value!r} has no place in JSON")


_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_plain).encode
_encode_ascii = json.JSONEncoder(allow_nan=False, separators=(",", ":"), default=_plain).encode


def to_json(value: Any) -> bytes:
    """A value as JSON; raise InvalidArgument where it cannot be."""
    try:
        try:
            return _encode(value).encode()
        except UnicodeEncodeError:
            # Half of a surrogate pair. The server refuses it, and says where it is.
            return _encode_ascii(value).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidArgument(f"this cannot be sent as JSON: {error}") from None


def to_json_each(values: Sequence[Any]) -> list[bytes]:
    """Each value as JSON, by one call of the encoder, which takes longer to start than for a small value."""
    if len(values) == 1:
        return [to_json(values[0])]
    text = to_json([part for value in values for part in (value, _BETWEEN)])
    return text[1 : -len(_CUT)].split(_CUT)


# Stands between values, and in none of them, as nobody knows it.
_BETWEEN = uuid.uuid4().hex
_CUT = f',"{_BETWEEN}",'.encode()


def without_none(**fields: Any) -> dict[str, Any]:
    """The fields that are not None."""
    return {name: value for name, value in fields.items() if value is not None}


class Unset:
    """The type of UNSET: an argument that is left out, where None means null."""

    def __repr__(self) -> str:
        return "UNSET"


UNSET = Unset()


def without_unset(**fields: Any) -> dict[str, Any]:
    """The fields that are set, to None too."""
    return {name: value for name, value in fields.items() if value is not UNSET}
