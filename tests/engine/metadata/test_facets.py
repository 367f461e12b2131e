"""Facets count as a plain loop does, in one part or in several."""

from itertools import pairwise
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.engine.metadata import Attributes, Columns
from apps.engine.metadata.facets import ValuePage, rank_values
from apps.engine.metadata.paths import field_name
from tests.engine.data import bounded
from tests.engine.metadata.evaluator import PATHS, columns_of, facet, plain_facet, rank, rows


@bounded(150)
@given(rows, st.sampled_from([*PATHS, "@id", "@document_id"]), st.randoms(use_true_random=False))
def test_facets_count_as_a_plain_loop_does(given_rows: list[Attributes], path: str, random: Any) -> None:
    columns = Columns.build(given_rows)
    allowed = np.array([random.random() < 0.5 for _ in given_rows], np.bool_)
    expected, name = plain_facet(given_rows, path), field_name(path)
    found = facet(columns, path)
    assert [(rank(value), count) for value, count in found] == expected
    assert orjson.loads(orjson.dumps(found)) == [list(one) for one in found]
    for limit in (0, 1, 2, 100):
        assert rank_values(columns.counts(name), ValuePage(limit)) == (found[:limit], len(found))
    some = [row for row, yes in zip(given_rows, allowed, strict=True) if yes]
    assert [(rank(value), count) for value, count in facet(columns, path, allowed)] == plain_facet(some, path)
    # Rows in several parts are counted as those of one.
    bounds = [len(given_rows) // 3, 2 * len(given_rows) // 3]
    parts = [Columns.build(given_rows[start:end]) for start, end in pairwise([0, *bounds, len(given_rows)])]
    for limit in (0, 1, 2, 100):
        assert rank_values([one for part in parts for one in part.counts(name)], ValuePage(limit)) == (
            found[:limit],
            len(found),
        )
    both = zip(parts, np.split(allowed, bounds), strict=True)
    masked = [one for part, mask in both for one in part.counts(name, mask)]
    assert rank_values(masked, ValuePage(100))[0] == facet(columns, path, allowed)


@bounded(100)
@given(rows, st.sampled_from([*PATHS, "@id"]), st.sampled_from(["", "a", "X", "É", "ss"]), st.integers(0, 5))
def test_pages_of_values_are_slices_of_all_that_are_found(
    given_rows: list[Attributes], path: str, search: str, size: int
) -> None:
    found = [
        (value, count)
        for value, count in plain_facet(given_rows, path)
        if not search or (value[0] == 4 and search.casefold() in value[1].casefold())
    ]
    middle = len(given_rows) // 2
    parts = Columns.build(given_rows[:middle]), Columns.build(given_rows[middle:])
    counts = [one for part in parts for one in part.counts(field_name(path))]
    for by_value in (False, True):
        expected = sorted(found) if by_value else found
        for offset in range(0, len(expected) + 2, size + 1):
            page, total = rank_values(counts, ValuePage(size + 1, offset, by_value, search))
            assert [(rank(value), count) for value, count in page] == expected[offset : offset + size + 1]
            assert total == len(expected)


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
