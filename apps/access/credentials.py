"""What a client sends to say who it is: a key or a search token.

A key is `vdb_<id>_<secret><checksum>`: 12 letters and digits that name the key, 32 that are secret, and 6 that are a
CRC-32 of all before, in base 62. So a scanner of secrets knows a key when it sees one, and a key that was mistyped or
cut off is refused without a look at the database. A search token is `vst_<id of its key>_<claims>.<signature>`, both
parts in base64.
"""

import hashlib
import re
import secrets
import string
import zlib
from functools import lru_cache
from typing import NamedTuple

_DIGITS = string.digits + string.ascii_uppercase + string.ascii_lowercase
_ID_LENGTH, _SECRET_LENGTH, _CHECKSUM_LENGTH = 12, 32, 6
_KEY = re.compile(rf"vdb_([0-9A-Za-z]{{{_ID_LENGTH}}})_[0-9A-Za-z]{{{_SECRET_LENGTH + _CHECKSUM_LENGTH}}}")
_TOKEN = re.compile(rf"vst_([0-9A-Za-z]{{{_ID_LENGTH}}})_([0-9A-Za-z_-]+)\.([0-9A-Za-z_-]{{43}})")
_SCHEME = "bearer "


class PresentedKey(NamedTuple):
    """A key of the right form: its id, and the SHA-256 of all of it, in hexadecimal."""

    key_id: str
    hash: str


class PresentedToken(NamedTuple):
    """A search token of the right form; claims and signature are in base64."""

    key_id: str
    claims: str
    signature: str


def new_key_id() -> str:
    """Return a random id of a key."""
    return _random(_ID_LENGTH)


def new_key(key_id: str) -> str:
    """Return a new key with this id."""
    body = f"vdb_{key_id}_{_random(_SECRET_LENGTH)}"
    return body + _checksum(body)


def hash_key(key: str) -> str:
    """Return what is stored of a key. Its secret is random, so a quick hash without a salt is enough."""
    return hashlib.sha256(key.encode()).hexdigest()


def presented(authorization: str, api_key: str) -> str:
    """Return what the headers Authorization and X-API-Key present; the latter where the former is of another scheme."""
    if authorization[: len(_SCHEME)].lower() == _SCHEME:
        return authorization[len(_SCHEME) :].strip()
    return api_key.strip()


@lru_cache(maxsize=256)
def parse(credential: str) -> PresentedKey | PresentedToken | None:
    """Return the parts of a key or of a search token; None for anything else, and for a key with a wrong checksum."""
    if found := _KEY.fullmatch(credential):
        body, checksum = credential[:-_CHECKSUM_LENGTH], credential[-_CHECKSUM_LENGTH:]
        return PresentedKey(found[1], hash_key(credential)) if _checksum(body) == checksum else None
    if found := _TOKEN.fullmatch(credential):
        return PresentedToken(found[1], found[2], found[3])
    return None


def _random(length: int) -> str:
    return "".join(secrets.choice(_DIGITS) for _ in range(length))


def _checksum(text: str) -> str:
    number, digits = zlib.crc32(text.encode()), ""
    for _ in range(_CHECKSUM_LENGTH):
        number, digit = divmod(number, len(_DIGITS))
        digits = _DIGITS[digit] + digits
    return digits
