"""Pages of every mode are slices of one ranking: laid end to end, they are the long answer."""

from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.api.problems import assert_refused

ROWS, DOCUMENTS, DIMENSION, LONG = 450, 40, 6, 1000
VECTOR = [1.0, -2.0, 0.5, 0.25, 3.0, -1.0]
TEXT = {"text": "common word3 word5"}
BOTH = TEXT | {"vector": VECTOR, "mode": "hybrid"}
EVEN: dict[str, Any] = {"filter": {"even": True}}
GROUPS: dict[str, Any] = {"group_by": "document"}

TOPICS: dict[str, Any] = {"group_by": "topic.name"}
BOOSTS: dict[str, Any] = {
    "boost": [
        {"filter": {"even": True}, "weight": 0.05},
        {"field": "n", "decay": {"half_life": 60, "origin": 200}, "weight": 0.3},
    ],
    "depth": 1500,
}

RANKINGS: dict[str, dict[str, Any]] = {
    "vector": {"vector": VECTOR},
    "filter": {"vector": VECTOR} | EVEN,
    "filtered after": {"vector": VECTOR, "filter_mode": "post"} | EVEN,
    "threshold": {"vector": VECTOR, "score_threshold": 0.2},
    "chunk_id": {"chunk_id": "17"},
    "lexical": TEXT | {"mode": "lexical"},
    "hybrid": BOTH,
    "hybrid, unequal weights": BOTH | {"hybrid": {"vector_weight": 0.1, "lexical_weight": 7}},
    "hybrid, one side": BOTH | {"hybrid": {"vector_weight": 0}},
    "hybrid, filtered": BOTH | EVEN,
    "hybrid, filtered after": BOTH | {"filter_mode": "post"} | EVEN,
    "hybrid, chunk_id": {"chunk_id": "17", "mode": "hybrid"},
    "hybrid, threshold": BOTH | {"score_threshold": 0.009},
    "groups": {"vector": VECTOR} | GROUPS,
    "groups of 3": {"vector": VECTOR, "group_size": 3} | GROUPS,
    "groups, filtered after": {"vector": VECTOR, "group_size": 3, "filter_mode": "post"} | GROUPS | EVEN,
    "groups by words": TEXT | {"mode": "lexical", "group_size": 2} | GROUPS,
    "groups, threshold": {"vector": VECTOR, "group_size": 2, "score_threshold": 0.2} | GROUPS,
    "groups, hybrid": BOTH | GROUPS,
    "groups of 3, hybrid": BOTH | {"group_size": 3} | GROUPS,
    "groups by a field": {"vector": VECTOR} | TOPICS,
    "groups of 3 by a field": {"vector": VECTOR, "group_size": 3} | TOPICS,
    "groups by a field, by words": TEXT | {"mode": "lexical", "group_size": 2} | TOPICS,
    "groups by a field, hybrid": BOTH | TOPICS,
    "boosts": {"vector": VECTOR} | BOOSTS,
    "boosts, filtered": {"vector": VECTOR} | BOOSTS | EVEN,
    "boosts by words": TEXT | {"mode": "lexical"} | BOOSTS,
    "boosts, hybrid, threshold": BOTH | BOOSTS | {"score_threshold": 0.05},
    "groups, boosts": {"vector": VECTOR, "group_size": 2} | GROUPS | BOOSTS,
    "mmr": {"vector": VECTOR, "mmr": {"lambda": 0.4, "fetch_k": LONG}},
    "mmr, hybrid": BOTH | {"mmr": {"lambda": 0.4, "fetch_k": LONG}},
}


@pytest.fixture(scope="module")
def path(client: httpx.Client) -> str:
    """A library of chunks in documents and alone, of which nearly all have a common word."""
    library = client.post("/libraries", json={"name": "Pages", "dimension": DIMENSION}).json()
    path = f"/libraries/{library['id']}"
    rng = np.random.default_rng(5)
    vectors = rng.standard_normal((ROWS, DIMENSION)).round(3)
    vectors[50:60] = vectors[0]
    words = [" ".join(f"word{n}" for n in rng.integers(0, 30, 1 + row % 12)) for row in range(ROWS)]
    topics: list[Any] = [*(f"t{n}" for n in range(31)), ["t0"], ["t0", "t1"], None, {"t": 0}, 1, 1.0, True, "1"]
    chunks = [
        {"id": str(n), "text": f"common {words[n]}" if n % 9 else words[n], "embedding": vector}
        | {"metadata": {"even": n % 2 == 0, "n": n, "topic": {"name": topics[n % len(topics)]}}}
        for n, vector in enumerate(vectors.tolist())
    ]
    documents = [{"id": f"d{n}", "chunks": chunks[n : ROWS - 50 : DOCUMENTS]} for n in range(DOCUMENTS)]
    client.post(f"{path}/documents/batch", json={"documents": documents}).raise_for_status()
    client.post(f"{path}/chunks", json={"chunks": chunks[ROWS - 50 :]}).raise_for_status()
    return path


