"""Answers that fit into what an agent can read: long values are cut, so that all items are there and short ones whole.

An agent pays for each character, and its program may refuse what is too long. So pages are short, and what they have
is cut to VECTORDB_MAX_TOOL_CHARACTERS characters of JSON.
"""

from collections.abc import Sequence
from typing import Any

import orjson
from django.conf import settings

LIMIT = "VECTORDB_MAX_TOOL_CHARACTERS"
# For what stands around items, such as a note and a cursor.
_FRAME = 1000
_PER_ITEM = 1000
# Items of an answer: each has room for its ids and numbers, and for the beginning of its text.
MAX_ITEMS = max(1, min(50, (settings.LIMITS.tool_characters - _FRAME) // _PER_ITEM))
# The parts of an item that may be cut. All others are short.
_LONG = frozenset({"name", "title", "source", "description", "text", "embed_text", "metadata", "document", "examples"})
_CUT = "…"


def length(value: Any) -> int:
    """The number of characters that `value` has as JSON."""
    return len(orjson.dumps(value).decode())


def fit(items: Sequence[dict[str, Any]], *, text_from: int = 0, spent: int = 0) -> tuple[list[dict[str, Any]], bool]:
    """The items, their long values cut where all together are too long, and whether one was cut; what stands beside
    them has `spent` characters. Where a text goes on, `next_text_from` says; it begins at the character `text_from`."""
    rooms = _share([length(item) for item in items], settings.LIMITS.tool_characters - _FRAME - spent)
    fitted = [_fit_item(item, room, text_from) for item, room in zip(items, rooms, strict=True)]
    return fitted, any(one is not item for one, item in zip(fitted, items, strict=True))


def _fit_item(item: dict[str, Any], room: int, text_from: int) -> dict[str, Any]:
    if length(item) <= room:
        return item
    names = [name for name in item if name in _LONG]
    short = {name: value for name, value in item.items() if name not in _LONG}
    # Beside the values there are their names, and where a text goes on.
    left = room - length(short) - sum(len(name) + 4 for name in names) - len('"next_text_from":1234567,')
    rooms = _share([length(item[name]) for name in names], max(left, 0))
    cut = {name: clip(item[name], room) for name, room in zip(names, rooms, strict=True)}
    if "text" in cut and cut["text"] != item["text"]:
        short["next_text_from"] = text_from + len(cut["text"].removesuffix(_CUT))
    return short | cut


def _share(sizes: Sequence[int], room: int) -> list[int]:
    """What each of several values gets of a room: what it needs, or as much as every other that is too large."""
    shares = [0] * len(sizes)
    order = sorted(range(len(sizes)), key=sizes.__getitem__)
    for others, i in zip(range(len(sizes), 0, -1), order, strict=True):
        shares[i] = min(sizes[i], max(room, 0) // others)
        room -= shares[i]
    return shares


def clip(value: Any, room: int) -> Any:
    """`value`, or as much of its beginning as has some `room` characters as JSON; an ellipsis marks where it is cut."""
    if length(value) <= room:
        return value
    if isinstance(value, str):
        text = value[: max(room - len(f'"{_CUT}"'), 0)]
        while text and length(text + _CUT) > room:
            text = text[: min(len(text) - 1, len(text) * room // length(text))]
        return text + _CUT
    if isinstance(value, dict):
        kept: dict[str, Any] = {}
        for name, item in value.items():
            room -= length(name) + 2
            if room <= 0:
                return kept | {_CUT: f"{len(value) - len(kept)} more"}
            kept[name] = clip(item, room)
            room -= length(kept[name])
        return kept
    if isinstance(value, list):
        some: list[Any] = []
        for item in value:
            if room <= 0:
                return [*some, _CUT]
            some.append(clip(item, room))
            room -= length(some[-1]) + 1
        return some
    return value
