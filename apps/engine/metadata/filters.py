"""The filter language: JSON, already parsed, to a small tree that `Columns.mask` evaluates.

An operator is one entry of OPERATORS: how its operand is read, and which tree it makes. The tree has fewer kinds of
nodes than the language has operators: `$ne`, `$nin` and `$exists: false` are a `Not`, `$eq` is a `OneOf` of one value,
comparisons, `$prefix` and `$exists` are a `Between`. Nodes hold the keys of operands (`values.py`); an operand of
`@created_at` is a number, its microseconds since the epoch, UTC.

Parsing costs time by the size of the JSON, stops at the limits below, and recurses no deeper than they allow.
"""

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias

from apps.engine.errors import InvalidFilter
from apps.engine.metadata.values import LAST, MAX_DEPTH, STRING, Scalar, key_of, scalar_of

# $and, $or and $not within each other nest no deeper than MAX_DEPTH either.
MAX_CONDITIONS = 1_000  # in a filter; `{}` counts as one
MAX_SUBSTRINGS = 50  # $contains of strings in a filter: each reads all strings of its field
MAX_IN_VALUES = 10_000  # in one $in or $nin
MAX_VALUES = 100_000  # in all operands of a filter, members of arrays included

ID, DOCUMENT_ID, CREATED_AT = "@id", "@document_id", "@created_at"
OWN_FIELDS = (ID, DOCUMENT_ID, CREATED_AT)

Operand: TypeAlias = "Scalar | tuple[Operand, ...]"
Path: TypeAlias = tuple[str | int, ...]

_TIME = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:[0-9]{2})(?:\.([0-9]+))?(?:[Zz]|([+-][0-9]{2}):([0-9]{2}))"
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Filter:
    """Any node of the tree."""

    @property
    def is_everything(self) -> bool:
        """Whether the filter has no condition, as `{}`; it then matches all rows."""
        return False


@dataclass(frozen=True)
class And(Filter):
    """All of `parts` match; without parts, everything does."""

    parts: tuple[Filter, ...]

    @property
    def is_everything(self) -> bool:
        return all(part.is_everything for part in self.parts)


@dataclass(frozen=True)
class Or(Filter):
    """At least one of `parts`, which are not empty, matches."""

    parts: tuple[Filter, ...]

    @property
    def is_everything(self) -> bool:
        return any(part.is_everything for part in self.parts)


@dataclass(frozen=True)
class Not(Filter):
    """`part` does not match."""

    part: Filter


@dataclass(frozen=True)
class Condition(Filter):
    """What the value at `path` must be."""

    path: str


@dataclass(frozen=True)
class OneOf(Condition):
    """The value at `path`, or a member of it if it is an array, has one of `keys`."""

    keys: tuple[bytes, ...]


@dataclass(frozen=True)
class Between(Condition):
    """The value at `path` has a key from `low` up to `high`, which is not included."""

    low: bytes
    high: bytes


@dataclass(frozen=True)
class Contains(Condition):
    """The value at `path` is a string that has the string of `key` in it, or an array that has the scalar of `key`."""

    key: bytes

    @property
    def is_substring(self) -> bool:
        """Whether all strings of the field are read for it."""
        return self.key.startswith(STRING)


def conditions(filter: Filter) -> Iterator[Condition]:
    """What a filter combines."""
    match filter:
        case And(parts) | Or(parts):
            for part in parts:
                yield from conditions(part)
        case Not(part):
            yield from conditions(part)
        case Condition():
            yield filter


def parse_filter(raw: object) -> Filter:
    """The filter that `raw`, parsed JSON, stands for; raises InvalidFilter for what is none."""
    return _Parser().filter(raw, (), 0)


def parse_time(text: str) -> int:
    """The microseconds since the epoch of an RFC 3339 text with offset; raises InvalidFilter for another."""
    microseconds = scalar_of(_Parser().time_key(text, ()))
    assert isinstance(microseconds, int)
    return microseconds


