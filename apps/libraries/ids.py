"""Ids: what a client may choose, and what is generated where it does not choose."""

import os
import re
import time
import uuid

from apps.libraries.models import ID_MAX_LENGTH

# \s is Unicode's white space; the ranges are Unicode's control characters.
_PATTERN = re.compile(rf"(?!\.{{1,2}}$)[^/\s\x00-\x1f\x7f-\x9f]{{1,{ID_MAX_LENGTH}}}")

RULE = (
    f"must be a string of 1 to {ID_MAX_LENGTH} characters without '/', white space or control characters, "
    "and neither '.' nor '..'"
)


def is_id(text: str) -> bool:
    """Whether `text` may be an id."""
    return _PATTERN.fullmatch(text) is not None


def new_id() -> str:
    """A UUID of version 7 (RFC 9562): random, and in order of time to the millisecond."""
    value = (time.time_ns() // 1_000_000) << 80 | int.from_bytes(os.urandom(10), "big")
    value = value & ~(0xF000 << 64) & ~(0xC000 << 48) | 0x7000 << 64 | 0x8000 << 48
    return str(uuid.UUID(int=value))
