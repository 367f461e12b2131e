"""Objects of answers as dataclasses."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from datetime import datetime
from typing import Any, TypeVar

from vectordb_client.errors import InvalidAnswer

T = TypeVar("T")

_FIELDS: dict[type, tuple[str, ...]] = {}
_TIMES = frozenset({"at", "built_at", "previous_until"})


def parse(kind: type[T], item: Mapping[str, Any], **more: Any) -> T:
    """An answer's object as a dataclass: lists as tuples, times as datetimes, unknown fields left out."""
    names = _FIELDS.get(kind)
    if names is None:
        names = _FIELDS[kind] = tuple(one.name for one in dataclasses.fields(kind))  # type: ignore[arg-type]
    values = {name: _value(name, item[name]) for name in names if name in item}
    try:
        return kind(**values, **more)
    except TypeError as error:
        raise InvalidAnswer(f"The answer is not this server's, or of another version: {error}") from None


def parse_time(text: str | None) -> datetime | None:
    """A time of an answer."""
    return None if text is None else datetime.fromisoformat(text.replace("Z", "+00:00"))


def _value(name: str, value: Any) -> Any:
    if isinstance(value, list):
        return tuple(value)
    if isinstance(value, str) and (name.endswith("_at") or name in _TIMES):
        return parse_time(value)
    return value
