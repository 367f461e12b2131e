"""The filter language: what is read, what is refused and where, and that no filter takes long to refuse."""

import sys
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.engine.errors import EngineError, InvalidFilter
from apps.engine.metadata.filters import (
    MAX_CONDITIONS,
    OPERATORS,
    OWN_FIELDS,
    And,
    Between,
    Contains,
    Not,
    OneOf,
    Or,
    parse_filter,
)
from apps.engine.metadata.operands import MAX_IN_VALUES, MAX_SUBSTRINGS, MAX_VALUES
from apps.engine.metadata.values import ARRAY, LAST, MAX_DEPTH, NULL, NUMBER, STRING, key_of
from tests.engine.data import bounded
from tests.server import ROOT

DOCUMENT = (ROOT / "docs" / "filters.md").read_text()


def refused(raw: object) -> InvalidFilter:
    with pytest.raises(InvalidFilter) as caught:
        parse_filter(raw)
    return caught.value


def nested(raw: object, times: int, operator: str) -> object:
    for _ in range(times):
        raw = {"$not": raw} if operator == "$not" else {operator: [raw]}
    return raw


def one_of(path: str, *values: Any) -> OneOf:
    return OneOf(path, tuple(key_of(value) for value in values))


def test_a_filter_becomes_a_tree() -> None:
    assert parse_filter({"a": 1}) == parse_filter({"a": {"$eq": 1}}) == one_of("a", 1)
    assert parse_filter({"a": [1, [2]]}) == one_of("a", [1, [2]])
    assert parse_filter({"a": {"$ne": 1}}) == Not(one_of("a", 1))
    assert parse_filter({"a": {"$in": [1, "x"]}}) == one_of("a", 1, "x")
    assert parse_filter({"a": {"$nin": []}}) == Not(one_of("a"))
    greater, least = Between("a", key_of(1) + b"\0", STRING), Between("a", NUMBER, key_of(5) + b"\0")
    assert parse_filter({"a": {"$gt": 1, "$lte": 5}}) == And((greater, least))
    assert parse_filter({"a": {"$gte": "x"}}) == Between("a", key_of("x"), ARRAY)
    assert parse_filter({"a": {"$lt": "x"}}) == Between("a", STRING, key_of("x"))
    assert parse_filter({"a": {"$exists": False}}) == Not(Between("a", b"", LAST))
    prefix = Between("b", STRING, STRING + LAST)
    assert parse_filter({"a": {"$contains": None}, "b": {"$prefix": ""}}) == And((Contains("a", NULL), prefix))
    assert parse_filter({"$or": [{"a": 1}, {"b": 2}]}) == Or((one_of("a", 1), one_of("b", 2)))
    assert parse_filter({"$not": {"$and": [{"a": 1}]}}) == Not(And((one_of("a", 1),)))


@pytest.mark.parametrize("raw", [{}, {"$and": [{}, {}]}, {"$or": [{"a": 1}, {}]}])
def test_a_filter_without_condition_says_that_it_is_everything(raw: object) -> None:
    assert parse_filter(raw).is_everything


@pytest.mark.parametrize("raw", [{"a": 1}, {"$and": [{}, {"a": 1}]}, {"$or": [{"a": 1}]}, {"$not": {}}])
def test_a_filter_with_a_condition_does_not_say_so(raw: object) -> None:
    assert not parse_filter(raw).is_everything


@pytest.mark.parametrize(
    ("text", "microseconds"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01t00:00:00.000001z", 1),
        ("1969-12-31T23:59:59.999999Z", -1),
        ("1970-01-01T01:00:00.5+01:00", 500_000),
        ("1969-12-31T18:30:00-05:30", 0),
        ("1970-01-01T00:00:00.120000000-00:00", 120_000),
        ("2026-01-31T12:00:00.123456Z", 1_769_860_800_123_456),
        ("0001-01-01T00:00:00+23:59", -62_135_596_800_000_000 - (23 * 60 + 59) * 60_000_000),
        ("9999-12-31T23:59:59.999999-23:59", 253_402_300_799_999_999 + (23 * 60 + 59) * 60_000_000),
    ],
)
def test_times_are_instants(text: str, microseconds: int) -> None:
    assert parse_filter({"@created_at": text}) == one_of("@created_at", microseconds)


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        ("2026-01-31T12:00:00", "takes an RFC 3339 time with an offset"),
        ("2026-01-31 12:00:00Z", "takes an RFC 3339 time with an offset"),
        ("2026-01-31T12:00:00Z\n", "takes an RFC 3339 time with an offset"),
        ("٢٠٢٦-01-31T12:00:00Z", "takes an RFC 3339 time with an offset"),
        ("2026-W05-6T12:00:00Z", "takes an RFC 3339 time with an offset"),
        (1_769_860_800, "takes an RFC 3339 time with an offset"),
        (None, "takes an RFC 3339 time with an offset"),
        ("2026-01-31", "takes an RFC 3339 time with an offset"),
        ("2026-02-30T12:00:00Z", "takes an RFC 3339 time with an offset"),
        ("2026-01-31T25:00:00Z", "takes an RFC 3339 time with an offset"),
        ("0000-01-01T00:00:00Z", "takes an RFC 3339 time with an offset"),
        ("2026-01-31T12:00:00+24:00", "takes an RFC 3339 time with an offset"),
        ("2026-01-31T12:00:00.1234567Z", "has more than six digits"),
    ],
)
def test_a_bad_time_is_refused(raw: object, reason: str) -> None:
    error = refused({"@created_at": {"$lt": raw}})
    assert error.path == ("@created_at", "$lt")
    assert reason in error.reason
    assert refused({"@created_at": {"$in": ["1970-01-01T00:00:00Z", raw]}}).path == ("@created_at", "$in", 1)


