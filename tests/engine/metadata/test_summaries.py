"""Summaries of fields say what a plain loop over the rows says, in one part or in several."""

from itertools import pairwise
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from apps.engine.metadata import Attributes, Columns
from apps.engine.metadata.paths import field_name
from apps.engine.metadata.summaries import FieldSummary, combine, most_rows
from apps.engine.metadata.values import scalar_of
from tests.engine.data import bounded
from tests.engine.metadata.evaluator import MISSING, PATHS, columns_of, kind, plain_facet, rows, value_at


def type_of(value: Any) -> str:
    if kind(value) != "number":
        return kind(value)
    return "integer" if -(2**63) <= value < 2**64 and value == int(value) else "number"


def plain_summary(given_rows: list[Attributes], path: str) -> tuple[int, int, dict[str, Any]]:
    values = [value for row in given_rows if (value := value_at(row, path)) is not MISSING]
    types: dict[str, Any] = {}
    for name in {type_of(value) for value in values}:
        some = [value for value in values if type_of(value) == name]
        is_ordered = name in ("integer", "number", "string")
        types[name] = (len(some), min(some), max(some)) if is_ordered else (len(some),)
    return len(values), len(plain_facet(given_rows, path)), types


def shown(summary: FieldSummary) -> tuple[int, int, dict[str, Any]]:
    types: dict[str, Any] = {}
    for name, one in summary.types.items():
        is_ordered = name in ("integer", "number", "string")
        types[name] = (one.rows, scalar_of(one.least), scalar_of(one.greatest)) if is_ordered else (one.rows,)
    return summary.rows, summary.distinct, types


@bounded(200)
@given(rows, st.sampled_from([*PATHS, "@id", "@document_id"]), st.randoms(use_true_random=False))
def test_a_summary_is_that_of_a_plain_loop(given_rows: list[Attributes], path: str, random: Any) -> None:
    name = field_name(path)
    allowed = np.array([random.random() < 0.6 for _ in given_rows], np.bool_)
    some = [row for row, yes in zip(given_rows, allowed, strict=True) if yes]
    bounds = [len(given_rows) // 3, 2 * len(given_rows) // 3]
    parts = [Columns.build(given_rows[start:end]) for start, end in pairwise([0, *bounds, len(given_rows)])]
    masks = np.split(allowed, bounds)
    assert shown(combine([Columns.build(given_rows).summary(name)])) == plain_summary(given_rows, path)
    assert shown(combine([part.summary(name) for part in parts])) == plain_summary(given_rows, path)
    masked = [part.summary(name, mask) for part, mask in zip(parts, masks, strict=True)]
    assert shown(combine(masked)) == plain_summary(some, path)
    if path not in ("@id", "@document_id"):
        counts = [dict(part.row_counts(mask)).get(name, 0) for part, mask in zip(parts, masks, strict=True)]
        assert sum(counts) == plain_summary(some, path)[0]


def test_the_fields_that_most_rows_have_come_first() -> None:
    parts = columns_of({"a": 1, "b": {"c": 1}, "@x": 1}, {"b": {}, "a.b": 2}), columns_of({"a": "2020-01-01"}, {"a": 0})
    counts = [one for part in parts for one in part.row_counts()]
    assert most_rows(counts, 10) == (["a", "b", "\\@x", "a\\.b", "b.c"], 5)
    assert most_rows(counts, 2) == (["a", "b"], 5)


def test_numbers_at_the_bounds_are_whole_or_not() -> None:
    whole = [0, -0.0, 1.0, -1, 2**53 + 1, 2**63, 2**64 - 1, -(2**63), -(2.0**63)]
    other = [0.5, -1e-300, 2.0**64, -(2.0**64), 1e300, 5e-324, 2**51 + 0.5]
    summary = combine([columns_of(*({"a": value} for value in whole + other)).summary("a")])
    assert shown(summary)[2] == {
        "integer": (len(whole), -(2**63), 2**64 - 1),
        "number": (len(other), -(2.0**64), 1e300),
    }
