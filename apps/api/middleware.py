"""Around every request: its id, the check of its host, and problem bodies for what fails outside of a view."""

import os
import re
from collections.abc import Callable
from typing import Any

from django.core.exceptions import DisallowedHost
from django.db import DatabaseError
from django.http import HttpRequest, HttpResponse

from apps.api.bodies import drain
from apps.api.errors import Problem, problem_of, response_to
from vectordb.logs import current_request_id

HEADER = "X-Request-ID"
# What every response carries.
FIXED_HEADERS = [("X-Frame-Options", "DENY"), ("X-Content-Type-Options", "nosniff")]
_SANE = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")


def request_id_of(environ: dict[str, Any]) -> str:
    """The id that the client gave its request, if it is a sane one, or a new one."""
    given = environ.get("HTTP_X_REQUEST_ID", "")
    return given if _SANE.fullmatch(given) else os.urandom(16).hex()


class RequestMiddleware:
    """Gives the request an id, which the response carries, and refuses hosts that are not served here.

    The check of the host keeps web pages away: a page whose name was rebound to a loopback address could otherwise
    read and delete everything.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        request_id = request_id_of(request.META)
        request.request_id = request_id  # type: ignore[attr-defined]
        current_request_id.set(request_id)
        try:
            request.get_host()
        except DisallowedHost:
            detail = "The request's Host header is not among VECTORDB_ALLOWED_HOSTS."
            response = response_to(request, Problem("host_not_allowed", detail))
        else:
            response = self._get_response(request)
            if response.status_code == 405 and (response.streaming or not response.content):
                allow = {"Allow": response.headers["Allow"]} if "Allow" in response.headers else {}
                detail = f'Method "{request.method}" not allowed.'
                response = response_to(request, Problem("method_not_allowed", detail, headers=allow))
        response.headers[HEADER] = request_id
        for name, value in FIXED_HEADERS:
            response.headers.setdefault(name, value)
        if response.status_code >= 400:
            drain(request)
        if not response.streaming:
            response.headers.setdefault("Content-Length", str(len(response.content)))
            if request.method == "HEAD":
                response.content = b""
        return response

    def process_exception(self, request: HttpRequest, error: Exception) -> HttpResponse | None:
        """A database that is busy or full is no bug, in the admin either."""
        problem = problem_of(error) if isinstance(error, DatabaseError) else None
        return None if problem is None else response_to(request, problem)


def not_found(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    """Django's handler for a path that leads nowhere."""
    path = request.path
    is_close = path.startswith("/api/v1/") and path.endswith("/")
    hint = f" Paths have no slash at the end: try {path.rstrip('/')} instead." if is_close else ""
    return response_to(request, Problem("not_found", f"There is nothing at {path}.{hint}"))


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Django's handler for a request that it refuses."""
    return response_to(request, problem_of(exception) or Problem("malformed", "The request could not be read."))


def forbidden(request: HttpRequest, exception: Exception | None = None, reason: str = "") -> HttpResponse:
    """Django's handler for what is not allowed, a form without its CSRF token among it."""
    return response_to(request, Problem("forbidden", reason or "That is not allowed."))


def server_error(request: HttpRequest) -> HttpResponse:
    """Django's handler for a bug, which Django has logged by then."""
    detail = "This is a bug. The server's log has the details under this request_id."
    return response_to(request, Problem("internal_error", detail))
