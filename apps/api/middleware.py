"""Around every request of Django's: its id, its admission, and problem bodies for what fails outside of a view."""

import re
from collections.abc import Callable
from functools import cached_property, lru_cache
from typing import Any

from corsheaders.middleware import CorsMiddleware
from django.conf import settings
from django.db import DatabaseError
from django.http import HttpRequest, HttpResponse
from rest_framework.request import Request

from apps.access.authentication import is_open, recognize
from apps.access.limits import admitted
from apps.access.requests import ADMITTED, FIXED_HEADERS, ID_HEADER, Principal, Refused, admit, identify
from apps.api.errors import BUG, Problem, method_problem, problem_of, response_to
from apps.api.hints import meant_path
from apps.api.v1.base import ApiView, path_to
from apps.search.snapshots import read_rows
from apps.telemetry.observation import current_observation

_BASE = settings.BASE_PATH


class RequestMiddleware:
    """Admits the request, unless the HTTP edge has; the response carries its id."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self._get_response = get_response
        # Around the admission: a browser asks first without a key, and a page may read why it is refused.
        self._handle: Any = CorsMiddleware(self._admit) if settings.CORS_ALLOWED_ORIGINS else self._admit

    def __call__(self, request: HttpRequest) -> HttpResponse:
        request_id, principal = request.META.get(ADMITTED) or (identify(request.headers.get(ID_HEADER, "")), None)
        request.request_id, request.principal = request_id, principal  # type: ignore[attr-defined]
        response: HttpResponse = self._handle(request)
        _note(request)
        if response.status_code == 405 and (response.streaming or not response.content):
            response = response_to(request, method_problem(request.method, response.headers.get("Allow", "")))
        response.headers[ID_HEADER] = request_id
        for name, value in FIXED_HEADERS.items():
            response.headers.setdefault(name, value)
        if not response.streaming:
            response.headers.setdefault("Content-Length", str(len(response.content)))
            if request.method == "HEAD":
                response.content = b""
        return response

    def _admit(self, request: HttpRequest) -> HttpResponse:
        if request.principal is not None:  # type: ignore[attr-defined]
            return self._get_response(request)
        try:
            request.principal = principal = _admit(request)  # type: ignore[attr-defined]
            address = request.META.get("REMOTE_ADDR", "")
            with admitted(principal, address, request.method or "", request.path_info) as headers:
                response = self._get_response(request)
        except (Refused, DatabaseError) as error:
            return response_to(request, problem_of(error) or BUG)
        for name, value in headers.items():
            response.headers[name] = value
        return response

    def process_exception(self, request: HttpRequest, error: Exception) -> HttpResponse | None:
        """A database that is busy or full is no bug, in the admin either; nor is a request that may not be made."""
        problem = problem_of(error) if isinstance(error, DatabaseError | Refused) else None
        return None if problem is None else response_to(request, problem)


def _note(request: HttpRequest) -> None:
    """Say whose request it was, and what of."""
    observation = current_observation.get()
    if observation is None:
        return
    principal: Principal | None = request.principal  # type: ignore[attr-defined]
    if principal is not None:
        observation.key = principal.key_id or principal.name
    if (match := request.resolver_match) is not None:
        observation.route = _pattern(match.route)
        observation.library = str(match.kwargs.get("library_id", observation.library))
    elif request.path_info.startswith("/static/"):
        observation.route = "/static/"


@lru_cache(maxsize=1024)
def _pattern(route: str) -> str:
    """A route as the API's schema has it: `<path:chunk_id>` is `{chunk_id}`."""
    return "/" + re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", route)


def _admit(request: HttpRequest) -> Principal:
    site, origin = request.headers.get("Sec-Fetch-Site", ""), request.headers.get("Origin", "")
    host = request._get_raw_host()  # type: ignore[attr-defined]
    principal = admit(request.method or "", host, site=site, origin=origin)
    authorization, api_key = request.headers.get("Authorization", ""), request.headers.get("X-API-Key", "")
    address = request.META.get("REMOTE_ADDR", "")
    return recognize(principal, request.path_info, address, authorization, api_key, read_rows)


def not_found(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    """Django's handler for a path that leads nowhere."""
    response: HttpResponse = _NotFound.as_view()(request)
    return response


class _NotFound(ApiView):
    """Nothing is here. Go on with:"""

    name = "Not found"
    http_method_names = []

    @property
    def default_response_headers(self) -> dict[str, str]:
        return {"Vary": "Accept"}

    def check_permissions(self, request: Request) -> None:
        """Whoever may ask for a path is told that it leads nowhere."""
        if not is_open(request._request.path_info):
            super().check_permissions(request)

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        super().initial(request)
        hint = f"Try {self.meant} instead." if self.meant else f"{_BASE}/api/docs lists the paths that there are."
        raise Problem("not_found", f"There is nothing at {request.path}. {hint}")

    @cached_property
    def meant(self) -> str | None:
        """The path that the client probably meant."""
        found = meant_path(self.request._request.path_info)
        return None if found is None else f"{_BASE}{found}"

    def links(self) -> dict[str, str]:
        return ({self.meant: self.meant} if self.meant else {}) | {
            "libraries": path_to("libraries"),
            "reference": f"{_BASE}/api/docs",
        }


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Django's handler for a request that it refuses."""
    return response_to(request, problem_of(exception) or Problem("malformed", "The request could not be read."))


def forbidden(request: HttpRequest, exception: Exception | None = None, reason: str = "") -> HttpResponse:
    """Django's handler for what is not allowed, a form without its CSRF token among it."""
    return response_to(request, Problem("forbidden", reason or "That is not allowed."))


def locked_out(request: HttpRequest, *details: Any) -> HttpResponse:
    """The answer to a login with a name that was tried in vain too often, by django-axes."""
    seconds = int(settings.AXES_COOLOFF_TIME.total_seconds())
    detail = f"Too many failed logins with this name from this address. Try again in {seconds // 60} minutes."
    return response_to(request, Problem("too_many_logins", detail, headers={"Retry-After": str(seconds)}))


def server_error(request: HttpRequest) -> HttpResponse:
    """Django's handler for a bug, which Django has logged by then."""
    return response_to(request, BUG)
