"""What a query may say beside its vector: what to include, k, limits; and what its answer says of itself."""

from typing import Any

import httpx
import pytest

from tests.api.problems import assert_refused

pytestmark = pytest.mark.any_database

V = {"vector": [1, 0, 0]}
HIT = {"id", "document_id", "score", "distance"}


@pytest.fixture(scope="module")
def path(client: httpx.Client) -> str:
    """A library of the chunks `a`, of a document, and `b`, which stands alone."""
    client.post("/libraries", json={"id": "options", "name": "Options", "dimension": 3}).raise_for_status()
    chunk = {"id": "a", "text": "A", "metadata": {"n": 1}, "embedding": [1, 0, 0]}
    document = {"id": "d", "title": "T", "source": "S", "metadata": {"m": 2}, "chunks": [chunk]}
    client.post("/libraries/options/documents", json=document).raise_for_status()
    alone = {"id": "b", "text": "B", "embedding": [0, 2, 0]}
    client.post("/libraries/options/chunks", json={"chunks": [alone]}).raise_for_status()
    return "/libraries/options"


def test_text_and_metadata_are_included_unless_said_otherwise(client: httpx.Client, path: str) -> None:
    first, second = client.post(f"{path}/query", json=V).json()["results"]
    assert first == {
        "id": "a",
        "document_id": "d",
        "score": 1,
        "distance": 0,
        "text": "A",
        "metadata": {"n": 1},
    }
    assert second == {"id": "b", "document_id": None, "score": 0, "distance": 1, "text": "B", "metadata": {}}


SHOWN = {
    "text": "A",
    "metadata": {"n": 1},
    "embedding": [1, 0, 0],
    "document": {"id": "d", "title": "T", "source": "S", "metadata": {"m": 2}},
}


@pytest.mark.parametrize(
    "include",
    [
        [],
        ["text"],
        ["metadata"],
        ["embedding"],
        ["document"],
        ["document", "text"],
        ["embedding", "document", "metadata", "text"],
        ["text", "text"],
    ],
    ids="-".join,
)
def test_include_names_what_is_shown(client: httpx.Client, path: str, include: list[str]) -> None:
    first, second = client.post(f"{path}/query", json=V | {"include": include}).json()["results"]
    assert set(first) == set(second) == HIT | set(include)
    assert {name: first[name] for name in include} == {name: SHOWN[name] for name in include}
    if "document" in include:
        assert second["document"] is None
    if "embedding" in include:
        assert second["embedding"] == [0, 2, 0]


def test_queries_of_a_batch_have_their_own_options(client: httpx.Client, path: str) -> None:
    bodies: list[dict[str, Any]] = [
        V | {"include": ["document"], "k": 1},
        V | {"include": []},
        {"chunk_id": "b", "include": ["embedding"], "offset": 0, "k": 1000},
        V | {"score_threshold": 0.5, "include": ["text"]},
    ]
    batch = client.post(f"{path}/query/batch", json={"queries": bodies}).json()["results"]
    assert [answer["results"] for answer in batch] == [
        client.post(f"{path}/query", json=body).json()["results"] for body in bodies
    ]
    assert [len(answer["results"]) for answer in batch] == [1, 2, 1, 1]
    assert [set(answer["results"][0]) - HIT for answer in batch] == [{"document"}, set(), {"embedding"}, {"text"}]


def test_the_answer_says_how_it_was_found(client: httpx.Client, path: str) -> None:
    meta = client.post(f"{path}/query", json=V | {"exact": True}).json()["meta"]
    assert set(meta) == {"revision", "index", "exact", "plan", "scanned", "took_ms"}
    assert meta["revision"] == client.get(f"{path}/stats").json()["revision"]
    assert (meta["index"], meta["exact"], meta["scanned"]) == ("brute_force", True, 2)
    assert meta["plan"]
    assert meta["took_ms"] >= 0


