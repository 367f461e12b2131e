"""What can be no vector is refused, wherever a vector may stand, before anything is written."""

from typing import Any

import httpx
import pytest

from tests.api.problems import assert_refused
from tests.api.vectors import METRICS, base64_of

JSON = {"Content-Type": "application/json"}
# Each as it stands in the body, and a word of the answer.
BAD = {
    "too short": ("[1, 2]", "3"),
    "too long": ("[1, 2, 3, 4]", "3"),
    "empty": ("[]", "3"),
    "NaN": ("[1, NaN, 0]", "finite"),
    "Infinity": ("[Infinity, 0, 0]", "finite"),
    "minus Infinity": ("[0, 0, -Infinity]", "finite"),
    "beyond a double": ("[1e400, 0, 0]", "finite"),
    "beyond a double, as an integer": (f"[1{'0' * 400}, 0, 0]", "finite"),
    "beyond float32": ("[1e39, 0, 0]", "float32"),
    "beyond the limit": ("[1e16, 0, 0]", "1e+15"),
    "beyond the limit, negative": ("[0, -1.1e15, 0]", "1e+15"),
    "zero": ("[0, 0, 0]", "zero"),
    "minus zero": ("[-0.0, 0.0, 0]", "zero"),
    "zero in float32": ("[1e-50, 0, 0]", "zero"),
    "a bool": ("[true, 0, 0]", "numbers"),
    "a null": ("[1, null, 0]", "numbers"),
    "a number as a string": ('["1", 0, 0]', "numbers"),
    "nested": ("[[1, 0, 0]]", "numbers"),
    "a number": ("5", "array"),
    "an object": ('{"0": 1}', "array"),
    "no base64": ('"x"', "base64"),
    "base64 without padding": ('"AACAPwAAAAAAAAA"', "base64"),
    "base64 of the URL alphabet": ('"AACAPwAA_-8AAAAA"', "base64"),
    "base64 with a line break": ('"AACAPwAAAAAAAAAA\\n"', "base64"),
    "no ASCII": ('"\\u00e9\\u00e9\\u00e9\\u00e9"', "base64"),
    "base64 of half a number": ('"AAAA"', "float32"),
    "base64, too short": (f'"{base64_of([1, 2])}"', "3"),
    "base64, empty": ('""', "3"),
    "base64 of NaN": (f'"{base64_of([1, float("nan"), 0])}"', "NaN"),
    "base64 of infinity": (f'"{base64_of([float("inf"), 0, 0])}"', "infinite"),
    "base64 beyond the limit": (f'"{base64_of([1e16, 0, 0])}"', "1e+15"),
    "base64 of zero": (f'"{base64_of([0, 0, 0])}"', "zero"),
}
PLACES = {
    "upsert": ("POST", "/chunks", '{"chunks": [{"embedding": [1, 0, 0]}, {"embedding": %s}]}', "/chunks/1/embedding"),
    "update": ("POST", "/chunks", '{"chunks": [{"id": "alone", "embedding": %s}], "mode": "update"}', None),
    "patch": ("PATCH", "/chunks/alone", '{"embedding": %s}', "/embedding"),
    "document": ("POST", "/documents", '{"id": "bad", "chunks": [{"embedding": %s}]}', "/chunks/0/embedding"),
    "batch": ("POST", "/documents/batch", '{"documents": [{"chunks": [{"embedding": %s}]}]}', None),
    "put": ("PUT", "/documents/doc", '{"title": "bad", "chunks": [{"embedding": %s}]}', "/chunks/0/embedding"),
    "query": ("POST", "/query", '{"vector": %s}', "/vector"),
    "queries": ("POST", "/query/batch", '{"queries": [{"vector": [1, 0, 0]}, {"vector": %s}]}', "/queries/1/vector"),
}
POINTERS = {"update": "/chunks/0/embedding", "batch": "/documents/0/chunks/0/embedding"}


@pytest.mark.any_database
@pytest.mark.parametrize(("vector", "word"), BAD.values(), ids=BAD)
def test_what_can_be_no_vector_is_refused_everywhere(client: httpx.Client, shared: str, vector: str, word: str) -> None:
    library = f"/libraries/{shared}"
    before = client.get(f"{library}/chunks?include=embedding").json(), client.get(f"{library}/documents").json()
    for place, (method, path, body, pointer) in PLACES.items():
        response = client.request(method, f"{library}{path}", content=body % vector, headers=JSON)
        problem = assert_refused(response, 400, "invalid", pointer or POINTERS[place])
        assert word in problem["errors"][0]["detail"], (place, problem)
    after = client.get(f"{library}/chunks?include=embedding").json(), client.get(f"{library}/documents").json()
    assert after == before


def test_a_query_has_no_null_for_a_vector(client: httpx.Client, shared: str) -> None:
    for place in ("query", "queries"):
        method, path, body, pointer = PLACES[place]
        response = client.request(method, f"/libraries/{shared}{path}", content=body % "null", headers=JSON)
        assert "array" in assert_refused(response, 400, "invalid", str(pointer))["detail"]


