"""People: users of Django's, who log in, have a session, and may what their permissions say."""

from typing import Any

from apps.access.authorization import KEY_SCOPES
from apps.access.requests import NOBODY, Principal


def principal_of_user(user: Any) -> Principal:
    """Return the principal that a user is: with the scopes of the permissions `access.scope_read`, `access.scope_write`
    and `access.scope_admin`, its own or its groups'. A superuser has all."""
    if not user.is_authenticated or not user.is_active:
        return NOBODY
    return Principal(user.get_username(), frozenset(one for one in KEY_SCOPES if user.has_perm(f"access.scope_{one}")))
