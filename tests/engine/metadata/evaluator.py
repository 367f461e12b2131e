"""The rules of filters and facets, in plain Python, and the rows and filters that they are tried on."""

import re
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import numpy as np
import orjson
from hypothesis import strategies as st

from apps.engine.expiry import NEVER
from apps.engine.metadata import Attributes, Columns
from apps.engine.metadata.facets import ValuePage, rank_values
from apps.engine.metadata.filters import OPERATORS, parse_filter
from apps.engine.metadata.paths import TIMES, field_name
from apps.engine.vectors import Mask

MISSING = object()
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def row_of(
    metadata: Any, i: int = 0, *, document_id: str | None = None, created_at: int = 0, document: str = ""
) -> Attributes:
    text = metadata if isinstance(metadata, bytes) else orjson.dumps(metadata)
    return Attributes(f"c-{i}", document_id, created_at, text.decode(), document)


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
    text = row.metadata
    if path.startswith("@document."):
        path, text = path.removeprefix("@document."), row.document
    elif path.startswith("@"):
        value = getattr(row, path[1:])
        if value == NEVER:
            return MISSING
        return EPOCH + timedelta(microseconds=value) if path in TIMES else value
    try:
        value = orjson.loads(text)
    except ValueError:
        return MISSING
    for escaped in re.findall(r"(?:\A|\.)((?:[^\\.]|\\.)*)", path, re.DOTALL):
        key = re.sub(r"\\(.)", r"\1", escaped, flags=re.DOTALL)
        if not isinstance(value, dict) or key not in value:
            return MISSING
        value = value[key]
    return value


def instant(text: Any) -> tuple[timedelta, int] | None:
    """The time since the epoch of a text that is a date, in seconds and nanoseconds of the second."""
    pattern = r"(\d{4}-\d\d-\d\d)(?:[Tt ](\d\d:\d\d)(?::(\d\d)(?:\.(\d+))?)?([Zz]|[+-]\d\d:[0-5]\d)?)?"
    found = re.fullmatch(pattern, text, re.ASCII) if isinstance(text, str) else None
    if found is None:
        return None
    day, minute, second, fraction, offset = found.groups()
    try:
        at = datetime.fromisoformat(f"{day}T{minute or '00:00'}:{second or '00'}{(offset or 'Z').upper()}")
    except ValueError:
        return None
    return at - EPOCH, int(f"{fraction or '0':0<9.9}")


def as_instants(value: Any) -> Any:
    """What `$date` compares: the instant of a string, those of the strings in an array."""
    if kind(value) == "array":
        return [one for one in map(instant, value) if one is not None]
    found = instant(value)
    return MISSING if found is None else found


def equal(value: Any, operand: Any) -> bool:
    if isinstance(operand, dict):
        value, operand = as_instants(value), instant(operand["$date"])
        return operand in value if isinstance(value, list) else bool(value == operand)
    return same(value, operand) or (kind(value) == "array" and any(same(member, operand) for member in value))


def holds(value: Any, operator: str, operand: Any) -> bool:
    match operator:
        case "$exists":
            return (value is not MISSING) == operand
        case "$ne":
            return not holds(value, "$eq", operand)
        case "$nin":
            return not holds(value, "$in", operand)
        case "$empty":
            return (value is MISSING or value is None or value == []) == operand
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
        case "$icontains":
            if kind(value) == "array":
                return any(kind(one) == "string" and one.casefold() == operand.casefold() for one in value)
            return kind(value) == "string" and operand.casefold() in value.casefold()
        case "$all":
            return kind(value) == "array" and all(any(same(one, member) for one in value) for member in operand)
    if isinstance(operand, dict):
        value, operand = as_instants(value), instant(operand["$date"])
        if isinstance(value, list) or value is MISSING:
            return False
    elif kind(value) != kind(operand):
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
            conditions = value if isinstance(value, dict) and "$date" not in value else {"$eq": value}
            fine = all(holds(value_at(row, key), name, _timed(key, one)) for name, one in conditions.items())
        if not fine:
            return False
    return True