@pytest.mark.parametrize(
    ("bad", "chunks_before"), [([1, 2], 17), ([0, 0, 0], 17), ([1e16, 0, 0], 17), ([1, 2], 999), ([1, 2], 0)], ids=str
)
def test_one_bad_row_of_1000_is_named_and_nothing_is_stored(
    client: httpx.Client, library: str, chunks: str, bad: list[float], chunks_before: int
) -> None:
    rows: list[dict[str, Any]] = [{"id": str(n), "embedding": [n, 1, 0]} for n in range(1000)]
    rows[chunks_before]["embedding"] = bad
    response = client.post(chunks, json={"chunks": rows})
    assert_refused(response, 400, "invalid", f"/chunks/{chunks_before}/embedding")
    stats = client.get(f"/libraries/{library}/stats").json()
    assert (stats["chunks"], stats["revision"]) == (0, 0)
    assert client.post(f"/libraries/{library}/query", json={"vector": [1, 0, 0]}).json()["results"] == []


def test_every_vector_of_the_wrong_dimension_is_named(client: httpx.Client, chunks: str) -> None:
    rows = [{"embedding": [1, 0, 0][: 3 - n % 2]} for n in range(6)]
    response = client.post(chunks, json={"chunks": rows})
    assert_refused(response, 400, "invalid", *(f"/chunks/{n}/embedding" for n in (1, 3, 5)))


@pytest.mark.parametrize("metric", METRICS)
def test_only_cosine_refuses_zero(client: httpx.Client, metric: str) -> None:
    body = {"name": "N", "metric": metric, "dimension": 2}
    library = f"/libraries/{client.post('/libraries', json=body).json()['id']}"
    rows = [{"id": "zero", "embedding": [0, 0]}, {"id": "one", "embedding": [0, 1]}]
    write = client.post(f"{library}/chunks", json={"chunks": rows})
    query = client.post(f"{library}/query", json={"vector": [0, 0]})
    if metric == "cosine":
        assert_refused(write, 400, "invalid", "/chunks/0/embedding")
        assert_refused(query, 400, "invalid", "/vector")
    else:
        assert write.json()["created"] == 2
        expected = {"dot": [("zero", 0), ("one", 0)], "euclidean": [("zero", 0), ("one", -1)]}[metric]
        assert [(result["id"], result["score"]) for result in query.json()["results"]] == expected
        assert '"score":-0.0' not in query.text


@pytest.mark.parametrize("dimension", [1, 2, 8192])
def test_dimensions_reach_from_1_to_8192(client: httpx.Client, dimension: int) -> None:
    library = f"/libraries/{client.post('/libraries', json={'name': 'N', 'dimension': dimension}).json()['id']}"
    chunk = {"id": "c", "embedding": base64_of([1.5] * dimension)}
    client.post(f"{library}/chunks", json={"chunks": [chunk]}).raise_for_status()
    [found] = client.post(f"{library}/query", json={"vector": [1.5] * dimension, "include": ["embedding"]}).json()[
        "results"
    ]
    assert (found["score"], found["embedding"]) == (1, [1.5] * dimension)


@pytest.mark.any_database
@pytest.mark.parametrize("vector", [[], [1.0] * 8193, "", base64_of([1] * 8193)], ids=["[]", "8193", "b64", "b64-8193"])
def test_the_first_vector_keeps_the_limits_of_dimensions(client: httpx.Client, vector: object) -> None:
    library = f"/libraries/{client.post('/libraries', json={'name': 'N'}).json()['id']}"
    write = client.post(f"{library}/chunks", json={"chunks": [{"embedding": vector}]})
    problem = assert_refused(write, 400, "invalid", "/chunks/0/embedding")
    assert "VECTORDB_MAX_DIMENSION" in problem["detail"]
    assert_refused(client.post(f"{library}/query", json={"vector": vector}), 400, "invalid", "/vector")


def test_the_largest_component_is_stored(client: httpx.Client, library: str, chunks: str) -> None:
    rows = [{"id": "large", "embedding": [1e15, -1e15, 1e15]}, {"id": "tiny", "embedding": [1e-38, 0, 0]}]
    assert client.post(chunks, json={"chunks": rows}).json()["created"] == 2
    results = client.post(f"/libraries/{library}/query", json={"vector": [1, -1, 1]}).json()["results"]
    assert [result["id"] for result in results] == ["large", "tiny"]
    assert results[0]["score"] == pytest.approx(1)


@pytest.mark.parametrize(
    ("path", "body", "pointer"),
    [
        ("/chunks", {"chunks": [{"embedding": [1, 2]}, {"embedding": [1, 2, 3]}]}, "/chunks/1/embedding"),
        ("/documents", {"chunks": [{"embedding": [1, 2]}, {"embedding": [1, 2, 3]}]}, "/chunks/1/embedding"),
        ("/query/batch", {"queries": [{"vector": [1, 2]}, {"vector": [1, 2, 3]}]}, "/queries/1/vector"),
    ],
)
def test_without_a_dimension_vectors_are_compared_with_the_first(
    client: httpx.Client, path: str, body: dict[str, Any], pointer: str
) -> None:
    library = f"/libraries/{client.post('/libraries', json={'name': 'N'}).json()['id']}"
    problem = assert_refused(client.post(f"{library}{path}", json=body), 400, "invalid", pointer)
    assert problem["errors"][0]["detail"] == "has 3 components, but the first vector has 2"
    assert client.get(library).json()["dimension"] is None
