"""Ids: what may be one, what a client may choose, and what is generated where it does not choose.

Documents and chunks have the ids that people have, such as paths and URLs; a library's id is one word. Ids that cannot
be chosen any more stay ids: what has one can be read and deleted.
"""

import os
import re
import time
import uuid
from functools import lru_cache

from apps.libraries.errors import NotFound
from apps.libraries.models import ID_MAX_LENGTH

# Unicode's control characters, and its separators of lines and paragraphs.
_CONTROLS = r"\x00-\x1f\x7f-\x9f\u2028\u2029"
# What comes along unseen when an id is copied: soft hyphen, zero width space, byte order mark, marks of direction.
_UNSEEN = r"\u00ad\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
# These make words in Persian and families in emoji, of what is on both sides of them.
_JOINERS = r"\u200c\u200d"
# Clients and proxies take such a part of a path for a way through folders.
_DOTS = frozenset({".", ".."})


def _pattern(inside: str, ends: str) -> str:
    """The pattern of texts without the characters `inside`, and without `ends` at both ends."""
    return f"^[^{inside}{ends}]([^{inside}]*[^{inside}{ends}])?$"


# \s is Unicode's white space.
PATTERN = _pattern(_CONTROLS, r"\s")
NEW_PATTERN = _pattern(_CONTROLS + _UNSEEN, r"\s" + _JOINERS)
LIBRARY_PATTERN = _pattern(_CONTROLS + r"/\s", "")
NEW_LIBRARY_PATTERN = _pattern(_CONTROLS + r"/\s" + _UNSEEN, _JOINERS)
_PATTERN, _NEW_PATTERN, _LIBRARY_PATTERN = map(re.compile, (PATTERN, NEW_PATTERN, LIBRARY_PATTERN))

RULE = (
    f"must be a string of 1 to {ID_MAX_LENGTH} characters without control characters and without white space at its "
    "ends, and no part between slashes may be '.' or '..'"
)
LIBRARY_RULE = (
    f"must be a string of 1 to {ID_MAX_LENGTH} characters without '/', white space or control characters, "
    "and neither '.' nor '..'"
)
INVISIBLE = "must have no invisible characters, such as a zero width space or a byte order mark"


def is_id(text: str) -> bool:
    """Whether `text` may be the id of a document or a chunk."""
    if len(text) > ID_MAX_LENGTH or _PATTERN.fullmatch(text) is None:
        return False
    return "." not in text or _DOTS.isdisjoint(text.split("/"))


@lru_cache(maxsize=256)
def is_library_id(text: str) -> bool:
    """Whether `text` may be the id of a library."""
    return is_id(text) and _LIBRARY_PATTERN.fullmatch(text) is not None


def check_id(noun: str, text: str) -> None:
    """Raise NotFound for what cannot be the id of a thing of that kind, such as a library."""
    if not (is_library_id(text) if noun == "library" else is_id(text)):
        raise NotFound(f"There is no {noun} {text!r}: that cannot be an id.")


def is_visible(text: str) -> bool:
    """Whether the id `text` may be chosen for something new."""
    return text.isascii() or _NEW_PATTERN.fullmatch(text) is not None


def new_id() -> str:
    """A UUID of version 7 (RFC 9562): random, and in order of time to the millisecond."""
    value = (time.time_ns() // 1_000_000) << 80 | int.from_bytes(os.urandom(10), "big")
    value = value & ~(0xF000 << 64) & ~(0xC000 << 48) | 0x7000 << 64 | 0x8000 << 48
    return str(uuid.UUID(int=value))
