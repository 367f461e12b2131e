"""Django's middleware for people (sessions, CSRF, messages, headers), run for the admin's paths only.

The API needs none of it; it would cost each of its requests some 70 microseconds.
"""

from collections.abc import Callable
from typing import Any

from django.contrib.auth.middleware import AuthenticationMiddleware
from django.contrib.messages.middleware import MessageMiddleware
from django.contrib.sessions.middleware import SessionMiddleware
from django.http import HttpRequest, HttpResponse
from django.middleware.clickjacking import XFrameOptionsMiddleware
from django.middleware.common import CommonMiddleware
from django.middleware.csrf import CsrfViewMiddleware
from django.middleware.security import SecurityMiddleware


class AdminMiddleware:
    """Runs the chain of Django's middleware for paths below /admin/."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self._get_response = get_response
        inner: Any = XFrameOptionsMiddleware(get_response)
        inner = AuthenticationMiddleware(MessageMiddleware(inner))
        self._csrf = CsrfViewMiddleware(inner)
        self._chain = SecurityMiddleware(SessionMiddleware(CommonMiddleware(self._csrf)))

    def __call__(self, request: HttpRequest) -> Any:
        return self._chain(request) if _is_for_people(request) else self._get_response(request)

    def process_view(self, request: HttpRequest, view: Any, args: Any, kwargs: Any) -> HttpResponse | None:
        """Django asks those in its settings only, so what CSRF does before a view is done here."""
        return self._csrf.process_view(request, view, args, kwargs) if _is_for_people(request) else None


def _is_for_people(request: HttpRequest) -> bool:
    return request.path_info.startswith("/admin/")
