"""The shape of queries, for the log: how they ask, not what for. It holds no text, no vector and no value."""

from collections.abc import Mapping, Sequence
from typing import Any

from apps.engine.metadata.filters import (
    And,
    Between,
    Condition,
    Contains,
    ContainsFolded,
    Filter,
    HasMember,
    Not,
    OneOf,
    Or,
)
from apps.engine.metadata.values import LAST
from apps.search.query.spec import QuerySpec

# Conditions of a filter that are shown.
_MOST_CONDITIONS = 20


def describe(specs: Sequence[QuerySpec]) -> Mapping[str, Any]:
    """The number of queries, and the shape of the first."""
    return {"queries": len(specs), "shape": _shape(specs[0])}


def _shape(spec: QuerySpec) -> dict[str, Any]:
    by = [name for name in ("vector", "text", "chunk_id") if spec.is_set(name)]
    shape: dict[str, Any] = {"by": "+".join(by), "mode": spec.mode, "k": spec.k}
    plain = ("offset", "filter_mode", "exact", "group_size")
    shape |= {name: getattr(spec, name) for name in plain if spec.is_set(name)}
    if not spec.filter.is_everything:
        shape["filter"] = filter_shape(spec.filter)
    if spec.group_by is not None:
        shape["group_by"] = spec.group_by
    if spec.boost:
        shape["boost"] = [one.field or filter_shape(one.filter) for one in spec.boost]
        shape["depth"] = spec.depth
    if spec.mmr is not None:
        shape["mmr"] = {"fetch_k": spec.mmr.fetch_k}
    if spec.search_params:
        shape["search_params"] = spec.search_params
    return shape


def filter_shape(filter: Filter) -> Any:
    """A filter as the engine evaluates it, fields with operators but without values: `$gt` to `$lte` and `$prefix` are
    a `range`, `$ne` is a `$not`."""
    left = [_MOST_CONDITIONS]
    return _filter_shape(filter, left)


def _filter_shape(filter: Filter, left: list[int]) -> Any:
    match filter:
        case And(parts):
            return {"$and": [_filter_shape(part, left) for part in parts if left[0] > 0]}
        case Or(parts):
            return {"$or": [_filter_shape(part, left) for part in parts if left[0] > 0]}
        case Not(part):
            return {"$not": _filter_shape(part, left)}
        case Condition():
            left[0] -= 1
            return {filter.path: _operator(filter)}
    return "rows"


def _operator(condition: Condition) -> str:
    match condition:
        case OneOf(_, keys):
            return "$eq" if len(keys) == 1 else f"$in {len(keys)}"
        case Between(_, low, high):
            return "$exists" if (low, high) == (b"", LAST) else "range"
        case HasMember():
            return "$all"
        case Contains():
            return "$contains"
        case ContainsFolded():
            return "$icontains"
    return "?"
