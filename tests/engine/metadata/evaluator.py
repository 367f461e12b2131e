"""The rules of filters and facets, in plain Python, and the rows and filters that they are tried on."""

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import numpy as np
import orjson
from hypothesis import strategies as st

from apps.engine.metadata import Attributes, Columns
from apps.engine.metadata.facets import ValuePage, rank_values
from apps.engine.metadata.filters import parse_filter
from apps.engine.vectors import Mask

MISSING = object()
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def row_of(metadata: Any, i: int = 0, *, document_id: str | None = None, created_at: int = 0) -> Attributes:
    text = metadata if isinstance(metadata, bytes) else orjson.dumps(metadata)
    return Attributes(f"c-{i}", document_id, created_at, text.decode())


def columns_of(*metadata: Any) -> Columns:
    return Columns.build([row_of(one, i) for i, one in enumerate(metadata)])


def matched(columns: Columns, raw: Any) -> list[int]:
    mask = columns.mask(parse_filter(raw))
    assert mask.dtype == np.bool_
    assert mask.shape == (len(columns),)
    return np.flatnonzero(mask).tolist()


def kind(value: Any) -> str:
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, datetime):
        return "time"
    return {int: "number", float: "number", str: "string", list: "array", dict: "object"}.get(type(value), "null")


def same(a: Any, b: Any) -> bool:
    if kind(a) != kind(b) or kind(a) == "object":
        return False
    if kind(a) == "array":
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return a == b


def value_at(row: Attributes, path: str) -> Any:
    if path.startswith("@"):
        value = getattr(row, path[1:])
        return EPOCH + timedelta(microseconds=value) if path == "@created_at" else value
    try:
        value = orjson.loads(row.metadata)
    except ValueError:
        return MISSING
    for key in path.split("."):
        if not isinstance(value, dict) or key not in value:
            return MISSING
        value = value[key]
    return value


def equal(value: Any, operand: Any) -> bool:
    return same(value, operand) or (kind(value) == "array" and any(same(member, operand) for member in value))


def holds(value: Any, operator: str, operand: Any) -> bool:
    match operator:
        case "$exists":
            return (value is not MISSING) == operand
        case "$ne":
            return not holds(value, "$eq", operand)
        case "$nin":
            return not holds(value, "$in", operand)
    if value is MISSING:
        return False
    match operator:
        case "$eq":
            return equal(value, operand)
        case "$in":
            return any(equal(value, one) for one in operand)
        case "$prefix":
            return kind(value) == "string" and value.startswith(operand)
        case "$contains":
            if kind(value) == "array":
                return any(same(member, operand) for member in value)
            return kind(value) == kind(operand) == "string" and operand in value
    if kind(value) != kind(operand):
        return False
    match operator:
        case "$gt":
            return value > operand
        case "$gte":
            return value >= operand
        case "$lt":
            return value < operand
    assert operator == "$lte"
    return value <= operand


def matches(row: Attributes, raw: dict[str, Any]) -> bool:
    for key, value in raw.items():
        if key == "$and":
            fine = all(matches(row, one) for one in value)
        elif key == "$or":
            fine = any(matches(row, one) for one in value)
        elif key == "$not":
            fine = not matches(row, value)
        else:
            conditions = value if isinstance(value, dict) else {"$eq": value}
            fine = all(holds(value_at(row, key), name, _timed(key, one)) for name, one in conditions.items())
        if not fine:
            return False
    return True


def _timed(path: str, operand: Any) -> Any:
    if path != "@created_at" or isinstance(operand, bool):
        return operand
    return [_timed(path, one) for one in operand] if isinstance(operand, list) else datetime.fromisoformat(operand)