def test_a_date_finer_than_the_times_of_chunks_is_refused_for_them() -> None:
    for operator in ("$eq", "$gte", "$lt"):
        error = refused({"@expires_at": {operator: {"$date": "2026-01-31T12:00:00.123456001Z"}}})
        assert error.path == ("@expires_at", operator, "$date")
        assert "more than six digits" in error.reason
        assert parse_filter({"@expires_at": {operator: {"$date": "2026-01-31T12:00:00.123456000Z"}}})
        assert parse_filter({"day": {operator: {"$date": "2026-01-31T12:00:00.123456001Z"}}})


def test_what_the_document_says_is_refused_so() -> None:
    cases = [row.split(" | ") for row in DOCUMENT.partition("\n## Errors")[2].splitlines() if row.startswith("| `{")]
    assert len(cases) > 10
    for cell, pointer, detail in cases:
        error = refused(orjson.loads(cell.strip("|` ")))
        assert "/filter" + "".join(f"/{step}" for step in error.path) == pointer.strip("`")
        assert error.reason == detail.strip("| ")


def test_the_document_has_every_operator_and_limit() -> None:
    for name in (*OPERATORS, "$and", "$or", "$not", *OWN_FIELDS):
        assert f"`{name}`" in DOCUMENT
    limits = DOCUMENT.partition("\n## Limits")[2]
    for limit in (MAX_CONDITIONS, MAX_SUBSTRINGS, MAX_IN_VALUES, MAX_VALUES):
        assert f" {limit:,} |" in limits
    assert f" {MAX_DEPTH} deep |" in limits


@pytest.mark.parametrize("raw", [None, 5, "x", [], [{}], True])
def test_a_filter_is_an_object(raw: object) -> None:
    error = refused(raw)
    assert (error.path, isinstance(error, EngineError)) == ((), True)
    assert str(error) == 'filter: must be a filter, which is an object such as {"field": value}'


@pytest.mark.parametrize(
    ("raw", "path", "reason"),
    [
        ({"x": {"$eq": {"a": 1}}}, ("x", "$eq"), "takes a string, a number"),
        ({"x": {"a": 1}}, ("x", "a"), "is not an operator"),
        ({"x": {"$regex": "(a+)+$"}}, ("x", "$regex"), "is not an operator; there are $eq,"),
        ({"x": [1, [{"a": 1}]]}, ("x", 1, 0), "a.b reaches into objects"),
        ({"x": {"$nin": "abc"}}, ("x", "$nin"), "takes a list of values"),
        ({"x": {"$lt": True}}, ("x", "$lt"), "takes a number or a string"),
        ({"x": {"$gte": [1]}}, ("x", "$gte"), "takes a number or a string"),
        ({"x": {"$exists": None}}, ("x", "$exists"), "takes true or false"),
        ({"x": {"$contains": {}}}, ("x", "$contains"), "takes a string, a number"),
        ({"x": 2**64}, ("x",), "beyond 64 bits"),
        ({"x": {"$lt": -(2**63) - 1}}, ("x", "$lt"), "beyond 64 bits"),
        ({"x": {"$in": [float("nan")]}}, ("x", "$in", 0), "finite"),
        ({"x": {"$gt": float("inf")}}, ("x", "$gt"), "finite"),
        ({"x": {"$prefix": "\ud800"}}, ("x", "$prefix"), "surrogate"),
        ({"x": "\udfff"}, ("x",), "surrogate"),
        ({"\ud800": 1}, (), "not Unicode"),
        ({5: 1}, (), "not Unicode"),
        ({"x": {"\ud800": 1}}, ("x",), "not Unicode"),
        ({"x": object()}, ("x",), "takes a string, a number"),
        ({"$and": {"a": 1}}, ("$and",), "takes a non-empty list of filters"),
        ({"$not": [{"a": 1}]}, ("$not",), "must be a filter"),
        ({"$or": [{"a": 1}, {"b": {"$x": 1}}]}, ("$or", 1, "b", "$x"), "is not an operator"),
        ({"$where": "while(1);"}, ("$where",), "is not an operator"),
        ({"@id.x": 1}, ("@id.x",), "is not a field of a chunk"),
        ({"@": 1}, ("@",), "is not a field of a chunk"),
        ({"@created_at": {"$contains": "20"}}, ("@created_at", "$contains"), "is not for times"),
        ({"@created_at": {"$exists": 1}}, ("@created_at", "$exists"), "takes true or false"),
    ],
)
def test_a_refusal_says_where_and_what_to_do(raw: object, path: tuple[str | int, ...], reason: str) -> None:
    error = refused(raw)
    assert error.path == path
    assert reason in error.reason


