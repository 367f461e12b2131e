"""Rows in memory: what is derived from them is made of what a query asks for, in slices that are kept."""

from typing import Any

import numpy as np
import orjson
from hypothesis import given
from hypothesis import strategies as st

from apps.engine.metadata import Attributes
from apps.engine.metadata.filters import parse_filter
from apps.engine.storage.row_data import BufferedRows, Row
from tests.engine.data import bounded
from tests.engine.metadata.evaluator import matches, raw_filters, row_of, rows

MIB = 1 << 20


def with_metadata(*metadata: Any) -> list[Row]:
    return [Row(row_of(one, i), "") for i, one in enumerate(metadata)]


def with_texts(*texts: str) -> list[Row]:
    return [Row(row_of({}, i), text) for i, text in enumerate(texts)]


def matched(data: BufferedRows, raw: Any, count: int) -> list[int]:
    return np.flatnonzero(data.mask(parse_filter(raw), np.arange(count))).tolist()


@bounded(100)
@given(rows, st.lists(raw_filters, min_size=1, max_size=4), st.lists(st.integers(0, 40), max_size=4))
def test_rows_match_as_they_are_added(
    given_rows: list[Attributes], filters: list[dict[str, Any]], steps: list[int]
) -> None:
    # Rows are added while the columns of some fields are behind, and then asked of older views.
    data, ends = BufferedRows(), [*sorted(min(step, len(given_rows)) for step in steps), len(given_rows)]
    for turn, (start, end) in enumerate(zip([0, *ends], ends, strict=False)):
        data.append([Row(row, "") for row in given_rows[start:end]])
        raw = filters[turn % len(filters)]
        assert matched(data, raw, end) == [i for i in range(end) if matches(given_rows[i], raw)]
    for raw in filters:
        for end in ends:
            assert matched(data, raw, end) == [i for i in range(end) if matches(given_rows[i], raw)]


def test_a_filter_makes_the_columns_of_its_fields_only() -> None:
    grown = set()
    for keys in (1, 1_000):
        data = BufferedRows(with_metadata(*({f"k{i}_{j}": j for j in range(keys)} | {"a": i % 5} for i in range(100))))
        before = data.nbytes
        assert matched(data, {"a": 3}, 100) == list(range(3, 100, 5))
        grown.add(data.nbytes - before)
        assert matched(data, {"a": 4}, 100) == list(range(4, 100, 5))
        assert data.nbytes - before in grown, "the column is kept"
    assert len(grown) == 1, "whatever the number of keys"


def test_columns_take_no_more_memory_than_the_rows_that_they_are_made_of() -> None:
    data = BufferedRows(with_metadata(*({f"k{j}": f"{i} {j}" for j in range(400)} for i in range(200))))
    held = data.nbytes
    for turn in range(2):
        for j in range(400):
            assert matched(data, {f"k{j}": f"7 {j}"}, 200) == [7], turn
            assert data.nbytes < 2 * held + MIB
    # Those that one filter needs are there together.
    assert matched(data, {f"k{j}": {"$prefix": "9 "} for j in range(400)}, 200) == [9]


def test_keys_are_found_however_they_are_written() -> None:
    written = [b'{"\\u0061b":1}', b'{ "ab" : 1 }', b'{"x":{"a\\"b":1}}', '{"é":1}'.encode(), b'{"\\u00e9":1}']
    data = BufferedRows(with_metadata(*written, b'{"a":"ab"}', b'{"a":"\\"ab\\":1"}', b"[]", b"", b'{"ab":0}{"ab":1}'))
    for raw, expected in (({"ab": 1}, [0, 1]), ({'x.a"b': 1}, [2]), ({"é": 1}, [3, 4]), ({"a": "ab"}, [5])):
        assert matched(data, raw, 10) == expected


def test_texts_are_indexed_in_slices_that_are_kept() -> None:
    data = BufferedRows(with_texts(*["a " * (MIB // 4)] * 16))
    blocks = data.text_blocks(16)
    assert [len(block) for block in blocks] == [4, 4, 4, 4], "of 2 MiB each"
    for count in (17, 18):
        data.append(with_texts("one more"))
        again = data.text_blocks(count)
        assert [len(block) for block in again] == [4, 4, 4, 4, count - 16]
        assert all(one is other for one, other in zip(again, blocks, strict=False))


def test_rows_that_come_one_by_one_make_few_blocks() -> None:
    data = BufferedRows()
    for i in range(300):
        data.append(with_texts(f"row {i}"))
        blocks, columns = data.text_blocks(i + 1), data.column_blocks("@id", i + 1)
        assert sum(map(len, blocks)) == sum(map(len, columns)) == i + 1
        assert max(len(blocks), len(columns)) <= 6


def test_large_rows_without_a_field_are_not_lost() -> None:
    """Their columns are small, though each is a slice of its own."""
    large = orjson.dumps({"a": "x" * (5 * MIB)})
    data = BufferedRows(with_metadata(large, large, b'{"b":1}'))
    assert matched(data, {"b": 1}, 3) == [2]
    data.append(with_metadata(b'{"b":1}'))
    assert matched(data, {"b": 1}, 4) == [2, 3]
    assert matched(data, {"a": {"$exists": True}}, 4) == [0, 1]
