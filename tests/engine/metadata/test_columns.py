"""Columns match what a plain evaluator matches, built, merged or loaded; they cost what their values cost."""

import tempfile
import threading
import time
import tracemalloc
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, timezone
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from apps.engine.metadata import Attributes, Columns
from apps.engine.metadata.facets import most_frequent
from apps.engine.metadata.filters import MAX_SUBSTRINGS, parse_filter
from apps.engine.vectors import Mask
from tests.engine.data import bounded
from tests.server import ROOT

MISSING = object()
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def row_of(metadata: Any, i: int = 0, *, document_id: str | None = None, created_at: int = 0) -> Attributes:
    text = metadata if isinstance(metadata, bytes) else orjson.dumps(metadata)
    return Attributes(f"c-{i}", document_id, created_at, text)


def columns_of(*metadata: Any) -> Columns:
    return Columns.build([row_of(one, i) for i, one in enumerate(metadata)])


def matched(columns: Columns, raw: Any) -> list[int]:
    mask = columns.mask(parse_filter(raw))
    assert mask.dtype == np.bool_
    assert mask.shape == (len(columns),)
    return np.flatnonzero(mask).tolist()


# The rules, in plain Python.


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


def loaded(columns: Columns, folder: str) -> Columns:
    columns.save(Path(folder))
    return Columns.load(Path(folder))


@bounded(200)
@given(rows, st.lists(raw_filters, min_size=1, max_size=6), st.randoms(use_true_random=False))
def test_columns_match_what_a_plain_evaluator_matches(
    given_rows: list[Attributes], filters: list[dict[str, Any]], random: Any
) -> None:
    order = random.sample(range(len(given_rows)), random.randint(0, len(given_rows)))
    cuts = sorted(random.choices(range(len(given_rows) + 1), k=2))
    parts = [Columns.build(given_rows[a:b]) for a, b in pairwise([0, *cuts, len(given_rows)])]
    merged = Columns.merge(parts, np.array(order, np.int64))
    assert len(merged) == len(order)
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        built = Columns.build(given_rows)
        whole = [built, loaded(built, one), Columns.merge([built], np.arange(len(given_rows)))]
        chosen = [merged, loaded(merged, other), Columns.build([given_rows[i] for i in order])]
        for raw in filters:
            expected = [i for i, row in enumerate(given_rows) if matches(row, raw)]
            for columns in whole:
                assert matched(columns, raw) == expected
            for columns in chosen:
                assert [order[i] for i in matched(columns, raw)] == [i for i in order if i in expected]


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
    found, distinct = most_frequent([columns.counts(path, allowed)], 1000)
    assert len(found) == distinct
    return found