def _timed(path: str, operand: Any) -> Any:
    if path not in TIMES or isinstance(operand, bool):
        return operand
    if isinstance(operand, dict):
        found, nanoseconds = instant(operand["$date"]) or (timedelta(0), 0)
        return EPOCH + found + timedelta(microseconds=nanoseconds // 1000)
    return [_timed(path, one) for one in operand] if isinstance(operand, list) else datetime.fromisoformat(operand)


KEYS = ["a", "b", "", "é", "a.b", "$x", "@id", "\\", "."]
PATHS = ["a", "b", "", "é", "a.a", "a.b", "a.", "a.b.a", ".", ".a", "a.$x", "a.@id", "zz", "a.0"]
PATHS += ["@document.a", "@document.b", "@document.a.a", "@document.", r"@document.a\.b", "@document.@id"]
PATHS += [r"a\.b", r"\$x", r"\@id", r"\a", r"\\", r"a.\\", r"\.", r"a.a\.b", r"\..\b"]
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
STRINGS += ["ß", "SS", "\u017f", "İ", "\u212a", "\ufb01", "AB", "aBé", "AÉ", "\u03a3\u03c2"]
DATES = ["2025-06-01", "2025-06-01T00:00", "2025-06-01T02:00:00+02:00", "2025-05-31T22:00:00.0-02:00"]
DATES += ["2025-06-01T00:00:00.000000001Z", "2025-06-01 00:00:00.0000000019", "2025-06-01t00:00z"]
# A Python datetime cannot hold the last of these in UTC.
LAST_DATES = ["9999-12-31T23:59:59.999999999-23:59", "9999-12-31T23:59:59.999999998-23:59"]
LAST_DATES += ["1969-12-31T23:59:59.9999999999", "0001-01-01T00:00+23:59"]
NO_DATES = ["2025-02-30", "2025-06-01T24:00", "2025-06-01T00:00:60Z", "2025-06-01T00:00+24:00", "2025-06-01Z"]
NO_DATES += ["٢٠٢٥-06-01"]
numbers = st.sampled_from(NUMBERS) | st.integers(-3, 3) | st.integers(-(2**63), 2**64 - 1)
numbers |= st.floats(allow_nan=False, allow_infinity=False)
# Around one day, so that many are equal.
near_dates = st.builds(
    "2025-{}{}{}{}{}".format,
    st.sampled_from(["05-31", "06-01", "06-02"]),
    st.sampled_from(["T", "t", " "]),
    st.sampled_from(["22:00", "00:00", "02:30:00", "01:59:59.9", "01:59:59.900000000", "23:59:60", "12:0"]),
    st.sampled_from(["", "Z", "z"]),
    st.sampled_from(["", "", "+02:00", "-02:30", "-23:59", "+24:00"]),
)
dates = st.sampled_from([*DATES, *LAST_DATES])
strings = st.sampled_from(STRINGS) | dates | st.sampled_from(NO_DATES)
strings |= st.text(st.characters(exclude_categories=["Cs"]), max_size=3)
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
# Few documents, so that rows share them.
documents = st.lists(metadata_texts, min_size=1, max_size=2)
expiries = st.just(NEVER) | microseconds
rows = documents.flatmap(
    lambda some: st.lists(
        st.builds(
            Attributes,
            strings,
            st.none() | strings,
            microseconds,
            metadata_texts,
            st.sampled_from([b"", *some, *some]),
            expiries,
        ),
        max_size=12,
    )
)


@st.composite
def times(draw: st.DrawFn) -> str:
    zone = timezone(timedelta(minutes=draw(st.integers(-23 * 60, 23 * 60))))
    return (EPOCH + timedelta(microseconds=draw(microseconds))).astimezone(zone).isoformat()


@st.composite
def conditions(draw: st.DrawFn) -> dict[str, Any]:
    path = draw(st.sampled_from([*PATHS, "a", "b", "@id", "@document_id", *TIMES]))
    instants = dates.map(lambda text: {"$date": text})
    if path in TIMES:
        # Finer ones are refused.
        instants = st.sampled_from([text for text in DATES if "00000" not in text]).map(lambda text: {"$date": text})
        eq, ordered, names = (
            times() | instants,
            times() | instants,
            ["$eq", "$ne", "$gt", "$gte", "$lt", "$lte", "$in", "$nin", "$exists", ""],
        )
    else:
        eq, ordered = operands | instants, numbers | strings | instants
        names = [*(name for name in OPERATORS), ""]
    takes = {"": eq, "$eq": eq, "$ne": eq, "$exists": st.booleans(), "$contains": scalars, "$prefix": strings}
    takes |= {"$empty": st.booleans(), "$all": st.lists(operands, max_size=3), "$icontains": strings}
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
    found, distinct = rank_values(columns.counts(field_name(path), allowed), ValuePage(1000))
    assert len(found) == distinct
    return found
