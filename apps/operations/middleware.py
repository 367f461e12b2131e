"""Django's middleware for people (sessions, CSRF, messages, headers), run for the admin's paths only.

The API needs none of it, and a query should not pay for it.
"""

from typing import Any

from django.contrib.auth import middleware as auth
from django.contrib.messages import middleware as messages
from django.contrib.sessions import middleware as sessions
from django.http import HttpRequest
from django.middleware import clickjacking, common, csrf, security
from django.utils.deprecation import MiddlewareMixin


def _is_for_people(request: HttpRequest) -> bool:
    return request.path_info.startswith("/admin/")


class _ForPeople(MiddlewareMixin):
    """Passes a request by unless it is for the admin."""

    def __call__(self, request: HttpRequest) -> Any:
        return super().__call__(request) if _is_for_people(request) else self.get_response(request)


class SecurityMiddleware(_ForPeople, security.SecurityMiddleware):
    """As Django's, for the admin."""


class SessionMiddleware(_ForPeople, sessions.SessionMiddleware):
    """As Django's, for the admin."""


class CommonMiddleware(_ForPeople, common.CommonMiddleware):
    """As Django's, for the admin."""


class CsrfViewMiddleware(_ForPeople, csrf.CsrfViewMiddleware):
    """As Django's, for the admin."""

    def process_view(self, request: HttpRequest, callback: Any, callback_args: Any, callback_kwargs: Any) -> Any:
        if _is_for_people(request):
            return super().process_view(request, callback, callback_args, callback_kwargs)
        return None


class AuthenticationMiddleware(_ForPeople, auth.AuthenticationMiddleware):
    """As Django's, for the admin."""


class MessageMiddleware(_ForPeople, messages.MessageMiddleware):
    """As Django's, for the admin."""


class XFrameOptionsMiddleware(_ForPeople, clickjacking.XFrameOptionsMiddleware):
    """As Django's, for the admin."""
