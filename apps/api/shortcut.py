"""The short way of a query: answered before Django's handler, whose request object, middleware and routes cost more
than a small search does.

It knows success only, and the failure of an embedding provider, which is not asked twice. A request that is unusual in
any other way, or that goes wrong, is handed to Django with its body put back, as if nothing had been tried: so each
refusal is made in one place, and both ways give the same answers. Queries write nothing, so trying twice is safe.
"""

import io
import re
from collections.abc import Callable, Iterable
from functools import lru_cache
from http import HTTPStatus
from typing import Any, TypeAlias

from django.conf import settings
from django.http.request import split_domain_port, validate_host

from apps.api.errors import CONTENT_TYPE, problem_of
from apps.api.middleware import FIXED_HEADERS, HEADER, request_id_of
from apps.api.renderers import dumps
from apps.api.v1.query import Query, QueryMany
from apps.embeddings.errors import EmbeddingError
from apps.libraries.ids import is_id
from vectordb.logs import current_request_id

Environ: TypeAlias = dict[str, Any]
# Status, headers and body.
Answered: TypeAlias = tuple[str, list[tuple[str, str]], bytes]
Application: TypeAlias = Callable[[Environ, Callable[..., Any]], Iterable[bytes]]

_PATH = re.compile(r"/api/v1/libraries/([A-Za-z0-9._~:@-]{1,128})/query(/batch)?")
# A request that names one of these may want something else than the usual answer.
_UNUSUAL = ("QUERY_STRING", "SCRIPT_NAME", "HTTP_TRANSFER_ENCODING", "HTTP_CONTENT_ENCODING")


class QueryShortcut:
    """A WSGI application that answers queries and leaves the rest to `django`."""

    def __init__(self, django: Application) -> None:
        self.django = django

    def __call__(self, environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        answered = self.at_once(environ)
        if answered is None:
            return self.django(environ, start_response)
        status, headers, body = answered
        start_response(status, headers)
        return [body]

    def at_once(self, environ: Environ) -> Answered | None:
        """The answer to a usual query; None where Django is to be asked. Of `environ` it needs what says something of
        the request itself."""
        if environ["REQUEST_METHOD"] != "POST" or (path := _PATH.fullmatch(environ["PATH_INFO"])) is None:
            return None
        library_id, is_batch = path.groups()
        length = _usual_length(environ)
        if length is None or not is_id(library_id) or not _is_served(environ.get("HTTP_HOST", "")):
            return None
        request_id = request_id_of(environ)
        current_request_id.set(request_id)
        body = environ["wsgi.input"].read(length)
        try:
            answer = _answer(library_id, body, is_batch=is_batch is not None) if len(body) == length else None
        except EmbeddingError as error:
            return _refused(error, request_id)
        if answer is None:
            environ["wsgi.input"] = io.BytesIO(body)
            return None
        return _answered("200 OK", "application/json", answer, request_id)


def _answer(library_id: str, body: bytes, *, is_batch: bool) -> bytes | None:
    try:
        return (QueryMany if is_batch else Query).body_to(library_id, body)
    except EmbeddingError:
        raise
    except Exception:
        # Whatever it is, Django's way meets it again and says so properly.
        return None


def _refused(error: EmbeddingError, request_id: str) -> Answered:
    """The answer to a text that no provider made a vector of; asking the provider again would take as long again."""
    problem = problem_of(error)
    assert problem is not None
    status = f"{problem.status} {HTTPStatus(problem.status).phrase}"
    return _answered(status, CONTENT_TYPE, dumps(problem.body(request_id)), request_id)


def _answered(status: str, content_type: str, body: bytes, request_id: str) -> Answered:
    headers = [("Content-Type", content_type), ("Content-Length", str(len(body))), (HEADER, request_id)]
    return status, headers + FIXED_HEADERS, body


def _usual_length(environ: Environ) -> int | None:
    """The body's length, where the request is one that a program usually makes."""
    if environ.get("CONTENT_TYPE") != "application/json" or any(environ.get(name) for name in _UNUSUAL):
        return None
    declared = environ.get("CONTENT_LENGTH", "")
    if not declared.isdecimal() or "text/html" in environ.get("HTTP_ACCEPT", ""):
        return None
    length = int(declared)
    return length if 0 < length <= settings.LIMITS.body_bytes else None


@lru_cache(maxsize=256)
def _is_served(host: str) -> bool:
    """Whether Django would take this Host header."""
    domain, _ = split_domain_port(host)
    return bool(domain) and validate_host(domain, settings.ALLOWED_HOSTS)