@pytest.fixture(scope="module")
def long_answers(client: httpx.Client, path: str) -> dict[str, list[dict[str, Any]]]:
    """Each ranking as one answer."""
    queries = [ranking | {"k": LONG} for ranking in RANKINGS.values()]
    answers = client.post(f"{path}/query/batch", json={"queries": queries}).raise_for_status().json()["results"]
    return {name: answer["results"] for name, answer in zip(RANKINGS, answers, strict=True)}


@pytest.mark.parametrize("name", RANKINGS)
@given(k=st.integers(15, 220), offset=st.integers(0, 300))
@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_pages_laid_end_to_end_are_the_long_answer(
    client: httpx.Client,
    path: str,
    long_answers: dict[str, list[dict[str, Any]]],
    name: str,
    k: int,
    offset: int,
) -> None:
    expected = long_answers[name]
    assert len({one["id"] for one in expected}) == len(expected) > 30
    pages = [RANKINGS[name] | {"k": k, "offset": start} for start in range(0, ROWS + 1, k)]
    answers = client.post(f"{path}/query/batch", json={"queries": pages}).raise_for_status().json()["results"]
    assert [one for answer in answers for one in answer["results"]] == expected
    # By itself, and from anywhere.
    answer = client.post(f"{path}/query", json=RANKINGS[name] | {"k": k, "offset": offset}).raise_for_status().json()
    if not {"filter_mode", "group_size", "group_by"} & RANKINGS[name].keys():
        assert answer["results"] == expected[offset : offset + k]
    assert all(one in expected for one in answer["results"])


@pytest.mark.parametrize("name", [name for name in RANKINGS if not name.startswith(("groups", "mmr"))])
def test_long_answers_are_by_score(long_answers: dict[str, list[dict[str, Any]]], name: str) -> None:
    scores = [one["score"] for one in long_answers[name]]
    assert scores == sorted(scores, reverse=True)


def test_a_side_without_weight_lists_nothing(client: httpx.Client, path: str) -> None:
    query = {"text": "word3", "vector": VECTOR, "mode": "hybrid", "k": LONG, "include": []}

    def fused(vector_weight: float, lexical_weight: float) -> list[dict[str, Any]]:
        weights = {"vector_weight": vector_weight, "lexical_weight": lexical_weight}
        answer = client.post(f"{path}/query", json=query | {"hybrid": weights}).raise_for_status().json()
        return list(answer["results"])

    by_words = client.post(f"{path}/query", json={"text": "word3", "mode": "lexical", "k": LONG, "include": []}).json()
    by_vector = client.post(f"{path}/query", json={"vector": VECTOR, "k": LONG, "include": []}).json()
    assert [one["id"] for one in fused(0, 1)] == [one["id"] for one in by_words["results"]]
    assert [one["id"] for one in fused(1, 0)] == [one["id"] for one in by_vector["results"]]
    assert {one["vector_rank"] for one in fused(0, 1)} == {None}
    assert fused(0, 0) == []


@pytest.mark.parametrize(
    ("query", "highest"),
    [
        ({"vector": VECTOR, "score_threshold": 1.01}, "1.0"),
        (BOTH | {"score_threshold": 0.5}, "0.03279"),
        (BOTH | {"score_threshold": 0.8, "hybrid": {"rrf_k": 1, "vector_weight": 0.5}}, "0.75"),
        ({"vector": VECTOR, "score_threshold": 1}, None),
        (BOTH | {"score_threshold": 2 / 61}, None),
        (TEXT | {"mode": "lexical", "score_threshold": 1000}, None),
    ],
)
def test_a_threshold_above_all_scores_is_told(
    client: httpx.Client, path: str, query: dict[str, Any], highest: str | None
) -> None:
    answer = client.post(f"{path}/query", json=query).raise_for_status().json()
    if highest is None:
        assert "warning" not in answer["meta"]
    else:
        assert answer["results"] == []
        assert f"no score is above {highest}" in answer["meta"]["warning"]


def test_a_document_lists_its_chunks_by_position(client: httpx.Client, documents: str, chunks: str) -> None:
    client.put(f"{documents}/d", json={"chunks": [{"id": id, "embedding": [1, 0, 0]} for id in "abcde"]})
    again = [{"id": id, "embedding": [1, 0, 0]} for id in "exdcba"]
    client.put(f"{documents}/d", json={"chunks": again}).raise_for_status()
    for filter in ("{}", '{"@id": {"$nin": ["no"]}}'):
        found, cursor = "", None
        while cursor is not None or not found:
            params = {"document_id": "d", "limit": "2", "filter": filter} | ({"cursor": cursor} if cursor else {})
            page = client.get(chunks, params=params).raise_for_status().json()
            found += "".join(item["id"] for item in page["items"])
            cursor = page["next_cursor"]
        assert found == "exdcba"
    cursor = client.get(chunks, params={"limit": 2}).json()["next_cursor"]
    assert_refused(client.get(chunks, params={"document_id": "d", "cursor": cursor}), 400, "invalid", "/cursor")