@bounded(150)
@given(rows, st.sampled_from([*PATHS, "@id", "@document_id"]), st.randoms(use_true_random=False))
def test_facets_count_as_a_plain_loop_does(given_rows: list[Attributes], path: str, random: Any) -> None:
    columns = Columns.build(given_rows)
    allowed = np.array([random.random() < 0.5 for _ in given_rows], np.bool_)
    expected = plain_facet(given_rows, path)
    found = facet(columns, path)
    assert [(rank(value), count) for value, count in found] == expected
    assert orjson.loads(orjson.dumps(found)) == [list(one) for one in found]
    for limit in (0, 1, 2, 100):
        assert most_frequent([columns.counts(path)], limit) == (found[:limit], len(found))
    some = [row for row, yes in zip(given_rows, allowed, strict=True) if yes]
    assert [(rank(value), count) for value, count in facet(columns, path, allowed)] == plain_facet(some, path)
    # Rows in several parts are counted as those of one.
    bounds = [len(given_rows) // 3, 2 * len(given_rows) // 3]
    parts = [Columns.build(given_rows[start:end]) for start, end in pairwise([0, *bounds, len(given_rows)])]
    for limit in (0, 1, 2, 100):
        assert most_frequent([part.counts(path) for part in parts], limit) == (found[:limit], len(found))
    masked = [part.counts(path, mask) for part, mask in zip(parts, np.split(allowed, bounds), strict=True)]
    assert most_frequent(masked, 100)[0] == facet(columns, path, allowed)


def test_facets_give_values_as_json_has_them() -> None:
    columns = columns_of({"a": 1.0}, {"a": [1, 1, "x"]}, {"a": True}, {"a": 0.5}, {"a": None}, {"a": {"b": 1}}, {})
    found = facet(columns, "a")
    assert [(type(value), value, count) for value, count in found] == [
        (int, 1, 2),
        (type(None), None, 1),
        (bool, True, 1),
        (float, 0.5, 1),
        (str, "x", 1),
    ]
    large = facet(columns_of({"a": 2.0**64}, {"a": 2**64 - 1}, {"a": -(2.0**63)}, {"a": 1e300}), "a")
    assert [type(value) for value, _ in large] == [int, int, float, float]
    assert facet(columns, "a", np.zeros(7, np.bool_)) == facet(columns, "none") == []
    for path in ("@created_at", "@score", "$and"):
        with pytest.raises(ValueError, match="no field whose values are counted"):
            columns.counts(path)


def documented() -> list[tuple[str, str, str]]:
    text = (ROOT / "docs" / "filters.md").read_text().partition("\n## Examples")[2].partition("\n## ")[0]
    cells = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| `{")]
    return [(raw.strip("`"), metadata.strip("`"), answer) for raw, metadata, answer in cells]


@pytest.mark.parametrize(("raw", "metadata", "answer"), documented())
def test_what_the_document_says_matches(raw: str, metadata: str, answer: str) -> None:
    created_at = (datetime(2026, 1, 31, 12, 0, 0, 500_000, UTC) - EPOCH) // timedelta(microseconds=1)
    row = row_of(metadata.encode(), 1, created_at=created_at)
    expected = {"yes": [0], "no": []}[answer]
    assert matched(Columns.build([row]), orjson.loads(raw)) == expected
    # Among other rows, some of which have the value too.
    several = Columns.build([row_of({}), row, row_of({"a": 1, "b": "hello"}), row])
    assert [i for i in matched(several, orjson.loads(raw)) if i in (1, 3)] == [1, 3] * len(expected)


def test_the_document_has_examples_of_both_kinds() -> None:
    assert Counter(answer for _, _, answer in documented()).keys() == {"yes", "no"}
    assert len(documented()) > 70


@pytest.mark.parametrize("depth", [16, 17, 60, 900])
def test_deep_metadata_is_no_danger(depth: int) -> None:
    arrays, objects = b"[" * depth + b"]" * depth, b'{"a":' * depth + b"1" + b"}" * depth
    columns = columns_of(b'{"x":%s,"y":%s}' % (arrays, objects), {"x": 1})
    assert matched(columns, {"x": {"$exists": True}}) == [0, 1]
    assert matched(columns, {".".join(["y", *"a" * depth]): 1}) == [0]
    operand: Any = []
    for _ in range(15):
        operand = [operand]
    assert matched(columns, {"x": operand}) == ([0] if depth in (16, 17) else [])


@pytest.mark.parametrize("count", [0, 1])
def test_few_rows(count: int) -> None:
    columns = Columns.build([row_of({"a": 1})] * count)
    assert (len(columns), columns.nbytes > 0) == (count, True)
    assert matched(columns, {}) == matched(columns, {"a": {"$exists": True}}) == list(range(count))
    assert matched(Columns.merge([], np.empty(0, np.int64)), {"a": 1}) == []


def test_most_rows_or_few_match() -> None:
    columns = columns_of(*({"a": i % 4 > 0, "b": i % 7, "c": [i % 3]} for i in range(100)))
    assert matched(columns, {"a": True}) == [i for i in range(100) if i % 4]
    assert matched(columns, {"b": {"$gt": 0}}) == [i for i in range(100) if i % 7]
    assert matched(columns, {"b": {"$gte": 1, "$lt": 6}}) == [i for i in range(100) if 1 <= i % 7 < 6]
    assert matched(columns, {"c": {"$in": [0, 1, 2]}}) == list(range(100))
    assert columns.mask(parse_filter({"a": True})).flags.writeable
    columns = columns_of(*({"a": i % 8} if i % 5 else {} for i in range(100)))
    assert matched(columns, {"a": {"$gt": 0}}) == [i for i in range(100) if i % 5 and i % 8]


def test_blocks_are_merged_in_any_order() -> None:
    given_rows = [
        row_of(
            {"n": i % 7, "tags": [f"t{i % 11}", i], "deep": {"a": [[i % 3]]}, "rare": "x"} if i % 9 else {"rare": [i]},
            i,
            document_id=None if i % 4 else f"d{i % 5}",
            created_at=(i * 37) % 100 * 1_000_000,
        )
        for i in range(300)
    ]
    order = np.random.default_rng(1).permutation(300)[:170]
    parts = [Columns.build(given_rows[a:b]) for a, b in pairwise([0, 10, 10, 150, 300])]
    once = Columns.merge(parts[:2], np.arange(10)[::-1])
    twice = Columns.merge([once, *parts[2:]], np.where(order < 10, 9 - order, order))
    for raw in (
        {"n": {"$gte": 3}},
        {"tags": "t4"},
        {"tags": {"$contains": 123}},
        {"tags": {"$in": ["t1", 7, 299]}},
        {"deep.a": [[1]]},
        {"deep.a": [2]},
        {"deep": {"$exists": False}},
        {"rare": {"$in": [9, 18, "x"]}},
        {"@id": {"$prefix": "c-1"}},
        {"@document_id": {"$ne": None}},
        {"@created_at": {"$lt": "1970-01-01T00:00:40Z"}},
        {"@created_at": "1970-01-01T00:00:37Z"},
    ):
        expected = [place for place, i in enumerate(order) if matches(given_rows[i], raw)]
        assert expected or raw == {"tags": {"$contains": 123}}
        for columns in (Columns.merge(parts, order), twice):
            assert matched(columns, raw) == expected
    for path in ("n", "tags", "rare", "@document_id"):
        found = [(rank(value), count) for value, count in facet(Columns.merge(parts, order), path)]
        assert found == plain_facet([given_rows[i] for i in order], path)
    # Nothing is left of rows that were left out.
    assert Columns.merge(parts, order[:1]).nbytes < 1_000


def test_an_array_is_told_from_another_whose_members_read_alike() -> None:
    columns = columns_of({"a": ["a", "b"]}, {"a": ["a\4b"]}, {"a": [["a"], "b"]}, {"a": [["a", "b"]]}, {"a": [[], []]})
    assert matched(columns, {"a": ["a", "b"]}) == [0, 3]
    assert matched(columns, {"a": ["a\4b"]}) == [1]
    assert matched(columns, {"a": []}) == [4]


@example([*(f"a{i}" for i in range(40)), "b"], "\4b")
@example([*(f"a{i}" for i in range(40)), "b"], "a9\4b")
@example([*(f"a{i}" for i in range(40)), "b\4b"], "\4b")
@bounded(100)
@given(st.lists(st.text("ab\4é", max_size=5), max_size=40), st.text("ab\4é", max_size=3))
def test_parts_of_strings_do_not_reach_into_the_next(texts: list[str], part: str) -> None:
    found = matched(columns_of(*({"a": text} for text in texts)), {"a": {"$contains": part}})
    assert found == [i for i, text in enumerate(texts) if part in text]


def test_files_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    columns_of({"a": [1, "x"]}, {"b": None}).save(tmp_path)
    assert len(list(tmp_path.iterdir())) == 2
    assert facet(Columns.load(tmp_path), "a") == [(1, 1), ("x", 1)]
    header, packed = tmp_path / "columns.json", tmp_path / "columns.npy"
    says, content = header.read_bytes(), packed.read_bytes()
    for broken in (
        b"",
        b"[]",
        b"{}",
        says.replace(b'"format":1', b'"format":2'),
        says.replace(b'"rows"', b'"rose"'),
        says.replace(b"<u4", b"<f4"),
        says.replace(b"<i8", b"<u8"),
        says.replace(b'"<u4",', b'"<u4",1', 1),
        says.replace(b'"<u4",', b'"<u8",', 1),
        says.replace(b"],", b"00],", 1),
        says.replace(b'",', b'",-', 1),
        says.replace(b',"values"', b',"names"', 1),
        says.replace(b'"rows"', b'"?"').replace(b'"member_rows"', b'"rows"').replace(b'"?"', b'"member_rows"'),
        says[:-9] + b"}}",
    ):
        assert broken != says
        header.write_bytes(broken)
        with pytest.raises(ValueError):
            Columns.load(tmp_path)
    header.write_bytes(says)
    for shorter in (b"", content[:-1], content[: len(content) // 2], content[:100]):
        packed.write_bytes(shorter)
        with pytest.raises(ValueError):
            Columns.load(tmp_path)
    packed.write_bytes(content)
    longer = np.append(np.load(packed), np.zeros(64, np.uint8))
    for other in (longer, np.zeros(10)):
        np.save(packed, other)
        with pytest.raises(ValueError):
            Columns.load(tmp_path)
    packed.unlink()
    with pytest.raises(OSError):
        Columns.load(tmp_path)


def test_cost_follows_values_and_not_rows_times_fields(tmp_path: Path) -> None:
    count = 20_000
    rows = [row_of({f"key {i}": i}, i) for i in range(count)]
    tracemalloc.start()
    start = time.perf_counter()
    columns = Columns.build(rows)
    held, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert time.perf_counter() - start < 10
    assert columns.nbytes < 100 * count
    assert held < 120 * count
    assert peak < 2_500 * count
    merged = Columns.merge([columns, columns], np.arange(2 * count)[1::2])
    assert merged.nbytes < 100 * count
    columns.save(tmp_path)
    start = time.perf_counter()
    mapped = Columns.load(tmp_path)
    assert matched(mapped, {"key 777": 777}) == [777]
    assert matched(mapped, {"key 777": {"$exists": False}, "key 778": {"$gt": 1}}) == [778]
    assert time.perf_counter() - start < 0.5
    assert matched(merged, {"key 777": {"$gte": 0}}) == [388, 388 + count // 2]


def test_hostile_filters_are_answered_in_bounded_time() -> None:
    columns = columns_of(*({"a": f"{i:06} aaaa", "b": i} for i in range(2_000)))
    start = time.perf_counter()
    many = [f"{i:06} aaaa" for i in range(10_000)]
    assert len(matched(columns, {"$or": [{"a": {"$in": many}}] * 10})) == 2_000
    assert len(matched(columns, {"$or": [{"a": {"$contains": "a"}}] * MAX_SUBSTRINGS})) == 2_000
    assert matched(columns, {"a": {"$contains": "(a+)+$"}}) == []
    assert len(matched(columns, {"$and": [{"b": {"$gte": 0}}] * 1_000})) == 2_000
    assert time.perf_counter() - start < 15


def test_many_threads_may_read() -> None:
    columns = columns_of(*({"a": i % 10, "b": [str(i % 7)]} for i in range(2_000)))
    raws = [{"a": 3}, {"b": "5"}, {"a": {"$lt": 5}}, {"a": {"$in": [1, 2]}, "b": {"$contains": "1"}}]
    expected = [matched(columns, raw) for raw in raws]
    wrong: list[Any] = []

    def read() -> None:
        for _ in range(50):
            wrong.extend(raw for raw, rows in zip(raws, expected, strict=True) if matched(columns, raw) != rows)

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
