"""Django's middleware for people (sessions, CSRF, messages, headers), run for the admin's paths only.

The API needs none of it, and a query should not pay for it.
"""

from collections.abc import Callable
from typing import Any

from django.contrib.auth import middleware as auth
from django.contrib.messages import middleware as messages
from django.contrib.sessions import middleware as sessions
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.middleware import clickjacking, common, csrf, security
from django.utils.deprecation import MiddlewareMixin


class _ForPeople(MiddlewareMixin):
    """Passes a request by unless it is for the admin."""

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        if _is_for_people(request):
            return super().__call__(request)
        return self.get_response(request)

    def process_view(
        self, request: HttpRequest, callback: Callable[..., Any], args: Any, kwargs: Any
    ) -> HttpResponseBase | None:
        inherited = getattr(super(), "process_view", None)
        return inherited(request, callback, args, kwargs) if inherited and _is_for_people(request) else None


def _is_for_people(request: HttpRequest) -> bool:
    return request.path_info.startswith("/admin/")


class SecurityMiddleware(_ForPeople, security.SecurityMiddleware): ...


class SessionMiddleware(_ForPeople, sessions.SessionMiddleware): ...


class CommonMiddleware(_ForPeople, common.CommonMiddleware): ...


class CsrfViewMiddleware(_ForPeople, csrf.CsrfViewMiddleware): ...


class AuthenticationMiddleware(_ForPeople, auth.AuthenticationMiddleware): ...


class MessageMiddleware(_ForPeople, messages.MessageMiddleware): ...


class XFrameOptionsMiddleware(_ForPeople, clickjacking.XFrameOptionsMiddleware): ...
