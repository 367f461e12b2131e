"""Ids: what may be one, what a client may choose, and what is generated where it does not choose.

Ids that cannot be chosen any more stay ids: what has one can be read and deleted.
"""

import os
import re
import time
import uuid

from apps.libraries.models import ID_MAX_LENGTH

# \s is Unicode's white space; the ranges are Unicode's control characters.
_NEVER = r"/\s\x00-\x1f\x7f-\x9f"
_PATTERN = re.compile(rf"(?!\.{{1,2}}$)[^{_NEVER}]{{1,{ID_MAX_LENGTH}}}")
# What comes along unseen when an id is copied: soft hyphen, zero width space, byte order mark, marks of direction.
_UNSEEN = r"\u00ad\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
# These make words in Persian and families in emoji, of what is on both sides of them.
_JOINERS = r"\u200c\u200d"

PATTERN = rf"^[^{_NEVER}]+$"
NEW_PATTERN = rf"^[^{_NEVER}{_UNSEEN}{_JOINERS}]([^{_NEVER}{_UNSEEN}]*[^{_NEVER}{_UNSEEN}{_JOINERS}])?$"
_NEW_PATTERN = re.compile(NEW_PATTERN)

RULE = (
    f"must be a string of 1 to {ID_MAX_LENGTH} characters without '/', white space or control characters, "
    "and neither '.' nor '..'"
)
INVISIBLE = "must have no invisible characters, such as a zero width space or a byte order mark"


def is_id(text: str) -> bool:
    """Whether `text` may be an id."""
    return _PATTERN.fullmatch(text) is not None


def is_visible(text: str) -> bool:
    """Whether the id `text` may be chosen for something new."""
    return text.isascii() or _NEW_PATTERN.fullmatch(text) is not None


def new_id() -> str:
    """A UUID of version 7 (RFC 9562): random, and in order of time to the millisecond."""
    value = (time.time_ns() // 1_000_000) << 80 | int.from_bytes(os.urandom(10), "big")
    value = value & ~(0xF000 << 64) & ~(0xC000 << 48) | 0x7000 << 64 | 0x8000 << 48
    return str(uuid.UUID(int=value))
