"""Operands of the filter language: JSON, already parsed, to keys (`values.py`).

An operand is a value, or `{"$date": "..."}`, an instant. A filter's operands are read by one reader, which counts them.
"""

import math
import re
from typing import Any, NamedTuple, TypeAlias

from apps.engine.errors import InvalidFilter
from apps.engine.metadata.instants import instant_of
from apps.engine.metadata.values import MAX_DEPTH, Scalar, key_of

MAX_SUBSTRINGS = 50  # $contains and $icontains of strings in a filter: each reads all strings of its field
MAX_IN_VALUES = 10_000  # in one $in or $nin
MAX_VALUES = 100_000  # in all operands of a filter, members of arrays included

DATE = "$date"

Operand: TypeAlias = "Scalar | tuple[Operand, ...]"
Path: TypeAlias = tuple[str | int, ...]

_WITH_OFFSET = re.compile(r".{10}[Tt].+(?:[Zz]|[+-].{5})")
_TOO_FINE = re.compile(r".*\.[0-9]{6}[0-9]*[1-9]")
_FINER = "has more than six digits after the second; chunks have microseconds"
_EXAMPLE = '"2026-01-31T12:00:00Z"'


class Keys(NamedTuple):
    """The keys of an operand's values, and those of its instants, in nanoseconds since the epoch, UTC."""

    values: tuple[bytes, ...]
    instants: tuple[bytes, ...] = ()


def is_date(raw: object) -> bool:
    """Whether `raw` is `{"$date": ...}`."""
    return isinstance(raw, dict) and raw.keys() == {DATE}


