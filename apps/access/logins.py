"""Against guessing passwords over many names: what an address has had refused is counted, passwords and keys together.

django-axes counts the failures of a name from an address. A hash of a password takes half a second of a processor,
whether there is such a user or not, so the count is looked at before.
"""

from typing import Any

from django.contrib.auth.signals import user_login_failed
from django.http import HttpRequest

from apps.access.limits import check_failed_logins, note_failed_login


class LoginLimit:
    """The first authentication backend: recognizes nobody, and keeps the others from an address that has had too many
    passwords or keys refused."""

    def authenticate(self, request: HttpRequest | None, **_: Any) -> None:
        """Let the next backend look at what was typed. Raise Refused."""
        if request is not None:
            check_failed_logins(_address_of(request))


def connect() -> None:
    """Connect the receiver; called once, when the apps are ready."""
    user_login_failed.connect(_after_failure)


def _after_failure(request: HttpRequest | None = None, **_: Any) -> None:
    if request is not None:
        note_failed_login(_address_of(request))


def _address_of(request: HttpRequest) -> str:
    return str(request.META.get("REMOTE_ADDR", ""))
