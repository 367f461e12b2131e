"""What a principal may do to a library. Every door asks `authorize`; nothing else decides.

Each scope includes those before it in SCOPES. `search` is what search tokens have: queries and counts.
"""

import re
from collections.abc import Iterable
from itertools import product
from typing import Any, Literal, TypeAlias

from django.db.models import Q, QuerySet
from django.db.models.functions import Substr
from django.db.models.lookups import Exact

from apps.access.requests import Principal, Refused
from apps.installation import PROGRAM

Scope: TypeAlias = Literal["search", "read", "write", "admin"]
SCOPES: tuple[Scope, ...] = ("search", "read", "write", "admin")
# Those that include it, by scope.
_INCLUDING = {scope: frozenset(SCOPES[place:]) for place, scope in enumerate(SCOPES)}
# What a key may have.
KEY_SCOPES: tuple[Scope, ...] = ("read", "write", "admin")
# Longer ones name no library.
_PATTERN = re.compile(r"[^\s/*\x00-\x1f\x7f-\x9f\ud800-\udfff]{1,128}\*?|\*")
PATTERN_RULE = "must be the id of a library, or the beginning of ids with an asterisk behind, such as docs-*"

UNKNOWN_CALLER = (
    f"Send an API key in the header Authorization: Bearer <key>, or X-API-Key. `{PROGRAM} create_key` makes one; the "
    "first start of a server has left one in the file admin_key of its data folder. In a browser, log in; a "
    "superuser may do everything, others what their permissions for the API say."
)


def authorize(principal: Principal, scope: Scope, library_id: str | None = None, *, everywhere: bool = False) -> None:
    """Return if the principal may do what needs `scope`: to a library, if it is named; with `everywhere`, to the server
    itself. Raise Refused: `unauthorized` for nobody, `not_found` for a library that it may not see, or `forbidden`.
    """
    if not principal.scopes:
        raise unauthorized(UNKNOWN_CALLER)
    if library_id is not None and not sees(principal, library_id):
        raise Refused("not_found", absent_library(library_id))
    if not has_scope(principal, scope):
        has = "is a search token, for queries and counts only" if principal.is_search_token else _list_scopes(principal)
        raise Refused("forbidden", f"This needs the scope {scope}; what you sent {has}.")
    if everywhere and principal.libraries is not None:
        raise Refused("forbidden", "This needs a key for all libraries; yours is for some.")


def unauthorized(detail: str) -> Refused:
    """Return the error of a request without a credential that is good."""
    return Refused("unauthorized", detail, {"WWW-Authenticate": 'Bearer realm="vectordb"'})


def authorize_new_library(principal: Principal, library_id: str | None) -> None:
    """Return if the principal may make a library with this id, None for a generated one. Raise Refused."""
    if principal.libraries is not None and not (library_id and sees(principal, library_id)):
        names = ", ".join(principal.libraries)
        raise Refused("forbidden", f"This key may make libraries with these ids only: {names}. Send such an id.")


def has_scope(principal: Principal, scope: Scope) -> bool:
    """Whether one of the principal's scopes includes `scope`."""
    return not principal.scopes.isdisjoint(_INCLUDING[scope])


def sees(principal: Principal, library_id: str) -> bool:
    """Whether the principal may see a library of this id, if there is one."""
    return principal.libraries is None or any(matches(pattern, library_id) for pattern in principal.libraries)


def matches(pattern: str, library_id: str) -> bool:
    """Whether `library_id` is the pattern, or begins with what it has before an asterisk."""
    return library_id.startswith(pattern[:-1]) if pattern.endswith("*") else library_id == pattern


def common(some: Iterable[str], others: Iterable[str]) -> tuple[str, ...]:
    """Return patterns for the ids that match both a pattern of `some` and one of `others`."""
    found = [_intersection(one, other) for one, other in product(some, others)]
    return tuple(pattern for pattern in dict.fromkeys(found) if pattern is not None)


def _intersection(one: str, other: str) -> str | None:
    if not one.endswith("*"):
        return one if matches(other, one) else None
    if not other.endswith("*"):
        return other if matches(one, other) else None
    longer, shorter = sorted((one, other), key=len, reverse=True)
    return longer if longer.startswith(shorter[:-1]) else None


def check_pattern(pattern: str) -> str:
    """Return the pattern. Raise ValueError for another text; its message goes on from the name of a field."""
    if not _PATTERN.fullmatch(pattern):
        raise ValueError(PATTERN_RULE)
    return pattern


def visible(rows: QuerySet[Any], principal: Principal, column: str = "public_id") -> QuerySet[Any]:
    """Return the libraries among `rows` that the principal may see; or the rows whose `column` names such a library."""
    if principal.libraries is None:
        return rows
    condition = Q(pk__in=[])
    for pattern in principal.libraries:
        if pattern.endswith("*"):
            # SQLite's LIKE, which `startswith` becomes, is the same for upper and lower case.
            condition |= _begins(column, pattern[:-1])
        else:
            condition |= Q((column, pattern))
    return rows.filter(condition)


def _begins(column: str, prefix: str) -> Q:
    return Q(Exact(Substr(column, 1, len(prefix)), prefix)) if prefix else Q(pk__isnull=False)


def absent_library(library_id: str) -> str:
    """Return what is said of a library that does not exist, or that whoever asks may not see."""
    return f"There is no library {library_id!r}. POST /api/v1/libraries makes one."


def _list_scopes(principal: Principal) -> str:
    return f"has {' and '.join(scope for scope in SCOPES if scope in principal.scopes)}"
