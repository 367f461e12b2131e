"""Rows come in the order that a plain sort gives, whatever parts and blocks they lie in, all or page by page."""

from itertools import pairwise
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from apps.engine.metadata import Attributes
from apps.engine.metadata.filters import parse_filter
from apps.engine.metadata.ordering import OrderBy
from apps.engine.metadata.paths import field_name
from apps.engine.metadata.values import OPAQUE, key_of
from apps.engine.metrics import Metric
from apps.engine.storage.row_data import Row
from apps.engine.storage.view import View
from tests.engine.data import bounded
from tests.engine.metadata.evaluator import MISSING, PATHS, kind, rank, row_of, rows, value_at

orders = st.lists(
    st.tuples(st.sampled_from([*PATHS, "a", "a", "b", "@id", "@document_id", "@created_at"]), st.booleans()),
    min_size=1,
    max_size=3,
)


def place(value: Any) -> tuple[int, Any]:
    if kind(value) == "array":
        key = key_of(value)
        return (6, 0) if key == OPAQUE else (5, key)
    return (7, 0) if kind(value) == "object" else (3, value) if kind(value) == "time" else rank(value)


def plain_order(given_rows: list[Attributes], order: list[tuple[str, bool]]) -> list[int]:
    """The numbers of the rows, by a stable sort for each field, the first one last."""
    found = list(range(len(given_rows)))
    for path, descending in reversed(order):
        values = [value_at(row, path) for row in given_rows]
        having = [i for i in found if values[i] is not MISSING]
        found = sorted(having, key=lambda i: place(values[i]), reverse=descending) + [
            i for i in found if values[i] is MISSING
        ]
    return found


def view_of(given_rows: list[Attributes], cuts: list[int], *, sealed: bool) -> View:
    """The rows, with their numbers as keys, in a segment and a tail of several steps."""
    none = np.empty(0, np.int64)
    view = View.of(dimension=1, metric=Metric.DOT, segments=(), built_at=0)
    for start, end in pairwise([0, *cuts, len(given_rows)]):
        keys = np.arange(start, end)
        some = [Row(row, "") for row in given_rows[start:end]]
        view = view.apply(keys=keys, vectors=np.ones((len(keys), 1), np.float32), rows=some, gone=none)
        # A column for the first field only: blocks of other fields begin elsewhere.
        view.columns(view.matching(parse_filter({})), "a")
        if sealed and start == 0:
            view = View.of(dimension=1, metric=Metric.DOT, segments=tuple(view.flush()), built_at=0)
    return view


@bounded(150)
@given(rows, orders, st.booleans(), st.integers(1, 4), st.randoms(use_true_random=False))
def test_pages_are_slices_of_a_plain_sort(
    given_rows: list[Attributes], order: list[tuple[str, bool]], sealed: bool, size: int, random: Any
) -> None:
    cuts = sorted(random.choices(range(len(given_rows) + 1), k=3))
    view = view_of(given_rows, cuts, sealed=sealed)
    allowed = [
        mask & np.array([random.random() < 0.7 for _ in mask], np.bool_) for mask in view.matching(parse_filter({}))
    ]
    keys = set(view.keys(allowed).tolist())
    expected = [i for i in plain_order(given_rows, order) if i in keys]
    by = [OrderBy(field_name(path), descending) for path, descending in order]
    assert [row.key for row in view.ordered(by, allowed, None, 100)] == expected
    found: list[int] = []
    after = None
    for _ in range(0, len(expected) + 1, size):
        page = view.ordered(by, allowed, after, size)
        found += [row.key for row in page]
        after = page[-1] if page else after
    assert found == expected


def test_many_rows_of_few_values_are_found_in_blocks_of_any_size() -> None:
    given_rows = [
        row_of({"a": i % 3, "b": f"{i * 37 % 101:03}"} if i % 10 else {"b": "x"}, i, created_at=i * 7 % 50)
        for i in range(400)
    ]
    view = view_of(given_rows, [150, 155, 171, 300, 301], sealed=True)
    allowed = view.matching(parse_filter({}))
    for order in (
        [("a", True), ("b", False)],
        [("b", True), ("a", False), ("@created_at", True)],
        [("@created_at", False), ("@id", True)],
        [("none", True)],
    ):
        by = [OrderBy(*one) for one in order]
        expected = plain_order(given_rows, order)
        assert [row.key for row in view.ordered(by, allowed, None, 400)] == expected
        found = view.ordered(by, allowed, None, 120)
        assert [row.key for row in view.ordered(by, allowed, found[-1], 120)] == expected[120:240]
