"""Django's middleware for people (sessions, CSRF, messages, headers): for the admin's pages, the login, and requests
that have a session and nothing better to say who asks.

Programs have keys and need none of it; it would cost each of their requests some 70 microseconds.
"""

from collections.abc import Callable
from typing import Any

from axes.middleware import AxesMiddleware
from django.conf import settings
from django.contrib.auth.middleware import AuthenticationMiddleware
from django.contrib.messages.middleware import MessageMiddleware
from django.contrib.sessions.middleware import SessionMiddleware
from django.http import HttpRequest, HttpResponse
from django.middleware.clickjacking import XFrameOptionsMiddleware
from django.middleware.common import CommonMiddleware
from django.middleware.csrf import CsrfViewMiddleware
from django.middleware.security import SecurityMiddleware

from apps.access.requests import NOBODY, current_principal
from apps.access.users import principal_of_user

_PAGES = ("/admin/", "/api/login", "/api/logout")


class PeopleMiddleware:
    """Runs the chain of Django's middleware for people."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self._get_response = get_response
        inner: Any = XFrameOptionsMiddleware(self._introduce)
        inner = AuthenticationMiddleware(MessageMiddleware(AxesMiddleware(inner)))
        self._csrf = CsrfViewMiddleware(inner)
        self._chain = SecurityMiddleware(SessionMiddleware(CommonMiddleware(self._csrf)))

    def __call__(self, request: HttpRequest) -> Any:
        return self._chain(request) if _is_for_people(request) else self._get_response(request)

    def _introduce(self, request: HttpRequest) -> HttpResponse:
        """Say who is logged in. In the admin that is the user, also where nobody needs a key."""
        principal = principal_of_user(request.user)
        if principal is not NOBODY:
            request.principal = principal  # type: ignore[attr-defined]
            current_principal.set(principal)
        return self._get_response(request)

    def process_view(self, request: HttpRequest, view: Any, args: Any, kwargs: Any) -> HttpResponse | None:
        """Django asks those in its settings only, so what CSRF does before a view is done here. The API's views, which
        are exempt, are protected too: a browser sends a session's cookie by itself."""
        if request.path_info.startswith(_PAGES):
            return self._csrf.process_view(request, view, args, kwargs)
        if _is_for_people(request) and request.principal is not NOBODY:  # type: ignore[attr-defined]
            return self._csrf.process_view(request, _protected, args, kwargs)
        return None


def _protected() -> Any:
    """Any view that is not exempt from CSRF."""


def _is_for_people(request: HttpRequest) -> bool:
    if request.path_info.startswith(_PAGES):
        return True
    known: bool | None = getattr(request, "has_session", None)
    if known is None:
        known = request.principal is NOBODY and settings.SESSION_COOKIE_NAME in request.COOKIES  # type: ignore[attr-defined]
        request.has_session = known  # type: ignore[attr-defined]
    return known
