"""Columns match what a plain evaluator matches, built, merged or loaded; they cost what their values cost."""

import tempfile
import threading
import tracemalloc
from collections import Counter
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from apps.engine.errors import InvalidFilter
from apps.engine.metadata import Attributes, Columns
from apps.engine.metadata.filters import And, Condition, Filter, Not, parse_filter
from apps.engine.metadata.operands import MAX_SUBSTRINGS
from apps.engine.metadata.table import evaluate
from apps.engine.metadata.texts import replace_text_conditions, text_test
from apps.engine.metadata.values import key_of, numbers_of, scalar_of
from apps.engine.strings import Strings
from tests.engine.data import bounded
from tests.engine.metadata.evaluator import (
    EPOCH,
    columns_of,
    dates,
    facet,
    instant,
    matched,
    matches,
    near_dates,
    plain_facet,
    rank,
    raw_filters,
    row_of,
    rows,
)
from tests.server import ROOT


def loaded(columns: Columns, folder: str) -> Columns:
    columns.save(Path(folder))
    return Columns.load(Path(folder))


def matched_among(rows: list[int], columns: Columns, raw: Any) -> list[int]:
    some = np.array(rows, np.int64)
    return some[evaluate(parse_filter(raw), some, lambda one: columns.matches_at(one, some))].tolist()


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
                assert matched_among(order, columns, raw) == [i for i in order if i in expected]
            for columns in chosen:
                assert [order[i] for i in matched(columns, raw)] == [i for i in order if i in expected]


@bounded(200)
@given(
    st.lists(dates | near_dates, min_size=1, max_size=8),
    st.sampled_from(["$eq", "$ne", "$gt", "$gte", "$lt", "$lte"]),
    dates | near_dates,
)
def test_dates_are_compared_as_instants(texts: list[str], operator: str, operand: str) -> None:
    raw = {"a": {operator: {"$date": operand}}}
    if instant(operand) is None:
        with pytest.raises(InvalidFilter, match="takes an RFC 3339 date or time"):
            parse_filter(raw)
        return
    # In arrays too, of which `$eq` sees the members.
    given_rows = [row_of({"a": text}, i) for i, text in enumerate(texts)]
    given_rows += [row_of({"a": [1, text]}, i) for i, text in enumerate(texts)]
    assert matched(Columns.build(given_rows), raw) == [i for i, row in enumerate(given_rows) if matches(row, raw)]


