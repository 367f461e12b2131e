"""The metadata of a chunk's document, in whatever takes a filter or a field of chunks."""

import json
from typing import Any

import httpx
import pytest

from tests.api.problems import assert_refused
from tests.server import Server


@pytest.fixture
def path(client: httpx.Client, library: str) -> str:
    """The path of a library with two documents of two chunks each, and a chunk without."""
    documents = [
        {
            "id": name,
            "metadata": {"lang": name, "by": {"born": born}, "file.name": f"{name}.txt"},
            "chunks": [{"id": f"{name}-{i}", "embedding": [1, i, 0], "metadata": {"lang": "none"}} for i in range(2)],
        }
        for name, born in (("de", "1749-08-28"), ("en", "1564-04-26T00:00:00Z"))
    ]
    client.post(f"/libraries/{library}/documents/batch", json={"documents": documents}).raise_for_status()
    client.post(f"/libraries/{library}/chunks", json={"chunks": [{"id": "alone", "embedding": [0, 0, 1]}]})
    return f"/libraries/{library}"


def found(client: httpx.Client, path: str, condition: dict[str, Any]) -> list[str]:
    """The ids of the chunks that match, by the list; query and count must agree."""
    listed = client.get(f"{path}/chunks", params={"filter": json.dumps(condition)}).raise_for_status().json()
    ids = [chunk["id"] for chunk in listed["items"]]
    answer = client.post(f"{path}/query", json={"vector": [1, 1, 1], "filter": condition}).raise_for_status().json()
    assert sorted(one["id"] for one in answer["results"]) == sorted(ids)
    assert client.post(f"{path}/chunks/count", json={"filter": condition}).json() == {"count": len(ids)}
    return ids


def test_filters_reach_the_document(client: httpx.Client, path: str) -> None:
    assert found(client, path, {"@document.lang": "de"}) == ["de-0", "de-1"]
    assert found(client, path, {"@document.lang": {"$ne": "de"}}) == ["en-0", "en-1", "alone"]
    assert found(client, path, {"@document.by.born": {"$lt": {"$date": "1600-01-01"}}}) == ["en-0", "en-1"]
    assert found(client, path, {r"@document.file\.name": {"$icontains": "DE"}}) == ["de-0", "de-1"]
    assert found(client, path, {"@document.lang": {"$exists": False}}) == ["alone"]
    counted = client.post(f"{path}/chunks/facets", json={"field": "@document.lang"}).json()
    assert counted == {
        "facets": [{"value": "de", "count": 2}, {"value": "en", "count": 2}],
        "values": 2,
        "chunks": 5,
    }
    assert client.post(f"{path}/chunks/delete", json={"filter": {"@document.lang": "en"}}).json() == {"deleted": 2}
    for field in ("@document", "@documents.a"):
        condition = {field: {"$exists": True}}
        refused = client.post(f"{path}/chunks/count", json={"filter": condition})
        assert_refused(refused, 400, "invalid", f"/filter/{field}")


def test_filters_follow_the_document(client: httpx.Client, path: str) -> None:
    client.patch(f"{path}/documents/de", json={"metadata": {"lang": "fr"}}).raise_for_status()
    assert found(client, path, {"@document.lang": "fr"}) == ["de-0", "de-1"]
    assert found(client, path, {"@document.lang": "de"}) == []
    client.patch(f"{path}/chunks/en-1", json={"document_id": "de"}).raise_for_status()
    assert found(client, path, {"@document.lang": "fr"}) == ["de-0", "de-1", "en-1"]
    client.patch(f"{path}/chunks/en-1", json={"document_id": None}).raise_for_status()
    assert found(client, path, {"@document.lang": "en"}) == ["en-0"]


def test_a_change_of_a_large_document_is_seen_by_every_worker(server: Server, client: httpx.Client, path: str) -> None:
    chunks = [{"embedding": [1, i, 1]} for i in range(1000)]
    document = {"id": "large", "metadata": {"version": 0}, "chunks": chunks}
    client.post(f"{path}/documents", json=document).raise_for_status()
    with server.clients_of_each_worker(1) as readers:
        for version in (1, 2):
            client.patch(f"{path}/documents/large", json={"metadata": {"version": version}}).raise_for_status()
            for reader in readers:
                answer = reader.post(f"{path}/chunks/count", json={"filter": {"@document.version": version}})
                assert answer.json() == {"count": 1000}