@pytest.mark.parametrize(
    "body",
    [
        V | {"k": 1000},
        V | {"k": 1, "offset": 9999},
        V | {"k": 1000, "offset": 9000},
        V | {"offset": 0},
        V | {"score_threshold": 0},
        V | {"score_threshold": -1.5},
        V | {"filter": {}},
        V | {"mode": "vector"},
        V | {"group_by": None, "mmr": None, "score_threshold": None},
        V | {"search_params": {}},
        V | {"exact": False},
        {"vector": [1e15, -1e15, 1e15]},
        {"vector": [1e-38, 0, 0]},
        {"vector": [1, 0.0, -0.0]},
    ],
    ids=str,
)
def test_all_within_the_limits_is_answered(client: httpx.Client, path: str, body: dict[str, Any]) -> None:
    assert client.post(f"{path}/query", json=body).status_code == 200
    assert client.post(f"{path}/query/batch", json={"queries": [body] * 256}).status_code == 200


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({}, ""),
    (V | {"chunk_id": "a"}, ""),
    ({"k": 3}, ""),
    (V | {"k": 0}, "/k"),
    (V | {"k": -1}, "/k"),
    (V | {"k": 1001}, "/k"),
    (V | {"k": 10**30}, "/k"),
    (V | {"k": "5"}, "/k"),
    (V | {"k": True}, "/k"),
    (V | {"k": 5.0}, "/k"),
    (V | {"k": None}, "/k"),
    (V | {"offset": -1}, "/offset"),
    (V | {"offset": 9991}, "/offset"),
    (V | {"offset": 9001, "k": 1000}, "/offset"),
    (V | {"offset": 10**30}, "/offset"),
    (V | {"offset": 1.0}, "/offset"),
    (V | {"offset": None}, "/offset"),
    (V | {"score_threshold": "0.5"}, "/score_threshold"),
    (V | {"score_threshold": True}, "/score_threshold"),
    (V | {"include": ["vector"]}, "/include/0"),
    (V | {"include": ["text", None]}, "/include/1"),
    (V | {"include": "text"}, "/include"),
    (V | {"include": None}, "/include"),
    (V | {"exact": 1}, "/exact"),
    (V | {"exact": "true"}, "/exact"),
    (V | {"exact": None}, "/exact"),
    (V | {"filter": None}, "/filter"),
    (V | {"filter": []}, "/filter"),
    (V | {"filter_mode": "fast"}, "/filter_mode"),
    (V | {"mode": "magic"}, "/mode"),
    (V | {"mode": None}, "/mode"),
    (V | {"search_params": None}, "/search_params"),
    (V | {"search_params": {"width": 8}}, "/search_params/width"),
    (V | {"search_params": {"a/b~": 8}}, "/search_params/a~1b~0"),
    (V | {"top_k": 5}, "/top_k"),
    (V | {"a/b~c": 5}, "/a~1b~0c"),
    ({"vector": [1, 0]}, "/vector"),
    ({"vector": [0, 0, 0]}, "/vector"),
    ({"vector": None}, "/vector"),
    ({"chunk_id": None}, "/chunk_id"),
    ({"chunk_id": 5}, "/chunk_id"),
    ({"chunk_id": "a/../b"}, "/chunk_id"),
]


@pytest.mark.parametrize(("body", "pointer"), REFUSED, ids=str)
def test_what_cannot_be_answered_is_refused_by_name(
    client: httpx.Client, path: str, body: dict[str, Any], pointer: str
) -> None:
    assert_refused(client.post(f"{path}/query", json=body), 400, "invalid", pointer)
    batch = client.post(f"{path}/query/batch", json={"queries": [V, V, V, body]})
    assert_refused(batch, 400, "invalid", f"/queries/3{pointer}")


@pytest.mark.parametrize(
    ("body", "limit"),
    [(V | {"k": 1001}, "VECTORDB_MAX_K"), (V | {"offset": 9991}, "VECTORDB_MAX_WINDOW")],
    ids=["k", "offset"],
)
def test_a_limit_is_named(client: httpx.Client, path: str, body: dict[str, Any], limit: str) -> None:
    assert limit in client.post(f"{path}/query", json=body).json()["detail"]


def test_a_batch_has_1_to_256_queries(client: httpx.Client, path: str) -> None:
    for bodies in ([], [V] * 257):
        problem = assert_refused(
            client.post(f"{path}/query/batch", json={"queries": bodies}), 400, "invalid", "/queries"
        )
        assert ("VECTORDB_MAX_QUERIES_PER_BATCH" in problem["detail"]) == bool(bodies)
    assert_refused(client.post(f"{path}/query/batch", json={}), 400, "invalid", "/queries")
    assert_refused(client.post(f"{path}/query/batch", json=V), 400, "invalid", "/queries")


def test_every_bad_query_of_a_batch_is_named(client: httpx.Client, path: str) -> None:
    bodies = [{"vector": [1]}, V, {"vector": [1, 2, 3, 4]}]
    response = client.post(f"{path}/query/batch", json={"queries": bodies})
    assert_refused(response, 400, "invalid", "/queries/0/vector", "/queries/2/vector")


def test_an_unknown_chunk_id_is_404(client: httpx.Client, path: str) -> None:
    assert_refused(client.post(f"{path}/query", json={"chunk_id": "no"}), 404, "not_found", "/chunk_id")
    batch = client.post(f"{path}/query/batch", json={"queries": [V, {"chunk_id": "no"}]})
    assert_refused(batch, 404, "not_found", "/queries/1/chunk_id")


def test_an_answer_too_large_to_make_is_refused(client: httpx.Client) -> None:
    path = f"/libraries/{client.post('/libraries', json={'name': 'Wide', 'dimension': 2000}).json()['id']}"
    chunks = [{"embedding": [1.0] * 1999 + [float(i)]} for i in range(1000)]
    client.post(f"{path}/chunks", json={"chunks": chunks}).raise_for_status()
    query = {"vector": [1.0] * 2000, "k": 1000, "include": ["embedding"]}
    # Each query makes some 24 MB.
    assert client.post(f"{path}/query/batch", json={"queries": [query] * 2}).status_code == 200
    response = client.post(f"{path}/query/batch", json={"queries": [query] * 8})
    assert_refused(response, 400, "invalid")
    assert "VECTORDB_MAX_ANSWER_BYTES" in response.json()["detail"]
