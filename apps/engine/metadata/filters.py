"""The filter language: JSON, already parsed, to a small tree that `Columns.mask` evaluates.

An operator is one entry of OPERATORS: how its operand is read (`operands.py`), and which tree it makes. The tree has
fewer kinds of nodes than the language has operators: `$ne`, `$nin` and `$exists: false` are a `Not`, `$eq` is a `OneOf`
of one value, comparisons, `$prefix` and `$exists` are a `Between`. Nodes hold the keys of operands (`values.py`). An
operand of `@created_at` or `@expires_at` is a number, its microseconds since the epoch, UTC; an instant is one for
another column, that of the field's instants (`paths.py`).

Parsing costs time by the size of the JSON, stops at limits, and recurses no deeper than they allow.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

from apps.engine.errors import InvalidFilter
from apps.engine.metadata.operands import DATE, Keys, OperandReader, Path, is_date, is_unicode
from apps.engine.metadata.paths import DOCUMENT, DOCUMENT_ID, ID, TEXT, TIMES, field_name, instants_of
from apps.engine.metadata.values import ARRAY, LAST, MAX_DEPTH, NULL, OBJECT, STRING
from apps.engine.vectors import Int64

# $and, $or and $not within each other nest no deeper than MAX_DEPTH either.
MAX_CONDITIONS = 1_000  # in a filter; `{}` counts as one, and so does each value of $all

OWN_FIELDS = (ID, DOCUMENT_ID, *TIMES, TEXT)


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


@dataclass(frozen=True, eq=False)
class HasKey(Filter):
    """The row is one of those with `keys`. No JSON stands for it: what was found elsewhere does."""

    keys: Int64


@dataclass(frozen=True)
class Condition(Filter):
    """What the value at `path` must be. `at` leads to it in the JSON that it was read from."""

    path: str
    at: Path = field(default=(), compare=False, kw_only=True)


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
class HasMember(Condition):
    """The value at `path` is an array that has a member with `key`."""

    key: bytes


@dataclass(frozen=True)
class Contains(Condition):
    """The value at `path` is a string that has the string of `key` in it, or an array that has the scalar of `key`."""

    key: bytes

    @property
    def is_substring(self) -> bool:
        """Whether all strings of the field are read for it."""
        return self.key.startswith(STRING)


@dataclass(frozen=True)
class ContainsFolded(Condition):
    """As `Contains`, for a string, without regard to case: `text` is folded, and so is what it is compared with."""

    text: str


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


class _Parser:
    """Reads one filter and counts its conditions. Methods take a piece of it and the path that leads there."""

    def __init__(self) -> None:
        self._conditions = 0
        self._operands = OperandReader()

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

    def _read_field(self, path: object, raw: object, at: Path) -> list[Filter]:
        """The conditions on one field."""
        if not isinstance(path, str) or not is_unicode(path):
            raise InvalidFilter(at[:-1], "has a key that is not Unicode text")
        if path.startswith("$"):
            if path in OPERATORS:
                raise InvalidFilter(at, f'belongs to a field, as in {{"field": {{"{path}": ...}}}}')
            known = ", ".join(_COMBINED)
            raise InvalidFilter(at, f"is not an operator; here there are {known}, and \\{path} names a field")
        name = _read_name(path, at)
        if not isinstance(raw, dict) or is_date(raw):
            return [self._read_condition(name, OPERATORS["$eq"], raw, at)]
        if not raw:
            raise InvalidFilter(at, 'takes a value or operators such as {"$eq": value}, not an empty object')
        found = []
        for key, operand in raw.items():
            if not isinstance(key, str) or not is_unicode(key):
                raise InvalidFilter(at, "has a key that is not Unicode text")
            if key in _COMBINED:
                raise InvalidFilter((*at, key), f'combines filters, as in {{"{key}": ...}}, not within a field')
            if key == DATE:
                raise InvalidFilter((*at, key), f'is an operand, as in {{"$gte": {{"{DATE}": ...}}}}')
            if key not in OPERATORS:
                raise InvalidFilter((*at, key), f"is not an operator; {_meant_instead(path, key)}")
            found.append(self._read_condition(name, OPERATORS[key], operand, (*at, key)))
        return found

    def _read_condition(self, name: str, operator: "Operator", raw: object, at: Path) -> Filter:
        if name == TEXT and (operator.name not in _FOR_TEXT or is_date(raw)):
            raise InvalidFilter(at, f"is not for texts; {TEXT} takes {', '.join(_FOR_TEXT)}, and no dates")
        read = operator.read_time if name in TIMES else operator.read
        if read is None:
            raise InvalidFilter(at, f"is not for times; {name} is compared by the other operators")
        self._count_condition(at)
        if operator.name == "$all" and isinstance(raw, list):
            for i in range(1, len(raw)):
                self._count_condition((*at, i))
        return _located(operator.make(name, read(self._operands, raw, at)), at)

    def _count_condition(self, at: Path) -> None:
        self._conditions += 1
        if self._conditions > MAX_CONDITIONS:
            raise InvalidFilter(at, f"is one condition too many; a filter has at most {MAX_CONDITIONS}")


def _located(made: Filter, at: Path) -> Filter:
    """The same, whose conditions say where they are."""
    match made:
        case Condition():
            return replace(made, at=at)
        case Not(part):
            return Not(_located(part, at))
        case And(parts):
            return And(tuple(_located(part, at) for part in parts))
        case Or(parts):
            return Or(tuple(_located(part, at) for part in parts))
    return made


def _read_name(path: str, at: Path) -> str:
    """The name of the field at `path`."""
    if path.startswith("@") and path not in OWN_FIELDS and not path.startswith(DOCUMENT):
        known = f"{', '.join(OWN_FIELDS)} and {DOCUMENT}a.b"
        raise InvalidFilter(at, f"is not a field of a chunk; there are {known}, and \\{path} is a key")
    try:
        return field_name(path)
    except ValueError:
        raise InvalidFilter(at, "ends with a backslash; a backslash makes the next character literal") from None


_Read: TypeAlias = Callable[[OperandReader, object, Path], Any]


@dataclass(frozen=True)
class Operator:
    """An operator within a field: how its operand is read, how for times (None: not at all), and what they make."""

    name: str
    read: _Read
    read_time: _Read | None
    make: Callable[[str, Any], Filter]


def _one_of(name: str, keys: Keys) -> Filter:
    found = OneOf(name, keys.values)
    if not keys.instants:
        return found
    instants = OneOf(instants_of(name), keys.instants)
    return Or((found, instants)) if keys.values else instants


def _none_of(name: str, keys: Keys) -> Filter:
    return Not(_one_of(name, keys))


def _comparison(operator: str, between: Callable[[bytes], tuple[bytes, bytes]]) -> Operator:
    def make(name: str, keys: Keys) -> Filter:
        [key] = keys.instants or keys.values
        return Between(instants_of(name) if keys.instants else name, *between(key))

    return Operator(operator, OperandReader.ordered_keys, OperandReader.time_keys, make)


def _exists(name: str, yes: bool) -> Filter:
    found = Between(name, b"", LAST)
    return found if yes else Not(found)


def _empty(name: str, yes: bool) -> Filter:
    # The key of an empty array is ARRAY alone.
    found = Or((_exists(name, False), *(Between(name, key, key + b"\0") for key in (NULL, ARRAY))))
    return found if yes else Not(found)


def _all(name: str, keys: tuple[bytes, ...]) -> Filter:
    if not keys:
        return Between(name, ARRAY, OBJECT)
    members = tuple(HasMember(name, key) for key in keys)
    return members[0] if len(members) == 1 else And(members)


def _next_type(key: bytes) -> bytes:
    """What all keys of the type of `key` lie before."""
    return bytes([key[0] + 1])


# A type's byte lies before all keys of the type, and a key with a further byte right behind the key.
_Operands = OperandReader
OPERATORS = {
    operator.name: operator
    for operator in (
        Operator("$eq", _Operands.keys, _Operands.time_keys, _one_of),
        Operator("$ne", _Operands.keys, _Operands.time_keys, _none_of),
        _comparison("$gt", lambda key: (key + b"\0", _next_type(key))),
        _comparison("$gte", lambda key: (key, _next_type(key))),
        _comparison("$lt", lambda key: (key[:1], key)),
        _comparison("$lte", lambda key: (key[:1], key + b"\0")),
        Operator("$in", _Operands.keys_of_list, _Operands.time_keys_of_list, _one_of),
        Operator("$nin", _Operands.keys_of_list, _Operands.time_keys_of_list, _none_of),
        Operator("$exists", _Operands.flag, _Operands.flag, _exists),
        Operator("$empty", _Operands.flag, None, _empty),
        Operator("$all", _Operands.keys_of_members, None, _all),
        Operator("$contains", _Operands.part_key, None, Contains),
        Operator("$icontains", _Operands.folded, None, ContainsFolded),
        Operator("$prefix", _Operands.string_key, None, lambda name, key: Between(name, key, key + LAST)),
    )
}
_COMBINED = ("$and", "$or", "$not")
_FOR_TEXT = ("$eq", "$ne", "$contains", "$icontains", "$prefix")


def _meant_instead(path: str, key: str) -> str:
    """What whoever wrote `key` in the place of an operator of the field `path` may want."""
    if f"${key}" in OPERATORS:
        return f"try ${key}"
    if path == "metadata" and not key.startswith("$"):
        return f'fields of the metadata are named by themselves, as in {{"{key}": ...}}'
    return f"there are {', '.join(OPERATORS)}, and a.b reaches into objects"