@pytest.mark.parametrize("operator", ["$not", "$and", "$or"])
def test_nesting_has_a_limit(operator: str) -> None:
    parse_filter(nested({"a": 1}, MAX_DEPTH, operator))
    step: tuple[str | int, ...] = (operator,) if operator == "$not" else (operator, 0)
    for times in (MAX_DEPTH + 1, 500, 100_000):
        error = refused(nested({"a": 1}, times, operator))
        assert error.path == (*step * MAX_DEPTH, operator)
        assert "nests deeper than 16" in error.reason


def test_nesting_of_arrays_has_a_limit() -> None:
    operand: Any = 1
    for _ in range(MAX_DEPTH):
        operand = [operand]
    parse_filter({"a": operand})
    for _ in range(sys.getrecursionlimit() * 2):
        operand = [operand]
    assert refused({"a": {"$eq": operand}}).path == ("a", "$eq", *[0] * MAX_DEPTH)


def test_the_number_of_conditions_has_a_limit() -> None:
    parse_filter({"$or": [{"a": i} for i in range(MAX_CONDITIONS)]})
    parse_filter({str(i): {"$gt": 1, "$lt": 5} for i in range(MAX_CONDITIONS // 2)})
    for one in ({"a": 1}, {}):
        error = refused({"$or": [one] * 1_000_000})
        assert error.path[:2] == ("$or", MAX_CONDITIONS)
        assert "at most 1000" in error.reason
    assert refused({str(i): {"$gt": 1, "$lt": 5} for i in range(MAX_CONDITIONS)}).path == ("500", "$gt")


def test_the_number_of_values_has_a_limit() -> None:
    many = list(range(MAX_IN_VALUES))
    parse_filter({"$or": [{"a": {"$in": many}}] * 10})
    assert refused({"a": {"$in": [*many, 1]}}).reason == "takes at most 10000 values, not 10001"
    times = ["1970-01-01T00:00:00Z"] * (MAX_IN_VALUES + 1)
    assert refused({"@created_at": {"$nin": times}}).path == ("@created_at", "$nin")
    error = refused({"$or": [{"a": {"$in": many}}] * 11})
    assert error.path == ("$or", 10, "a", "$in", 0)
    assert refused({"$or": [{"@created_at": {"$in": times[1:]}}] * 11}).path == ("$or", 10, "@created_at", "$in", 0)
    assert "at most 100000" in error.reason
    assert refused({"a": [0] * 1_000_000}).path == ("a", MAX_VALUES - 1)


def test_hostile_filters_are_refused_at_once() -> None:
    """Takes ages where they are read to their end."""
    wide: Any = {"a": 1}
    for _ in range(MAX_DEPTH):
        wide = {"$and": [wide] * 1000}  # 10**48 conditions, few objects
    refused(wide)
    refused({"a": [[[0] * 1000] * 1000] * 1000})


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from([*OPERATORS, "$and", "$or", "$not", *OWN_FIELDS, "a", "$"]) | st.text(), inner, max_size=3
        )
    ),
    max_leaves=12,
)


@bounded(400)
@given(anything)
def test_any_json_is_a_filter_or_is_refused_with_a_way_to_the_place(raw: Any) -> None:
    try:
        parse_filter(raw)
    except InvalidFilter as error:
        for step in error.path:
            raw = raw[step]


def test_so_many_substrings_and_no_more() -> None:
    parts = [{"a": {"$contains": str(i)}} for i in range(MAX_SUBSTRINGS + 1)]
    parse_filter({"$or": parts[1:]})
    parse_filter({"$or": [{"a": {"$contains": i}} for i in range(MAX_SUBSTRINGS + 1)]})
    error = refused({"$and": [parts[0], {"$or": parts[1:]}]})
    assert error.path == ("$and", 1, "$or", MAX_SUBSTRINGS - 1, "a", "$contains")
    assert error.reason == "is one substring too many; a filter has at most 50"
