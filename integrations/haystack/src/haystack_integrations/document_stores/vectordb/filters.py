"""Filters of Haystack in the language of the server.

What they mean is what `haystack.utils.filters.document_matches_filter` does in Python: a field that is missing is None,
`==` compares a list with the whole value and never with its members, and only numbers and dates are ordered.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime, timezone
from typing import Any

from dateutil.parser import isoparse
from haystack.errors import FilterError

Filter = dict[str, Any]

# The key of `meta` that shows the server's document which the chunk belongs to.
DOCUMENT_KEY = "@document"

_ORDERINGS = {">": "$gt", ">=": "$gte", "<": "$lt", "<=": "$lte"}
_NOTHING: Filter = {"@id": {"$in": []}}
EVERYTHING: Filter = {"@id": {"$exists": True}}
# Fields that always are texts.
_TEXTS = {"id": "@id", "content": "@text"}
_OTHERS = frozenset({"blob", "embedding", "score", "sparse_embedding"})


def translate(filters: Mapping[str, Any] | None) -> Filter | None:
    """The server's filter, or None for all documents; raise FilterError where Haystack's language is broken."""
    return _translate(filters) if filters else None


def path_of(metadata_field: str) -> str:
    """The server's path of a field of `meta`, with or without "meta." in front."""
    return _server_path("meta." + metadata_field.removeprefix("meta."))


def _translate(condition: Any) -> Filter:
    if not isinstance(condition, Mapping):
        raise FilterError(f"A condition is a dict, not {condition!r}")
    needed = ("field", "operator", "value") if "field" in condition else ("operator", "conditions")
    for key in needed:
        if key not in condition:
            raise FilterError(f"{key!r} is missing in {dict(condition)}")
    if "field" in condition:
        return _comparison(condition["field"], condition["operator"], condition["value"])
    operator, conditions = condition["operator"], condition["conditions"]
    if not isinstance(conditions, list):
        raise FilterError(f"'conditions' is a list, not {conditions!r}")
    filters = [_translate(one) for one in conditions]
    if operator == "AND":
        return {"$and": filters} if filters else {}
    if operator == "NOT":
        return {"$not": {"$and": filters} if filters else {}}
    if operator == "OR":
        return {"$or": filters} if filters else _NOTHING
    raise FilterError(f"{operator!r} is no operator of conditions; there are AND, OR and NOT")


def _comparison(field: Any, operator: Any, value: Any) -> Filter:
    if operator in ("==", "!="):
        found = _equals(field, [value])
    elif operator in ("in", "not in"):
        if not isinstance(value, list):
            raise FilterError(f"{operator!r} takes a list, not {value!r}")
        found = _equals(field, value)
    elif operator in _ORDERINGS:
        return _ordered(field, operator, value)
    else:
        raise FilterError(f"{operator!r} is no operator of a field; there are ==, !=, >, >=, <, <=, in and not in")
    return {"$not": found} if operator in ("!=", "not in") else found


def _equals(field: Any, values: list[Any]) -> Filter:
    """Documents whose field is one of `values`."""
    path = _server_path(field)
    if path.startswith("@") and not path.startswith("@document."):
        texts = [value for value in values if isinstance(value, str | None)]
        if path != "@text":
            return {path: {"$in": texts}}
        # A document without content is stored with an empty text.
        return {"$or": [{path: {"$eq": text or ""}} for text in texts]} if texts else _NOTHING
    scalars: list[Any] = []
    alternatives: list[Filter] = []
    # `$eq` and `$in` look at members too. Every array matches an empty `$all`.
    is_no_array: Filter = {"$not": {path: {"$all": []}}}
    for value in values:
        if value is None:
            alternatives.append({path: {"$empty": True}, **is_no_array})
        elif isinstance(value, list):
            # An array that equals the list does not have the list as a member.
            alternatives.append({path: {"$eq": value}, "$not": {path: {"$all": [value]}}})
        else:
            scalars.extend(_operands(value))
    if scalars:
        alternatives.append({path: {"$in": scalars}, **is_no_array})
    if not alternatives:
        return _NOTHING
    return alternatives[0] if len(alternatives) == 1 else {"$or": alternatives}


def _operands(value: Any) -> list[Any]:
    """What equals a value: a text that is a date equals all ways to write it."""
    if isinstance(value, date):
        return [_date(value)]
    if isinstance(value, str):
        instant = _parse_date(value) if value[4:5] == value[7:8] == "-" else None
        return [value] if instant is None else [value, _date(instant)]
    if isinstance(value, bool | int | float):
        return [value]
    raise FilterError(f"A field is compared with a text, a number, True, False, None, a date or a list, not {value!r}")


def _ordered(field: Any, operator: str, value: Any) -> Filter:
    path = _server_path(field)
    if value is None:
        return _NOTHING
    if path in ("@id", "@text", "@document_id"):
        raise FilterError(f"{field!r} is a text, which {operator!r} does not compare")
    if isinstance(value, str):
        instant = _parse_date(value)
        if instant is None:
            raise FilterError(f"{operator!r} compares texts only if they are dates by ISO 8601, not {value!r}")
        value = instant
    if isinstance(value, date):
        return {path: {_ORDERINGS[operator]: _date(value)}}
    if isinstance(value, int | float):
        return {path: {_ORDERINGS[operator]: int(value) if isinstance(value, bool) else value}}
    raise FilterError(f"{operator!r} compares with a number or a date, not with {value!r}")


def _parse_date(text: str) -> datetime | None:
    try:
        instant: datetime = isoparse(text)
    except (ValueError, OverflowError):
        return None
    return instant


def _date(value: date) -> dict[str, str]:
    if isinstance(value, datetime) and value.tzinfo is not None:
        # Time zones may have offsets with seconds, which RFC 3339 does not.
        value = value.astimezone(timezone.utc)
    return {"$date": value.isoformat()}


def _server_path(field: Any) -> str:
    if not isinstance(field, str):
        raise FilterError(f"'field' is a text such as 'meta.year', not {field!r}")
    if field in _TEXTS:
        return _TEXTS[field]
    keys = field.split(".")
    if field == "meta" or keys[0] in _OTHERS:
        raise FilterError(f"{field!r} cannot be filtered by: filters look at id, content and the fields of meta")
    if keys[0] == "meta":
        del keys[0]
    elif len(keys) > 1:
        raise FilterError(f"{field!r} is no field of a Document; fields of meta are written 'meta.{field}'")
    if keys[0] == DOCUMENT_KEY:
        if keys[1:] == ["id"]:
            return "@document_id"
        if keys[1:2] == ["metadata"] and len(keys) > 2:
            return "@document." + ".".join(map(_escape, keys[2:]))
        raise FilterError(f"{field!r} cannot be filtered by; 'meta.@document.id' and 'meta.@document.metadata.a' can")
    path = ".".join(map(_escape, keys))
    return "\\" + path if path.startswith(("@", "$")) else path


def _escape(key: str) -> str:
    return key.replace("\\", "\\\\")
