"""Metadata that a library does not index: it is returned, nothing looks at it, and the index has no memory for it."""

import json
from typing import Any

import httpx
import pytest

from tests.api.problems import assert_refused
from tests.server import Server

NODE = "x" * 577
METADATA = {"topic": "cats", "node": NODE, "deep": {"a": 1, "b": 2}, "a.b": 3}


@pytest.fixture
def path(client: httpx.Client, library: str) -> str:
    """The path of a library that leaves out some metadata, with 30 chunks of a document."""
    unindexed = ["node", "deep.a", r"a\.b", "@document.raw"]
    patched = client.patch(f"/libraries/{library}", json={"unindexed": unindexed}).raise_for_status().json()
    assert patched["unindexed"] == unindexed
    chunks = [{"id": f"c{n}", "embedding": [1, n, 0], "metadata": METADATA | {"n": n}} for n in range(30)]
    document = {"id": "d", "metadata": {"raw": NODE, "lang": "en"}, "chunks": chunks}
    client.post(f"/libraries/{library}/documents", json=document).raise_for_status()
    return f"/libraries/{library}"


def count(client: httpx.Client, path: str, condition: dict[str, Any]) -> httpx.Response:
    return client.post(f"{path}/chunks/count", json={"filter": condition})


@pytest.mark.any_database
def test_it_is_returned_and_the_rest_is_found(client: httpx.Client, path: str) -> None:
    assert client.get(path).json()["unindexed"] == ["node", "deep.a", r"a\.b", "@document.raw"]
    [found] = client.post(f"{path}/query", json={"vector": [1, 0, 0], "k": 1}).json()["results"]
    assert found["metadata"] == METADATA | {"n": 0}
    assert client.get(f"{path}/documents/d").json()["metadata"]["raw"] == NODE
    assert count(client, path, {"topic": "cats", "deep.b": 2, "deep": {"$exists": True}}).json() == {"count": 30}
    assert count(client, path, {"@document.lang": "en", "n": {"$lt": 3}}).json() == {"count": 3}


@pytest.mark.any_database
@pytest.mark.parametrize(
    "field", ["node", "node.below", "deep.a", r"\node", r"a\.b", "@document.raw", "@document.raw.x"]
)
def test_what_looks_at_it_is_refused(client: httpx.Client, path: str, field: str) -> None:
    condition = {"$or": [{"topic": "dogs"}, {"$not": {field: {"$gt": {"$date": "2025-01-01"}}}}]}
    listed = client.get(f"{path}/chunks", params={"filter": json.dumps(condition)})
    for refused in (
        listed,
        count(client, path, condition),
        client.post(f"{path}/chunks/delete", json={"filter": condition}),
        client.post(f"{path}/query", json={"vector": [1, 0, 0], "filter": condition}),
    ):
        assert_refused(refused, 400, "invalid", f"/filter/$or/1/$not/{field}/$gt")
        assert "PATCH the library with an `unindexed` that leaves it out" in refused.json()["errors"][0]["detail"]
    for action, body, at in (
        ("facets", {"field": field}, "/field"),
        ("fields", {"fields": ["topic", field]}, "/fields/1"),
        ("list", {"order_by": [{"field": "topic"}, {"field": field}]}, "/order_by/1/field"),
    ):
        assert_refused(client.post(f"{path}/chunks/{action}", json=body), 400, "invalid", at)
    query = {"vector": [1, 0, 0]}
    boosts = [{"filter": {"topic": "cats"}, "weight": 1}, {"field": field, "decay": {"half_life": 1}, "weight": 1}]
    queries = [query, query | {"boost": boosts}]
    refused = client.post(f"{path}/query/batch", json={"queries": queries})
    assert_refused(refused, 400, "invalid", "/queries/1/boost/1/field")
    grouped = client.post(f"{path}/query", json=query | {"group_by": field})
    assert_refused(grouped, 400, "invalid", "/group_by")


def test_a_change_is_seen_by_every_worker_at_once(server: Server, client: httpx.Client, path: str) -> None:
    with server.clients_of_each_worker(1) as workers:
        for turn in range(3):
            client.patch(path, json={"unindexed": []}).raise_for_status()
            for worker in workers:
                assert count(worker, path, {"node": NODE, "deep.a": 1, r"a\.b": 3}).json() == {"count": 30 - turn}
            client.patch(path, json={"unindexed": ["topic"]}).raise_for_status()
            for worker in workers:
                assert_refused(count(worker, path, {"topic": "cats"}), 400, "invalid", "/filter/topic")
                assert count(worker, path, {"node": NODE}).json() == {"count": 30 - turn}
            client.delete(f"{path}/chunks/c{turn}").raise_for_status()


@pytest.mark.any_database
@pytest.mark.parametrize(
    ("unindexed", "pointer", "remedy"),
    [
        (["a", "b", "a"], "/unindexed/2", "is named before"),
        (["a", r"\a"], "/unindexed/1", "is named before"),
        (["@id"], "/unindexed/0", "path of a field"),
        (["$a"], "/unindexed/0", "path of a field"),
        (["a\\"], "/unindexed/0", "backslash"),
        (["a" * 1001], "/unindexed/0", "at most 1000 characters"),
        ([str(n) for n in range(51)], "/unindexed", "at most 50 items"),
        ("a", "/unindexed", "array"),
        (None, "/unindexed", "array"),
    ],
)
def test_a_bad_list_is_refused(client: httpx.Client, library: str, unindexed: Any, pointer: str, remedy: str) -> None:
    for method, path, body in [("PATCH", f"/libraries/{library}", {}), ("POST", "/libraries", {"name": "x"})]:
        response = client.request(method, path, json=body | {"unindexed": unindexed})
        assert remedy in assert_refused(response, 400, "invalid", pointer)["detail"]
