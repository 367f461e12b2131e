"""Filters that go to another process as JSON are the same there."""

import json
from typing import Any

import numpy as np
import pytest

from apps.engine.metadata.filter_json import dump_filter, load_filter
from apps.engine.metadata.filters import HasKey, parse_filter

pytestmark = pytest.mark.any_database

FILTERS: list[Any] = [
    {},
    {"a": 1},
    {"a.b": {"$gt": 1.5, "$lte": 2}, "c": {"$prefix": "\u00e4"}},
    {"$or": [{"a": {"$in": [None, True, "x", [1, 2]]}}, {"$not": {"b": {"$exists": False}}}]},
    {"a": {"$nin": []}, "b": {"$ne": 2**63 - 1}, "c": {"$empty": True}},
    {"tags": {"$all": ["x", 1]}, "d": {"$gte": {"$date": "2025-06-01"}}, "t": {"$contains": "x"}},
    {"a": {"$icontains": "X\u0000\u2028"}, "@document.year": 3, "@created_at": {"$lt": "2026-01-01T00:00:00Z"}},
    {"@text": {"$contains": "word"}, "@id": {"$in": ["a", "b"]}},
]


@pytest.mark.parametrize("raw", FILTERS, ids=str)
def test_a_filter_survives_json(raw: Any) -> None:
    filter = parse_filter(raw)
    assert load_filter(json.loads(json.dumps(dump_filter(filter)))) == filter


def test_rows_survive_json() -> None:
    found = load_filter(json.loads(json.dumps(dump_filter(HasKey(np.array([1, 2**62]))))))
    assert isinstance(found, HasKey)
    assert found.keys.tolist() == [1, 2**62]


@pytest.mark.parametrize("raw", [[], ["no"], ["not"], ["one_of", 1, "x"], ["between", "a", "!"], {"a": 1}, None])
def test_other_json_is_no_filter(raw: Any) -> None:
    with pytest.raises((ValueError, TypeError, KeyError)):
        load_filter(raw)
