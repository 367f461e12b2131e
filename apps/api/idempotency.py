"""Requests with an Idempotency-Key: answered once, and repeated from what was stored."""

import hashlib
import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import orjson
from django.db import DatabaseError, Error, connection
from rest_framework.request import Request
from rest_framework.response import Response

from apps.access.idempotency import Attempt, current_attempt, find_request, new_attempt, still_running, store_answer
from apps.access.limits import kind_of
from apps.access.models import IdempotentRequest
from apps.access.requests import BODY_FILE, Principal
from apps.api.bodies import read
from apps.api.errors import Problem
from apps.api.renderers import dumps
from apps.libraries.dialects import dialect_of, frees_room

logger = logging.getLogger(__name__)

KEY_HEADER = "Idempotency-Key"
REPLAYED_HEADER = "Idempotent-Replayed"
_KEY = re.compile(r"[\x20-\x7e]{1,255}")


def answer_once(
    handler: Callable[..., Response], key: str, principal: Principal, request: Request, **kwargs: Any
) -> Response:
    """Answer a request by `handler`, or as it was answered before. Raises Refused where it is another request or still
    runs, Problem where its answer is not there, and what the handler raises: then the request may be sent again, unless
    its change was committed."""
    path, query = request.path_info.encode(), request.META["QUERY_STRING"].encode("latin-1")
    attempt = new_attempt(principal, check_key(key), b"POST", path, query, _content(request))
    with _carrying_out(attempt) as stored:
        if stored is not None:
            headers = stored.headers | {REPLAYED_HEADER: "true"}
            return Response(_data(stored), status=stored.status, headers=headers)
        response = handler(request, **kwargs)
        if attempt.is_answered:
            return response
        body = None if handler.operation.has_secret else dumps(response.data)  # type: ignore[attr-defined]
        # Which type it has is decided when it is rendered.
        headers = {name: value for name, value in response.headers.items() if name != "Content-Type"}
        frees = kind_of("POST", request.path_info) == "delete"
        _keep_answer(attempt, response.status_code, headers, body, frees=frees)
        return response


def run_once(run: Callable[[], dict[str, Any]], key: str, principal: Principal, *parts: bytes, frees: bool) -> Any:
    """As `answer_once`, of a call that consists of `parts` and gives data; `frees` says whether it only deletes."""
    attempt = new_attempt(principal, key, *parts)
    with _carrying_out(attempt) as stored:
        if stored is not None:
            return _data(stored)
        data = run()
        _keep_answer(attempt, 200, {}, dumps(data), frees=frees)
        return data


def check_key(key: str) -> str:
    """The key. Raises Problem for what cannot be one."""
    if not _KEY.fullmatch(key):
        raise Problem("invalid", f"The header {KEY_HEADER} must have 1 to 255 ASCII characters; a UUID is a good key.")
    return key


@contextmanager
def _carrying_out(attempt: Attempt) -> Iterator[IdempotentRequest | None]:
    """What is stored of the request, or None: then nobody else carries it out while the block does. Raises Refused."""
    dialect = dialect_of(connection)
    if not dialect.try_lock(connection, attempt.lock_key):
        stored = find_request(attempt)
        # One that has its answer is only told it, by whoever has the lock.
        if stored is None or stored.status is None:
            raise still_running()
        yield stored
        return
    reset = current_attempt.set(attempt)
    try:
        yield find_request(attempt)
    finally:
        current_attempt.reset(reset)
        try:
            dialect.unlock(connection, attempt.lock_key)
        except Error:
            # A lock of PostgreSQL's ends with its connection.
            connection.close()


def _keep_answer(attempt: Attempt, status: int, headers: dict[str, str], body: bytes | None, *, frees: bool) -> None:
    # The answer to a delete may take the room that is reserved for deletes.
    store = frees_room(store_answer) if frees else store_answer
    try:
        store(attempt, status, headers, body)
    except DatabaseError as error:
        logger.warning("the answer to a request with an %s could not be stored: %s", KEY_HEADER, error)


def _content(request: Request) -> bytes:
    """The body of a request, or what stands for one that is in a file."""
    if BODY_FILE not in request.META:
        return read(request)
    with request.META[BODY_FILE].open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def _data(stored: IdempotentRequest) -> Any:
    """What the first answer said. Raises Problem where it is not there."""
    if stored.body is None:
        raise _lost(stored)
    return orjson.loads(bytes(stored.body))


def _lost(stored: IdempotentRequest) -> Problem:
    if stored.status is None:
        why = "the server stopped before it could keep the answer"
    else:
        why = "its answer had a secret, which is kept nowhere"
    detail = f"This request was carried out before, and is not again; {why}. Read what it was to change."
    return Problem("idempotency_answer_lost", detail, headers=stored.headers)
