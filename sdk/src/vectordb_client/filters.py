"""Filters as expressions: `(F("year") >= 1900) & ~F("topic").in_(["a", "b"])`.

Each is the JSON of the server's docs/filters.md, which a dict or a JSON text may state as well.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import date, datetime
from typing import Any

from vectordb_client.errors import InvalidArgument


class Filter:
    """A condition on chunks. Combine by `&`, `|` and `~`; `to_dict()` is its JSON."""

    __slots__ = ("_conditions",)

    def __init__(self, conditions: Mapping[str, Any]) -> None:
        self._conditions = dict(conditions)

    def to_dict(self) -> dict[str, Any]:
        """The filter as the server takes it."""
        return self._conditions

    def __and__(self, other: Filter | Mapping[str, Any]) -> Filter:
        return self._combine("$and", other)

    def __or__(self, other: Filter | Mapping[str, Any]) -> Filter:
        return self._combine("$or", other)

    def __invert__(self) -> Filter:
        return Filter({"$not": self._conditions})

    def _combine(self, operator: str, other: Filter | Mapping[str, Any]) -> Filter:
        if not isinstance(other, Filter | Mapping):
            return NotImplemented
        operands: list[Any] = []
        for conditions in (self._conditions, to_dict(other)):
            # (a & b) & c is one list of three: filters may lie within each other 16 deep.
            operands.extend(conditions[operator] if list(conditions) == [operator] else [conditions])
        return Filter({operator: operands})

    def __eq__(self, other: object) -> bool:
        return self._conditions == other._conditions if isinstance(other, Filter) else NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def __bool__(self) -> bool:
        raise TypeError(
            "A filter is neither true nor false: combine filters by &, | and ~, not by and, or, not, a < b < c"
        )

    def __repr__(self) -> str:
        return f"Filter({self._conditions!r})"


class F:
    """A field, to be compared: `F("year") >= 1900`.

    Dots in the name reach into objects. Several names are keys one below the other, taken literally:
    `F("author", "file.name")`. Fields of the chunk itself are `F("@id")`, `F("@document_id")`, `F("@created_at")`,
    `F("@expires_at")` and `F("@text")`; `F("@document.topic")` is in the metadata of the chunk's document.

    >>> F("year") >= 1900
    Filter({'year': {'$gte': 1900}})
    >>> (F("topic") == "animal") & ~F("tags").contains("rare")
    Filter({'$and': [{'topic': {'$eq': 'animal'}}, {'$not': {'tags': {'$contains': 'rare'}}}]})
    """

    __slots__ = ("path",)

    def __init__(self, name: str, *below: str) -> None:
        self.path = name if not below else ".".join(_escape(key) for key in (name, *below))

    def __eq__(self, value: object) -> Filter:  # type: ignore[override]
        return self._is("$eq", operand(value))

    def __ne__(self, value: object) -> Filter:  # type: ignore[override]
        return self._is("$ne", operand(value))

    __hash__ = None  # type: ignore[assignment]

    def __gt__(self, value: float | str | date) -> Filter:
        return self._is("$gt", operand(value))

    def __ge__(self, value: float | str | date) -> Filter:
        return self._is("$gte", operand(value))

    def __lt__(self, value: float | str | date) -> Filter:
        return self._is("$lt", operand(value))

    def __le__(self, value: float | str | date) -> Filter:
        return self._is("$lte", operand(value))

    def in_(self, values: Iterable[Any]) -> Filter:
        """Equal to one of `values`; of an array, a member is."""
        return self._is("$in", _operands("in_", values))

    def not_in(self, values: Iterable[Any]) -> Filter:
        """The complement of `in_`: also where the field is missing."""
        return self._is("$nin", _operands("not_in", values))

    def exists(self, exists: bool = True) -> Filter:
        """The field is there, be it null; with False, it is missing."""
        return self._is("$exists", exists)

    def is_empty(self, is_empty: bool = True) -> Filter:
        """The field is missing, null or an empty array; with False, it is none of these."""
        return self._is("$empty", is_empty)

    def contains(self, value: str | float | bool | None) -> Filter:
        """A string that has this string in it, or an array with this member."""
        return self._is("$contains", value)

    def icontains(self, value: str) -> Filter:
        """As `contains` with a string, without regard to case."""
        return self._is("$icontains", value)

    def starts_with(self, prefix: str) -> Filter:
        """A string that starts with `prefix`."""
        return self._is("$prefix", prefix)

    def has_all(self, values: Iterable[Any]) -> Filter:
        """An array that has each of `values` as a member."""
        return self._is("$all", _operands("has_all", values))

    def _is(self, operator: str, value: Any) -> Filter:
        return Filter({self.path: {operator: value}})

    def __repr__(self) -> str:
        return f"F({self.path!r})"


FilterLike = Filter | Mapping[str, Any] | str


def to_dict(filter: FilterLike) -> dict[str, Any]:
    """The JSON of a filter in any of its forms; raise InvalidArgument for anything else."""
    if isinstance(filter, Filter):
        return filter.to_dict()
    if isinstance(filter, Mapping):
        return dict(filter)
    if isinstance(filter, str):
        try:
            conditions = json.loads(filter)
        except ValueError as error:
            raise InvalidArgument(
                f"filter: a text must be JSON such as '{{\"year\": 1900}}', and is not: {error}"
            ) from None
        if isinstance(conditions, dict):
            return conditions
    raise InvalidArgument(f"filter: takes an expression of F, a dict or a JSON text, not {filter!r}")


def operand(value: Any) -> Any:
    """A value that a field is compared with, as JSON: dates and times become `$date`."""
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise InvalidArgument(
                f"{value!r} has no time zone: give it one, as in datetime.now(timezone.utc) or value.astimezone()"
            )
        return {"$date": value.isoformat()}
    if isinstance(value, date):
        return {"$date": value.isoformat()}
    if isinstance(value, F | Filter):
        raise InvalidArgument(f"a field is compared with a value, not with {value!r}")
    return list(value) if isinstance(value, tuple) else value


def _operands(name: str, values: Iterable[Any]) -> list[Any]:
    if isinstance(values, str | bytes | Mapping):
        raise InvalidArgument(f"{name} takes a list of values, not {values!r}")
    return [operand(value) for value in values]


def _escape(key: str) -> str:
    r"""A key as part of a path: `file.name` is `file\.name`."""
    escaped = key.replace("\\", "\\\\").replace(".", "\\.")
    return f"\\{escaped}" if escaped[:1] in ("@", "$") else escaped
