"""Conditions on texts, which are in no column: they are decided by the texts themselves, of as few rows as may be."""

from collections.abc import Callable

from apps.engine.metadata.filters import (
    And,
    Between,
    Condition,
    Contains,
    ContainsFolded,
    Filter,
    Not,
    OneOf,
    Or,
    conditions,
)
from apps.engine.metadata.paths import TEXT
from apps.engine.metadata.values import STRING, key_of

_EVERYTHING = And(())
_NOTHING = Not(_EVERYTHING)


def text_conditions(filter: Filter) -> list[Condition]:
    """The conditions on texts in a filter, each once."""
    return list(dict.fromkeys(condition for condition in conditions(filter) if condition.path == TEXT))


def bounds(filter: Filter) -> tuple[Filter, Filter]:
    """Two filters without conditions on texts: what matches the first matches `filter` whatever the texts are, and what
    does not match the second does not. Only what is between needs its text read."""

    def decide(is_upper: bool) -> Filter:
        return _replace(filter, lambda _, positive: _EVERYTHING if positive == is_upper else _NOTHING)

    return decide(False), decide(True)


def replace_text_conditions(filter: Filter, replacement: Callable[[Condition], Filter]) -> Filter:
    """`filter` with others in the place of its conditions on texts."""
    return _replace(filter, lambda condition, _: replacement(condition))


def _replace(filter: Filter, change: Callable[[Condition, bool], Filter], positive: bool = True) -> Filter:
    """`change` is told whether a condition is negated an even number of times."""
    match filter:
        case And(parts):
            return And(tuple(_replace(part, change, positive) for part in parts))
        case Or(parts):
            return Or(tuple(_replace(part, change, positive) for part in parts))
        case Not(part):
            return Not(_replace(part, change, not positive))
        case Condition() if filter.path == TEXT:
            return change(filter, positive)
    return filter


def text_test(condition: Condition) -> Callable[[str], bool]:
    """What tells whether a text matches a condition on it."""
    match condition:
        case OneOf(_, keys):
            return lambda text: key_of(text) in keys
        case Between(_, low, high):
            return lambda text: low <= key_of(text) < high
        case Contains() if not condition.is_substring:
            return lambda _: False
        case Contains(_, key):
            part = key[len(STRING) :].decode()
            return lambda text: part in text
        case ContainsFolded(_, folded):
            return lambda text: folded in text.casefold()
    raise TypeError(f"{condition!r} is no condition on texts")