KEYS = ["a", "b", "", "é", "a.b", "$x", "@id"]
PATHS = ["a", "b", "", "é", "a.a", "a.b", "a.", "a.b.a", ".", ".a", "a.$x", "a.@id", "zz", "a.0"]
NUMBERS = [0, 1, -1, 1.0, -0.0, 0.5, 5e-324, -1e308, 1e308, 2**53, 2**53 + 1, 2.0**53, 2**63, 2.0**63, 2**63 - 1]
NUMBERS += [-(2**63), -(2.0**63), -(2**63) + 1, 2**64 - 1, 2**64 - 1024, 2**64 - 1025, 2.0**64, 2**64 - 2048]
STRINGS = [
    "",
    "a",
    "ab",
    "abc",
    "b",
    "A",
    "1",
    "\0",
    "\4",
    "a\4b",
    "\4a",
    "\x7f",
    "é",
    "e\u0301",
    "\uffff",
    "😀",
    ".*",
    "a\0",
]
numbers = st.sampled_from(NUMBERS) | st.integers(-3, 3) | st.integers(-(2**63), 2**64 - 1)
numbers |= st.floats(allow_nan=False, allow_infinity=False)
strings = st.sampled_from(STRINGS) | st.text(st.characters(exclude_categories=["Cs"]), max_size=3)
scalars = st.none() | st.booleans() | numbers | strings
operands = scalars | st.recursive(scalars, lambda inner: st.lists(inner, max_size=3), max_leaves=4)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=3),
    max_leaves=6,
)
objects = st.dictionaries(st.sampled_from(KEYS), values, max_size=4)
metadata_texts = st.one_of(
    *[objects.map(orjson.dumps)] * 5,
    st.sampled_from(
        [b"", b"{", b"[1]", b"null", b'"a"', b'{"a":1e999}', b'{"a":1,"a":2}', b'{"a":99999999999999999999}']
    ),
)
microseconds = st.sampled_from([0, 1, -1, 1_769_860_800_500_000]) | st.integers(-(10**15), 10**16)
rows = st.lists(st.builds(Attributes, strings, st.none() | strings, microseconds, metadata_texts), max_size=12)


@st.composite
def times(draw: st.DrawFn) -> str:
    zone = timezone(timedelta(minutes=draw(st.integers(-23 * 60, 23 * 60))))
    return (EPOCH + timedelta(microseconds=draw(microseconds))).astimezone(zone).isoformat()


@st.composite
def conditions(draw: st.DrawFn) -> dict[str, Any]:
    path = draw(st.sampled_from([*PATHS, "a", "b", "@id", "@document_id", "@created_at"]))
    if path == "@created_at":
        eq, ordered, names = (
            times(),
            times(),
            ["$eq", "$ne", "$gt", "$gte", "$lt", "$lte", "$in", "$nin", "$exists", ""],
        )
    else:
        eq, ordered = operands, numbers | strings
        names = ["$eq", "$ne", "$gt", "$gte", "$lt", "$lte", "$in", "$nin", "$exists", "$contains", "$prefix", ""]
    takes = {"": eq, "$eq": eq, "$ne": eq, "$exists": st.booleans(), "$contains": scalars, "$prefix": strings}
    takes |= dict.fromkeys(("$in", "$nin"), st.lists(eq, max_size=4))
    chosen = draw(st.lists(st.sampled_from(names), min_size=1, max_size=2, unique=True))
    if "" in chosen:
        return {path: draw(eq)}
    return {path: {name: draw(takes.get(name, ordered)) for name in chosen}}


raw_filters = st.recursive(
    conditions() | st.just({}),
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map(lambda of: {"$and": of}),
        st.lists(inner, min_size=1, max_size=3).map(lambda of: {"$or": of}),
        inner.map(lambda of: {"$not": of}),
        st.lists(inner, min_size=2, max_size=2).map(lambda of: {**of[0], **of[1]}),
    ),
    max_leaves=4,
)


def rank(value: Any) -> tuple[int, Any]:
    if value is None or isinstance(value, bool):
        return [None, False, True].index(value), 0
    return (3, value) if kind(value) == "number" else (4, value)


def plain_facet(given_rows: Sequence[Attributes], path: str) -> list[tuple[Any, int]]:
    counts: Counter[tuple[int, Any]] = Counter()
    for row in given_rows:
        value = value_at(row, path)
        several = value if kind(value) == "array" else [] if value is MISSING else [value]
        counts.update({rank(one) for one in several if kind(one) not in ("array", "object")})
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def facet(columns: Columns, path: str, allowed: Mask | None = None) -> list[tuple[Any, int]]:
    found, distinct = rank_values([columns.counts(path, allowed)], ValuePage(1000))
    assert len(found) == distinct
    return found
