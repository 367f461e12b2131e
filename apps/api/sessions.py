"""The user of a session, as REST framework's pages show it. Who may do what is not decided here."""

from typing import Any

from rest_framework.authentication import BaseAuthentication
from rest_framework.request import Request


class UserOfSession(BaseAuthentication):
    """Tells REST framework who is logged in, where the request was admitted by a session."""

    def authenticate(self, request: Request) -> tuple[Any, None] | None:
        user = getattr(request._request, "user", None)
        return (user, None) if user is not None and user.is_authenticated else None
