"""`profile: true` tells the milliseconds of each stage, of queries and of writes; without it nothing is told."""

from typing import Any

import httpx
import pytest

QUERY = {"other", "embed", "open", "plan", "search", "rerank", "rows"}
WRITE = {"parse", "other", "lock", "write", "commit"}


def stages(profile: dict[str, float], expected: set[str]) -> None:
    assert set(profile) == expected
    assert min(profile.values()) >= 0 < sum(profile.values())


@pytest.mark.parametrize(
    ("options", "more"),
    [
        ({}, set()),
        ({"filter": {"n": 1}}, {"filter"}),
        ({"group_by": "n", "filter": {"n": {"$gte": 0}}}, {"filter"}),
        ({"boost": [{"filter": {"n": 1}, "weight": 1}]}, {"filter"}),
        ({"mmr": {}}, set()),
        ({"text": "one", "mode": "hybrid"}, set()),
    ],
    ids=str,
)
def test_the_stages_of_a_query(client: httpx.Client, shared: str, options: dict[str, Any], more: set[str]) -> None:
    path, query = f"/libraries/{shared}/query", {"vector": [1, 0, 0]} | options
    meta = client.post(path, json=query | {"profile": True}).raise_for_status().json()["meta"]
    stages(meta["profile"], QUERY | more)
    assert "profile" not in client.post(path, json=query | {"profile": False}).json()["meta"]
    batch = client.post(f"{path}/batch", json={"queries": [query, query | {"profile": True}]}).json()["results"]
    assert ["profile" in answer["meta"] for answer in batch] == [False, True]


def test_the_stages_of_writes(client: httpx.Client, library: str) -> None:
    path = f"/libraries/{library}"
    chunk = {"id": "a", "embedding": [1, 0, 0]}
    document = {"id": "d", "chunks": [{"embedding": [1, 0, 0]}]}
    for method, url, body in (
        ("POST", "chunks", {"chunks": [chunk]}),
        ("POST", "chunks", {"chunks": [chunk], "mode": "update"}),
        ("POST", "chunks", {"chunks": [chunk, {"id": "b"}], "on_invalid": "skip"}),
        ("POST", "documents", document),
        ("PUT", "documents/d", document),
        ("POST", "documents/batch", {"documents": [document], "mode": "upsert"}),
    ):
        found = client.request(method, f"{path}/{url}", json=body | {"profile": True}).raise_for_status().json()
        stages(found["profile"], WRITE)
    update = {"metadata": {"n": 1}, "profile": True}
    for which, more in (({"ids": ["a"]}, set()), ({"filter": {"m": 1}}, {"open", "filter"})):
        found = client.post(f"{path}/chunks/update", json=update | which).raise_for_status().json()
        stages(found["profile"], WRITE | more)
    assert "profile" not in client.post(f"{path}/chunks", json={"chunks": [chunk]}).json()
    refused = client.post(f"{path}/documents/batch", json={"documents": [document | {"profile": True}]})
    assert refused.status_code == 400


def test_texts_that_are_split_and_embedded_are_stages(client: httpx.Client) -> None:
    library = client.post("/libraries", json={"name": "Profiled"}).raise_for_status().json()["id"]
    body = {"text": "One sentence. Another one.", "profile": True}
    found = client.post(f"/libraries/{library}/documents", json=body).raise_for_status().json()
    stages(found["profile"], WRITE | {"split", "embed"})
    answer = client.post(f"/libraries/{library}/query", json={"text": "one", "profile": True}).raise_for_status().json()
    stages(answer["meta"]["profile"], QUERY)