def is_unicode(text: str) -> bool:
    """Whether `text` has no half of a surrogate pair."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def parse_time(raw: object, at: Path = ()) -> int:
    """The microseconds since the epoch of an RFC 3339 time with offset; raises InvalidFilter for anything else."""
    instant = instant_of(raw) if isinstance(raw, str) and _WITH_OFFSET.fullmatch(raw) else None
    if instant is None or not isinstance(raw, str):
        raise InvalidFilter(at, f"takes an RFC 3339 time with an offset, such as {_EXAMPLE}")
    if _TOO_FINE.match(raw):
        raise InvalidFilter(at, _FINER)
    return instant // 1000


class OperandReader:
    """Reads the operands of one filter. Methods take an operand and the path that leads there; they raise InvalidFilter
    for what is none, and past the limits above."""

    def __init__(self) -> None:
        self._substrings = 0
        self._values = 0

    def keys(self, raw: object, at: Path) -> Keys:
        """One value or instant."""
        return Keys((), (key_of(self._instant(raw, at)),)) if is_date(raw) else Keys((key_of(self._value(raw, at)),))

    def keys_of_list(self, raw: object, at: Path) -> Keys:
        """A list of values and instants."""
        found = [self.keys(one, (*at, i)) for i, one in enumerate(self._list(raw, at))]
        values = tuple(key for one in found for key in one.values)
        return Keys(values, tuple(key for one in found for key in one.instants))

    def keys_of_members(self, raw: object, at: Path) -> tuple[bytes, ...]:
        """A list of values."""
        return tuple(key_of(self._value(one, (*at, i))) for i, one in enumerate(self._list(raw, at)))

    def ordered_keys(self, raw: object, at: Path) -> Keys:
        """A number, a string or an instant."""
        if is_date(raw):
            return self.keys(raw, at)
        if isinstance(raw, bool) or not isinstance(raw, int | float | str):
            raise InvalidFilter(at, "takes a number or a string")
        return Keys((key_of(self._scalar(raw, at)),))

    def string_key(self, raw: object, at: Path) -> bytes:
        """A string."""
        return key_of(self._string(raw, at))

    def part_key(self, raw: object, at: Path) -> bytes:
        """What a string or an array may contain."""
        if isinstance(raw, str):
            self._count_substring(at)
        return key_of(self._scalar(raw, at))

    def folded(self, raw: object, at: Path) -> str:
        """A string without regard to case."""
        self._count_substring(at)
        return self._string(raw, at).casefold()

    def flag(self, raw: object, at: Path) -> bool:
        """True or false."""
        if not isinstance(raw, bool):
            raise InvalidFilter(at, "takes true or false")
        return raw

    def time_keys(self, raw: object, at: Path) -> Keys:
        """A time with an offset, or an instant, in microseconds since the epoch."""
        if is_date(raw):
            microseconds, rest = divmod(self._instant(raw, at), 1000)
            if rest:
                raise InvalidFilter((*at, DATE), _FINER)
            return Keys((key_of(microseconds),))
        self._count_value(at)
        return Keys((key_of(parse_time(raw, at)),))

    def time_keys_of_list(self, raw: object, at: Path) -> Keys:
        """A list of times with offsets."""
        found = [self.time_keys(one, (*at, i)) for i, one in enumerate(self._list(raw, at))]
        return Keys(tuple(key for one in found for key in one.values))

    def _instant(self, raw: Any, at: Path) -> int:
        self._count_value(at)
        text = raw[DATE]
        instant = instant_of(text) if isinstance(text, str) else None
        if instant is None:
            raise InvalidFilter((*at, DATE), f'takes an RFC 3339 date or time, such as "2026-01-31" or {_EXAMPLE}')
        return instant

    def _value(self, raw: object, at: Path, depth: int = 0) -> Operand:
        """An operand of any type but object."""
        self._count_value(at)
        if not isinstance(raw, list):
            return self._scalar(raw, at, "takes a string, a number, true, false, null or an array of such")
        if depth == MAX_DEPTH:
            raise InvalidFilter(at, f"nests deeper than {MAX_DEPTH}; use fewer arrays within each other")
        return tuple(self._value(one, (*at, i), depth + 1) for i, one in enumerate(raw))

    def _scalar(self, raw: object, at: Path, takes: str = "takes a string, a number, true, false or null") -> Scalar:
        if raw is None or isinstance(raw, bool):
            return raw
        if isinstance(raw, str):
            return self._string(raw, at)
        if isinstance(raw, int):
            if not -(2**63) <= raw < 2**64:
                raise InvalidFilter(at, "is an integer beyond 64 bits; give it as a floating-point number")
            return raw
        if isinstance(raw, float):
            if not math.isfinite(raw):
                raise InvalidFilter(at, "is NaN or infinite; takes finite numbers only")
            return raw
        if is_date(raw):
            raise InvalidFilter(at, f"{takes}; {DATE} is compared by $eq, $ne, $gt, $gte, $lt, $lte, $in and $nin")
        raise InvalidFilter(at, f"{takes}; a.b reaches into objects" if isinstance(raw, dict) else takes)

    def _string(self, raw: object, at: Path) -> str:
        if not isinstance(raw, str):
            raise InvalidFilter(at, "takes a string")
        if not is_unicode(raw):
            raise InvalidFilter(at, "is not Unicode text: half of a surrogate pair is missing")
        return raw

    def _list(self, raw: object, at: Path) -> list[object]:
        if not isinstance(raw, list):
            raise InvalidFilter(at, "takes a list of values")
        if len(raw) > MAX_IN_VALUES:
            raise InvalidFilter(at, f"takes at most {MAX_IN_VALUES} values, not {len(raw)}")
        return raw

    def _count_substring(self, at: Path) -> None:
        self._substrings += 1
        if self._substrings > MAX_SUBSTRINGS:
            raise InvalidFilter(at, f"is one substring too many; a filter has at most {MAX_SUBSTRINGS}")

    def _count_value(self, at: Path) -> None:
        self._values += 1
        if self._values > MAX_VALUES:
            raise InvalidFilter(at, f"is one value too many; a filter has at most {MAX_VALUES}")
