"""What the contract has and this version has not is refused with the code `not_supported`, not passed over."""

from typing import Any

import httpx
import pytest

from tests.api.problems import refused

X = [1, 0, 0]
V = {"vector": X}
CHUNK = {"embedding": X}

BODIES: list[tuple[str, str, dict[str, Any], list[str]]] = [
    ("POST", "/libraries", {"name": "N", "embedding": {"provider": "p", "model": "m"}}, ["/embedding"]),
    ("POST", "{library}/documents", {"text": "A text to be split."}, ["/text"]),
    (
        "POST",
        "{library}/documents",
        {"text": "A text to be split.", "chunking": {"max_tokens": 100, "overlap": 10}},
        ["/text", "/chunking"],
    ),
    ("POST", "{library}/documents", {"text": "Both", "chunks": [CHUNK]}, ["/text"]),
    ("PUT", "{library}/documents/doc", {"text": "A text to be split."}, ["/text"]),
    ("PUT", "{library}/documents/new", {"text": "A text to be split."}, ["/text"]),
    (
        "POST",
        "{library}/documents/batch",
        {"documents": [{"chunks": [CHUNK]}, {"text": "A text to be split."}]},
        ["/documents/1/text"],
    ),
    ("POST", "{library}/chunks/delete", {"filter": {"topic": "a"}}, ["/filter"]),
    ("POST", "{library}/chunks/delete", {"filter": {"topic": "a"}, "ids": ["alone"]}, ["/filter"]),
    ("POST", "{library}/chunks/count", {"filter": {"topic": "a"}}, ["/filter"]),
    ("POST", "{library}/query", {"text": "a question"}, ["/text"]),
    ("POST", "{library}/query", {"text": "a question", "mode": "lexical"}, ["/text", "/mode"]),
    ("POST", "{library}/query", {"text": "a question", "mode": "hybrid", "hybrid": {}}, ["/text", "/mode", "/hybrid"]),
    ("POST", "{library}/query", V | {"filter": {"topic": "a"}}, ["/filter"]),
    (
        "POST",
        "{library}/query",
        V | {"filter": {"$and": [{"a": {"$gt": 1}}]}, "filter_mode": "pre"},
        ["/filter", "/filter_mode"],
    ),
    ("POST", "{library}/query", V | {"mode": "hybrid"}, ["/mode"]),
    ("POST", "{library}/query", V | {"hybrid": {"rrf_k": 60}}, ["/hybrid"]),
    ("POST", "{library}/query", V | {"group_by": "document"}, ["/group_by"]),
    ("POST", "{library}/query", V | {"group_by": "document", "group_size": 2}, ["/group_by", "/group_size"]),
    ("POST", "{library}/query", V | {"mmr": {"lambda": 0.5, "fetch_k": 50}}, ["/mmr"]),
    ("POST", "{library}/query/batch", {"queries": [V, {"text": "a question"}]}, ["/queries/1/text"]),
    ("POST", "{library}/query/batch", {"queries": [V, V | {"filter": {"a": 1}}]}, ["/queries/1/filter"]),
]


@pytest.mark.parametrize(("method", "path", "body", "pointers"), BODIES, ids=lambda value: str(value)[:70])
def test_an_unbuilt_part_says_so(
    client: httpx.Client, shared: str, method: str, path: str, body: dict[str, Any], pointers: list[str]
) -> None:
    library = f"/libraries/{shared}"
    before = (
        client.get(library).json(),
        client.get(f"{library}/documents").json(),
        client.get(f"{library}/chunks").json(),
    )
    refused(client.request(method, path.format(library=library), json=body), 400, "not_supported", *pointers)
    after = (
        client.get(library).json(),
        client.get(f"{library}/documents").json(),
        client.get(f"{library}/chunks").json(),
    )
    assert after == before


@pytest.mark.parametrize("text", ['{"topic": "a"}', '{"$or": []}'])
def test_lists_have_no_filter_yet(client: httpx.Client, shared: str, text: str) -> None:
    response = client.get(f"/libraries/{shared}/chunks", params={"filter": text})
    refused(response, 400, "not_supported", "/filter")


@pytest.mark.parametrize("text", ["{}", "{ }"])
def test_an_empty_filter_means_all(client: httpx.Client, shared: str, text: str) -> None:
    listed = client.get(f"/libraries/{shared}/chunks", params={"filter": text}).json()
    assert [chunk["id"] for chunk in listed["items"]] == ["kept", "alone"]


@pytest.mark.parametrize("by", ["chunks", "documents"])
def test_a_library_without_a_dimension_would_bind_a_model(client: httpx.Client, by: str) -> None:
    library = f"/libraries/{client.post('/libraries', json={'name': 'Open'}).json()['id']}"
    response = client.post(f"{library}/{by}", json={"chunks": [{"text": "to be embedded"}]})
    refused(response, 400, "not_supported", "/chunks/0/embedding")
    assert client.get(f"{library}/stats").json()["chunks"] == 0


def test_what_is_wrong_beside_an_unbuilt_part_is_named_too(client: httpx.Client, shared: str) -> None:
    body = {"text": "a question", "k": 0, "colour": "red"}
    response = client.post(f"/libraries/{shared}/query", json=body)
    refused(response, 400, "invalid", "/text", "/k", "/colour")
