"""Filters as JSON, to be evaluated in another process: the tree itself, since the JSON of a request is not kept.

A node is a list of its name and what it holds; keys of values are base64.
"""

from base64 import b64decode, b64encode
from typing import Any

import numpy as np

from apps.engine.metadata.filters import (
    And,
    Between,
    Contains,
    ContainsFolded,
    Filter,
    HasKey,
    HasMember,
    Not,
    OneOf,
    Or,
)


def dump_filter(filter: Filter) -> list[Any]:
    """JSON of which `load_filter` makes an equal filter."""
    match filter:
        case And(parts):
            return ["and", *map(dump_filter, parts)]
        case Or(parts):
            return ["or", *map(dump_filter, parts)]
        case Not(part):
            return ["not", dump_filter(part)]
        case HasKey(keys):
            return ["keys", *keys.tolist()]
        case OneOf(path, values):
            return ["one_of", path, *map(_text, values)]
        case Between(path, low, high):
            return ["between", path, _text(low), _text(high)]
        case HasMember(path, key):
            return ["member", path, _text(key)]
        case Contains(path, key):
            return ["contains", path, _text(key)]
        case ContainsFolded(path, text):
            return ["contains_folded", path, text]
    raise TypeError(f"{type(filter).__name__} is no node of a filter")


def load_filter(raw: list[Any]) -> Filter:
    """The filter of `dump_filter`. Raises ValueError, KeyError or TypeError for other JSON."""
    match raw:
        case ["and", *parts]:
            return And(tuple(map(load_filter, parts)))
        case ["or", *parts]:
            return Or(tuple(map(load_filter, parts)))
        case ["not", part]:
            return Not(load_filter(part))
        case ["keys", *keys]:
            return HasKey(np.array(keys, np.int64))
        case ["one_of", str(path), *values]:
            return OneOf(path, tuple(map(b64decode, values)))
        case ["between", str(path), str(low), str(high)]:
            return Between(path, b64decode(low), b64decode(high))
        case ["member", str(path), str(key)]:
            return HasMember(path, b64decode(key))
        case ["contains", str(path), str(key)]:
            return Contains(path, b64decode(key))
        case ["contains_folded", str(path), str(text)]:
            return ContainsFolded(path, text)
    raise ValueError("that is no filter")


def _text(key: bytes) -> str:
    return b64encode(key).decode()
