"""Where in a body that is no JSON the characters are that make it none."""

import codecs
import json
import re
from collections.abc import Iterator
from itertools import islice
from typing import Any

from apps.api.errors import MAX_ERRORS, Problem
from apps.libraries.errors import Fault, Invalid, pointer

_MARKS = {
    codecs.BOM_UTF8: "a byte order mark (BOM)",
    codecs.BOM_UTF16_LE: "the byte order mark (BOM) of UTF-16",
    codecs.BOM_UTF16_BE: "the byte order mark (BOM) of UTF-16",
}
# A larger body, its vectors aside, is not looked into: that takes memory, some 30 bytes for each of its bytes.
_MAX_BYTES = 1 << 21
_HALF = re.compile("[\ud800-\udfff]")

_Path = tuple[str | int, ...]


def problem_of_characters(body: bytes) -> Exception | None:
    """What to say of `body`, which is no JSON; None where its characters are not the reason."""
    for mark, name in _MARKS.items():
        if body.startswith(mark):
            return Problem("malformed", f"The body is not valid JSON: it begins with {name}; send UTF-8 without one.")
    if len(body) > _MAX_BYTES:
        return None
    # Bytes that are no UTF-8 become halves of surrogate pairs, which Python's own parser lets through.
    text = body.decode("utf-8", "surrogateescape")
    is_utf8 = _HALF.search(text) is None
    what = "half of a surrogate pair, which is no character" if is_utf8 else "bytes that are not UTF-8"
    try:
        faults = list(islice(_faults(json.loads(text), what), MAX_ERRORS))
    except (ValueError, RecursionError):
        return None
    if not faults:
        return None
    if is_utf8:
        return Invalid("The body has a character that cannot be stored.", faults)
    return Problem(
        "malformed", f"The body is not valid JSON: {faults[0].pointer or 'it'} {faults[0].detail}.", tuple(faults)
    )


def _faults(value: Any, what: str, path: _Path = ()) -> Iterator[Fault]:
    if isinstance(value, str) and _HALF.search(value):
        yield Fault(pointer(path), f"must not contain {what}")
    elif isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            if isinstance(key, str) and _HALF.search(key):
                yield Fault(pointer(path), f"must not have a key that contains {what}")
            elif isinstance(item, str | dict | list):
                yield from _faults(item, what, (*path, key))