class _Parser:
    """Reads one filter and counts what it holds. Methods take a piece of it and the path that leads there."""

    def __init__(self) -> None:
        self._conditions = 0
        self._substrings = 0
        self._values = 0

    def filter(self, raw: object, at: Path, depth: int) -> Filter:
        """`depth` is the number of $and, $or and $not around this filter."""
        if not isinstance(raw, dict):
            raise InvalidFilter(at, 'must be a filter, which is an object such as {"field": value}')
        if not raw:
            self._count_condition(at)
        parts: list[Filter] = []
        for key, value in raw.items():
            if key in _COMBINED:
                parts.append(self._combine(key, value, (*at, key), depth + 1))
            else:
                parts.extend(self._read_field(key, value, (*at, key)))
        return parts[0] if len(parts) == 1 else And(tuple(parts))

    def _combine(self, key: str, raw: object, at: Path, depth: int) -> Filter:
        if depth > MAX_DEPTH:
            raise InvalidFilter(at, f"nests deeper than {MAX_DEPTH}; use fewer $and, $or and $not within each other")
        if key == "$not":
            return Not(self.filter(raw, at, depth))
        if not isinstance(raw, list) or not raw:
            raise InvalidFilter(at, "takes a non-empty list of filters")
        parts = tuple(self.filter(one, (*at, i), depth) for i, one in enumerate(raw))
        return And(parts) if key == "$and" else Or(parts)

    def _read_field(self, name: object, raw: object, at: Path) -> list[Filter]:
        """The conditions on one field."""
        if not isinstance(name, str) or not _is_unicode(name):
            raise InvalidFilter(at[:-1], "has a key that is not Unicode text")
        if name.startswith("$"):
            if name in OPERATORS:
                raise InvalidFilter(at, f'belongs to a field, as in {{"field": {{"{name}": ...}}}}')
            raise InvalidFilter(at, f"is not an operator; here there are {', '.join(_COMBINED)}")
        if name.startswith("@") and name not in OWN_FIELDS:
            raise InvalidFilter(at, f"is not a field of a chunk; there are {', '.join(OWN_FIELDS)}")
        if not isinstance(raw, dict):
            return [self._read_condition(name, OPERATORS["$eq"], raw, at)]
        if not raw:
            raise InvalidFilter(at, 'takes a value or operators such as {"$eq": value}, not an empty object')
        found = []
        for key, operand in raw.items():
            if not isinstance(key, str) or not _is_unicode(key):
                raise InvalidFilter(at, "has a key that is not Unicode text")
            if key in _COMBINED:
                raise InvalidFilter((*at, key), f'combines filters, as in {{"{key}": ...}}, not within a field')
            if key not in OPERATORS:
                known = ", ".join(OPERATORS)
                raise InvalidFilter((*at, key), f"is not an operator; there are {known}, and a.b reaches into objects")
            found.append(self._read_condition(name, OPERATORS[key], operand, (*at, key)))
        return found

    def _read_condition(self, name: str, operator: "Operator", raw: object, at: Path) -> Filter:
        self._count_condition(at)
        read = operator.read_time if name == CREATED_AT else operator.read
        if read is None:
            raise InvalidFilter(at, f"is not for times; {CREATED_AT} is compared by the other operators")
        return operator.make(name, read(self, raw, at))

    def _count_condition(self, at: Path) -> None:
        self._conditions += 1
        if self._conditions > MAX_CONDITIONS:
            raise InvalidFilter(at, f"is one condition too many; a filter has at most {MAX_CONDITIONS}")

    def _count_value(self, at: Path) -> None:
        self._values += 1
        if self._values > MAX_VALUES:
            raise InvalidFilter(at, f"is one value too many; a filter has at most {MAX_VALUES}")

    def value(self, raw: object, at: Path, depth: int = 0) -> Operand:
        """An operand of any type but object."""
        self._count_value(at)
        if not isinstance(raw, list):
            return self.scalar(raw, at, "takes a string, a number, true, false, null or an array of such")
        if depth == MAX_DEPTH:
            raise InvalidFilter(at, f"nests deeper than {MAX_DEPTH}; use fewer arrays within each other")
        return tuple(self.value(one, (*at, i), depth + 1) for i, one in enumerate(raw))

    def scalar(self, raw: object, at: Path, takes: str = "takes a string, a number, true, false or null") -> Scalar:
        if raw is None or isinstance(raw, bool):
            return raw
        if isinstance(raw, str):
            if not _is_unicode(raw):
                raise InvalidFilter(at, "is not Unicode text: half of a surrogate pair is missing")
            return raw
        if isinstance(raw, int):
            if not -(2**63) <= raw < 2**64:
                raise InvalidFilter(at, "is an integer beyond 64 bits; give it as a floating-point number")
            return raw
        if isinstance(raw, float):
            if not math.isfinite(raw):
                raise InvalidFilter(at, "is NaN or infinite; takes finite numbers only")
            return raw
        raise InvalidFilter(at, f"{takes}; a.b reaches into objects" if isinstance(raw, dict) else takes)

    def part_key(self, raw: object, at: Path) -> bytes:
        """The key of what a string or an array may contain."""
        if isinstance(raw, str):
            self._substrings += 1
            if self._substrings > MAX_SUBSTRINGS:
                raise InvalidFilter(at, f"is one substring too many; a filter has at most {MAX_SUBSTRINGS}")
        return key_of(self.scalar(raw, at))

    def key(self, raw: object, at: Path) -> bytes:
        return key_of(self.value(raw, at))

    def keys(self, raw: object, at: Path) -> tuple[bytes, ...]:
        return tuple(self.key(one, (*at, i)) for i, one in enumerate(self._list(raw, at)))

    def ordered_key(self, raw: object, at: Path) -> bytes:
        if isinstance(raw, bool) or not isinstance(raw, int | float | str):
            raise InvalidFilter(at, "takes a number or a string")
        return key_of(self.scalar(raw, at))

    def string_key(self, raw: object, at: Path) -> bytes:
        if not isinstance(raw, str):
            raise InvalidFilter(at, "takes a string")
        return key_of(self.scalar(raw, at))

    def flag(self, raw: object, at: Path) -> bool:
        if not isinstance(raw, bool):
            raise InvalidFilter(at, "takes true or false")
        return raw

    def time_key(self, raw: object, at: Path) -> bytes:
        """The key of the microseconds since the epoch, of an RFC 3339 text with offset."""
        self._count_value(at)
        found = _TIME.fullmatch(raw) if isinstance(raw, str) else None
        if found is None:
            raise InvalidFilter(at, 'takes an RFC 3339 time with an offset, such as "2026-01-31T12:00:00Z"')
        moment, fraction, hours, minutes = found.groups(default="")
        fraction = fraction.rstrip("0")
        if len(fraction) > 6:
            raise InvalidFilter(at, "has more than six digits after the second; chunks have microseconds")
        try:
            since = datetime.fromisoformat(f"{moment}+00:00") - _EPOCH
        except ValueError as error:
            raise InvalidFilter(at, f"is not a time: {error}") from error
        if hours.lstrip("+-") > "23" or minutes > "59":
            raise InvalidFilter(at, "is not a time: its offset must be below 24:00")
        offset = timedelta(hours=int(hours or 0), minutes=int(f"{hours[:1]}{minutes}" if minutes else 0))
        return key_of((since - offset) // timedelta(microseconds=1) + int(fraction.ljust(6, "0")))

    def time_keys(self, raw: object, at: Path) -> tuple[bytes, ...]:
        return tuple(self.time_key(one, (*at, i)) for i, one in enumerate(self._list(raw, at)))

    def _list(self, raw: object, at: Path) -> list[object]:
        if not isinstance(raw, list):
            raise InvalidFilter(at, "takes a list of values")
        if len(raw) > MAX_IN_VALUES:
            raise InvalidFilter(at, f"takes at most {MAX_IN_VALUES} values, not {len(raw)}")
        return raw


_Read: TypeAlias = Callable[[_Parser, object, Path], Any]


@dataclass(frozen=True)
class Operator:
    """An operator within a field: how its operand is read, how for times (None: not at all), and what they make."""

    name: str
    read: _Read
    read_time: _Read | None
    make: Callable[[str, Any], Filter]


def _comparison(name: str, between: Callable[[bytes], tuple[bytes, bytes]]) -> Operator:
    return Operator(name, _Parser.ordered_key, _Parser.time_key, lambda path, key: Between(path, *between(key)))


def _exists(path: str, yes: bool) -> Filter:
    found = Between(path, b"", LAST)
    return found if yes else Not(found)


def _next_type(key: bytes) -> bytes:
    """What all keys of the type of `key` lie before."""
    return bytes([key[0] + 1])


# A type's byte lies before all keys of the type, and a key with a further byte right behind the key.
OPERATORS = {
    operator.name: operator
    for operator in (
        Operator("$eq", _Parser.key, _Parser.time_key, lambda path, key: OneOf(path, (key,))),
        Operator("$ne", _Parser.key, _Parser.time_key, lambda path, key: Not(OneOf(path, (key,)))),
        _comparison("$gt", lambda key: (key + b"\0", _next_type(key))),
        _comparison("$gte", lambda key: (key, _next_type(key))),
        _comparison("$lt", lambda key: (key[:1], key)),
        _comparison("$lte", lambda key: (key[:1], key + b"\0")),
        Operator("$in", _Parser.keys, _Parser.time_keys, OneOf),
        Operator("$nin", _Parser.keys, _Parser.time_keys, lambda path, keys: Not(OneOf(path, keys))),
        Operator("$exists", _Parser.flag, _Parser.flag, _exists),
        Operator("$contains", _Parser.part_key, None, Contains),
        Operator("$prefix", _Parser.string_key, None, lambda path, key: Between(path, key, key + LAST)),
    )
}
_COMBINED = ("$and", "$or", "$not")


def _is_unicode(text: str) -> bool:
    """Whether `text` has no half of a surrogate pair."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