def documented() -> list[tuple[str, str, str]]:
    text = (ROOT / "docs" / "filters.md").read_text().partition("\n## Examples")[2].partition("\n## ")[0]
    cells = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| `{")]
    return [(raw.strip("`"), metadata.strip("`"), answer) for raw, metadata, answer in cells]


@pytest.mark.parametrize(("raw", "metadata", "answer"), documented())
def test_what_the_document_says_matches(raw: str, metadata: str, answer: str) -> None:
    def decide(condition: Condition) -> Filter:
        """What stands for a condition on the text, which is in no column."""
        return And(()) if text_test(condition)("The cat sat.") else Not(And(()))

    def found(columns: Columns) -> list[int]:
        return np.flatnonzero(columns.mask(replace_text_conditions(parse_filter(orjson.loads(raw)), decide))).tolist()

    created_at = (datetime(2026, 1, 31, 12, 0, 0, 500_000, UTC) - EPOCH) // timedelta(microseconds=1)
    document = '{"topic": "cats", "author": {"born": "1899-07-21"}, "a.b": [1, 2]}'
    row = row_of(metadata.encode(), 1, created_at=created_at, document=document)
    expected = {"yes": [0], "no": []}[answer]
    assert found(Columns.build([row])) == expected
    # Among other rows, some of which have the value too.
    several = Columns.build([row_of({}), row, row_of({"a": 1, "b": "hello"}), row])
    assert [i for i in found(several) if i in (1, 3)] == [1, 3] * len(expected)


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
            assert matched_among([*range(len(order))], columns, raw) == expected
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
        says.replace(b'"format":4', b'"format":3'),
        says.replace(b'"rows"', b'"rose"'),
        says.replace(b"<u4", b"<f4"),
        says.replace(b"<i8", b"<u8"),
        says.replace(b'"<u4",', b'"<u4",1', 1),
        says.replace(b'"<u4",', b'"<u8",', 1),
        says.replace(b"],", b"00],", 1),
        says.replace(b'",', b'",-', 1),
        says.replace(b',"values_text"', b',"names"', 1),
        says.replace(b"<u2", b"<u4"),
        says.replace(b"<u8", b"<i8"),
        says.replace(b'"first_start"', b'"first_stop"'),
        says[:-9] + b"}}",
        *(shorten(says, name) for name in orjson.loads(says)["arrays"] if not name.endswith("_at")),
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


def shorten(header: bytes, name: str) -> bytes:
    """A header that says of one array that it has one element less."""
    says = orjson.loads(header)
    says["arrays"][name][1] -= 1
    return orjson.dumps(says)


def test_cost_follows_values_and_not_rows_times_fields(tmp_path: Path) -> None:
    """Takes hours, and gigabytes, where it follows rows times fields."""
    count = 20_000
    rows = [row_of({f"key {i}": i}, i) for i in range(count)]
    tracemalloc.start()
    columns = Columns.build(rows)
    held, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert columns.nbytes < 100 * count
    assert held < 120 * count
    assert peak < 2_500 * count
    merged = Columns.merge([columns, columns], np.arange(2 * count)[1::2])
    assert merged.nbytes < 100 * count
    columns.save(tmp_path)
    mapped = Columns.load(tmp_path)
    assert matched(mapped, {"key 777": 777}) == [777]
    assert matched(mapped, {"key 777": {"$exists": False}, "key 778": {"$gt": 1}}) == [778]
    assert matched(merged, {"key 777": {"$gte": 0}}) == [388, 388 + count // 2]


def test_hostile_filters_are_answered_in_bounded_time() -> None:
    """Takes hours where a value costs a look at each row, or a pattern is searched for by trying all ways to match."""
    columns = columns_of(*({"a": f"{i:06} aaaa", "b": i} for i in range(2_000)))
    many = [f"{i:06} aaaa" for i in range(10_000)]
    assert len(matched(columns, {"$or": [{"a": {"$in": many}}] * 10})) == 2_000
    assert len(matched(columns, {"$or": [{"a": {"$contains": "a"}}] * MAX_SUBSTRINGS})) == 2_000
    assert matched(columns, {"a": {"$contains": "(a+)+$"}}) == []
    assert len(matched(columns, {"$and": [{"b": {"$gte": 0}}] * 1_000})) == 2_000


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


def test_values_by_row_are_kept_for_few_fields() -> None:
    rows = [Attributes(str(n), None, n, f'{{"f{n % 9}": {n}}}') for n in range(90)]
    columns = Columns.build(rows)
    for _ in range(2):
        for field in range(9):
            found = columns.keys_at(f"f{field}", np.arange(90))
            assert found == [key_of(n) if n % 9 == field else None for n in range(90)]
    assert columns.keys_at("absent", np.arange(2)) == [None, None]


@pytest.mark.parametrize("number", [0, -0.0, 1, -1, 0.1, -2.5e-300, 1e308, -(2**63), 2**64 - 1, 2**53 + 1])
def test_numbers_are_read_back_from_their_keys(number: float) -> None:
    keys = Strings.of([key_of(one) for one in (8, "1", number, [1], True, 7, {}, None)])
    found = numbers_of(keys.take(np.arange(1, 8)))
    assert found[[1, 4]].tolist() == [float(number), 7]
    assert np.isnan(found[[0, 2, 3, 5, 6]]).all()


def test_keys_of_numbers_are_in_the_order_of_the_numbers_and_short() -> None:
    large = [2**53, 2**53 + 1, 2**53 + 2, 2**63 - 1, 2.0**63, 2**64 - 1, 2.0**64, 1e300]
    numbers = [*(-one for one in reversed(large[:4])), -1.5, -1, -5e-324, 0, 5e-324, 0.1, 1, 1.5, 255, 256, *large]
    keys = [key_of(one) for one in numbers]
    assert keys == sorted(set(keys))
    assert [scalar_of(key) for key in keys] == numbers
    assert [len(key_of(one)) for one in (0, 1.0, 5, 1000, 70_000)] == [2, 3, 3, 4, 4]
