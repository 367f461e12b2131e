"""Conditions on texts agree with a plain evaluator, alone and within any filter, whatever they are used for."""

import random
from types import SimpleNamespace
from typing import Any

import httpx
import orjson
import pytest

from tests.api.problems import assert_refused
from tests.engine.metadata.evaluator import matches

TEXTS = ["", "The cat", "the CAT sat", "Straße", "STRASSE 5", "cat", "a\tb", "é"]


@pytest.fixture(scope="module")
def path(client: httpx.Client) -> str:
    """A library of 40 chunks."""
    client.post("/libraries", json={"id": "texts", "name": "Texts", "dimension": 2}).raise_for_status()
    client.post("/libraries/texts/chunks", json={"chunks": [chunk(n) for n in range(40)]}).raise_for_status()
    return "/libraries/texts"


def chunk(n: int) -> dict[str, Any]:
    return {"id": f"c{n:02}", "text": TEXTS[n % len(TEXTS)], "embedding": [1, n], "metadata": {"n": n % 5}}


def expected(condition: dict[str, Any]) -> list[str]:
    rows = [SimpleNamespace(**one | {"metadata": orjson.dumps(one["metadata"])}) for one in map(chunk, range(40))]
    return [row.id for row in rows if matches(row, condition)]  # type: ignore[arg-type]


def conditions() -> list[dict[str, Any]]:
    """All operators with all texts, and some filters of several of them."""
    operators = ["$eq", "$ne", "$contains", "$icontains", "$prefix"]
    parts = [{"@text": {name: text}} for name in operators for text in ("cat", "", "The", "ss", "SSE", "\t", "É")]
    rng, combined = random.Random(5), []
    for _ in range(25):
        some = [rng.choice([*parts, {"n": rng.randrange(5)}, {"n": {"$lt": 3}}]) for _ in range(4)]
        combined.append({"$or": [{"$and": some[:2]}, {"$not": {"$or": some[2:]}}]})
    others: list[dict[str, Any]] = [{"@text": {"$contains": value}} for value in (1, 1.5, None, True)]
    return [*parts, *others, {"@text": "cat"}, {"@text": {"$contains": "c", "$icontains": "SAT"}}, *combined]


def test_lists_and_counts_match_what_a_plain_evaluator_matches(client: httpx.Client, path: str) -> None:
    for condition in conditions():
        query = {"filter": orjson.dumps(condition).decode(), "limit": 100}
        listed = client.get(f"{path}/chunks", params=query).raise_for_status().json()["items"]
        assert [one["id"] for one in listed] == expected(condition), condition
        assert client.post(f"{path}/chunks/count", json={"filter": condition}).json() == {"count": len(listed)}


@pytest.mark.any_database
def test_queries_facets_and_boosts_know_texts(client: httpx.Client, path: str) -> None:
    condition = {"@text": {"$icontains": "cat"}, "n": {"$gt": 1}}
    for options in ({}, {"filter_mode": "post", "k": 40}, {"mode": "lexical", "text": "cat"}, {"group_by": "n"}):
        query = {"k": 20, "filter": condition, "group_size": 20, **options}
        query |= {} if "text" in options else {"vector": [1, 1]}
        answer = client.post(f"{path}/query", json=query).raise_for_status().json()
        assert sorted(one["id"] for one in answer["results"]) == expected(condition)
    facets = client.post(f"{path}/chunks/facets", json={"field": "n", "filter": condition}).json()
    assert facets["chunks"] == len(expected(condition))
    boosted = {"vector": [1, 1], "k": 40, "boost": [{"filter": condition, "weight": 9}]}
    results = client.post(f"{path}/query", json=boosted).raise_for_status().json()["results"]
    assert sorted(one["id"] for one in results if one["score"] > 5) == expected(condition)


def test_a_change_of_a_text_is_seen_and_what_matches_is_deleted(client: httpx.Client, library: str) -> None:
    path = f"/libraries/{library}/chunks"
    chunks = [{"id": f"{n}", "text": f"old {n}", "embedding": [1, n, 0]} for n in range(3)]
    client.post(path, json={"chunks": chunks}).raise_for_status()
    client.patch(f"{path}/1", json={"text": "new", "embedding": [1, 1, 0]}).raise_for_status()
    assert client.post(f"{path}/count", json={"filter": {"@text": {"$prefix": "old"}}}).json() == {"count": 2}
    assert client.post(f"{path}/delete", json={"filter": {"@text": {"$ne": "new"}}}).json() == {"deleted": 2}
    assert [one["id"] for one in client.get(path).json()["items"]] == ["1"]


@pytest.mark.any_database
@pytest.mark.parametrize(
    ("operator", "operand"), [("$gt", "a"), ("$in", ["a"]), ("$exists", True), ("$eq", {"$date": "2025-01-01"})]
)
def test_other_operators_are_refused(client: httpx.Client, path: str, operator: str, operand: Any) -> None:
    refused = client.post(f"{path}/chunks/count", json={"filter": {"@text": {operator: operand}}})
    assert_refused(refused, 400, "invalid", f"/filter/@text/{operator}")
    assert_refused(client.post(f"{path}/chunks/facets", json={"field": "@text"}), 400, "invalid", "/field")
