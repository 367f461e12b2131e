"""A sample of keys that is the same however often the reading of them is cut off."""

import hashlib
from collections.abc import Iterable


def smallest(keys: Iterable[str], count: int) -> list[str]:
    """Return the `count` keys whose digests are the smallest: a sample of all keys is that of the samples of parts."""
    return sorted(set(keys), key=_digest)[:count]


def _digest(key: str) -> bytes:
    return hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8).digest()
