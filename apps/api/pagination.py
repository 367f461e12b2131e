"""Keyset pagination: `?limit=` and `?cursor=`; a cursor is opaque, and stays valid whatever is written meanwhile."""

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from django.http import QueryDict

from apps.libraries.errors import Fault, Invalid, pointer
from apps.libraries.selectors import Page

PARAMETERS = ("limit", "cursor")
DEFAULT_LIMIT = 50
MAX_LIMIT = 500


@dataclass(frozen=True)
class PageRequest:
    """How many items of a list are wanted, after which key."""

    limit: int
    after: int


def page_request(query: Mapping[str, str]) -> PageRequest:
    """The page that query parameters ask for; raises Invalid for one that cannot be used."""
    text = query.get("limit", str(DEFAULT_LIMIT))
    if not (text.isascii() and text.isdigit() and len(text) <= 10 and 1 <= int(text) <= MAX_LIMIT):
        raise Invalid.at("/limit", f"must be a whole number from 1 to {MAX_LIMIT}")
    return PageRequest(int(text), _key(query["cursor"]) if "cursor" in query else 0)


def check_parameters(query: QueryDict, *known: str) -> None:
    """Raise Invalid for query parameters other than those `known`, and `format`, which chooses the renderer, and for
    one that comes twice."""
    unknown = [
        Fault(pointer([name]), "is not a query parameter here") for name in query if name not in (*known, "format")
    ]
    if unknown:
        raise Invalid("A query parameter is not known.", unknown)
    repeated = [Fault(pointer([name]), "must be given once") for name in query if len(query.getlist(name)) > 1]
    if repeated:
        raise Invalid("A query parameter comes twice.", repeated)


def page_data(page: Page) -> dict[str, Any]:
    """A page as the API shows it."""
    return {"items": page.items, "next_cursor": None if page.next_key is None else _cursor(page.next_key)}


def _cursor(key: int) -> str:
    return base64.urlsafe_b64encode(f"after:{key}".encode()).decode().rstrip("=")


def _key(cursor: str) -> int:
    try:
        name, _, key = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode("ascii").partition(":")
    except (ValueError, binascii.Error):
        name, key = "", ""
    if name != "after" or not key.isdigit() or len(key) > 18:
        raise Invalid.at("/cursor", "is not a cursor of this server; send the next_cursor of the page before")
    return int(key)
