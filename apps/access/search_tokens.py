"""Search tokens: what a key's owner hands to a browser. They let it query and count, under a filter, for a day at most.

Nothing is stored. The claims are in the token, signed by a secret that the server makes of its SECRET_KEY and the hash
of the key's secret: so a token dies with its key, and with the secret that the key had when it was made.
"""

import base64
import hashlib
import hmac
from functools import lru_cache
from typing import Any, NamedTuple

import orjson
from django.conf import settings

from apps.engine.errors import InvalidFilter
from apps.engine.metadata.filters import Filter, parse_filter

MAX_SECONDS = 24 * 3600
# A header has room for 8,190 bytes, and proxies give it less.
MAX_CLAIMS_BYTES = 3000


class Claims(NamedTuple):
    """What a token allows: queries and counts in `libraries`, of what matches `filter`, showing no more than `include`,
    until `ends_at`, in seconds since the epoch. None is all."""

    libraries: tuple[str, ...]
    filter: Filter | None
    include: tuple[str, ...] | None
    ends_at: float


def encode_claims(
    libraries: tuple[str, ...], filter: dict[str, Any] | None, include: tuple[str, ...] | None, ends_at: float
) -> str | None:
    """Return the claims as a token has them; `filter` as JSON. None if they are too long for one."""
    claims = orjson.dumps({"libraries": libraries, "filter": filter, "include": include, "ends_at": ends_at})
    return _base64(claims) if len(claims) <= MAX_CLAIMS_BYTES else None


# Only what was signed comes here, and parsing has no other input: a cached result is never stale.
@lru_cache(maxsize=1024)
def decode_claims(text: str) -> Claims | None:
    """Return the claims of a token whose signature is right; None where another version made it whose filters are not
    understood."""
    claims = orjson.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    include = claims["include"]
    try:
        filter = None if claims["filter"] is None else parse_filter(claims["filter"])
    except InvalidFilter:
        return None
    return Claims(
        tuple(claims["libraries"]),
        filter,
        None if include is None else tuple(include),
        claims["ends_at"],
    )


def sign(claims: str, secret_hash: str) -> str:
    """Return the signature of claims under the secret of a key, of which this is the hash."""
    secret = hmac.digest(str(settings.SECRET_KEY).encode(), b"search token:" + secret_hash.encode(), hashlib.sha256)
    return _base64(hmac.digest(secret, claims.encode(), hashlib.sha256))


def _base64(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).decode().rstrip("=")
