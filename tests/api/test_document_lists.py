"""Documents by a filter on their own metadata, as a plain evaluator finds them, page by page."""

import json
import random
from typing import Any

import httpx
import pytest

from tests.api.problems import assert_refused
from tests.engine.metadata.evaluator import matches, row_of

FILTERS: list[dict[str, Any]] = [
    {},
    {"lang": "de"},
    {"lang": {"$ne": "de"}, "n": {"$lt": 100}},
    {"day": {"$gte": {"$date": "2025-06-10"}, "$lt": {"$date": "2025-06-20"}}},
    {"tags": {"$all": ["a", "b"]}},
    {"$or": [{"by.name": {"$icontains": "ANN"}}, {"tags": {"$empty": True}}]},
    {r"file\.name": {"$prefix": "f1"}},
    {"n": 417},
    {"n": -1},
]


def metadata(n: int) -> dict[str, Any]:
    rng = random.Random(n)
    found = {"n": n, "lang": rng.choice(["de", "en"]), "tags": rng.sample(["a", "b", "c"], rng.randrange(4))}
    return found | {"day": f"2025-06-{1 + n % 30:02}", "by": {"name": rng.choice(["Anna", "Bo"])}, "file.name": f"f{n}"}


@pytest.fixture(scope="module")
def path(client: httpx.Client) -> str:
    """A library of 450 documents, more than are read at once."""
    client.post("/libraries", json={"id": "listed", "name": "Listed", "dimension": 2}).raise_for_status()
    documents = [{"id": f"d{n}", "metadata": metadata(n), "chunks": [{"embedding": [1, n]}]} for n in range(450)]
    client.post("/libraries/listed/documents/batch", json={"documents": documents}).raise_for_status()
    return "/libraries/listed/documents"


@pytest.mark.any_database
@pytest.mark.parametrize("condition", FILTERS, ids=str)
def test_pages_have_what_a_plain_evaluator_finds(client: httpx.Client, path: str, condition: dict[str, Any]) -> None:
    expected = [f"d{n}" for n in range(450) if matches(row_of(metadata(n)), condition)]
    for limit in (500, 37):
        query: dict[str, Any] = {"filter": json.dumps(condition), "limit": limit}
        listed: list[str] = []
        while True:
            page = client.get(path, params=query).raise_for_status().json()
            assert all(item["chunk_count"] == 1 for item in page["items"])
            listed += [item["id"] for item in page["items"]]
            if page["next_cursor"] is None:
                break
            assert len(page["items"]) == limit
            query["cursor"] = page["next_cursor"]
        assert listed == expected


def test_own_fields_are_those_of_documents(client: httpx.Client, path: str) -> None:
    def ids(condition: dict[str, Any]) -> list[str]:
        answer = client.get(path, params={"filter": json.dumps(condition), "limit": 500}).raise_for_status()
        return [item["id"] for item in answer.json()["items"]]

    assert ids({"@id": {"$in": ["d7", "d3", "none"]}}) == ["d3", "d7"]
    created = client.get(f"{path}/d3").json()["created_at"]
    assert ids({"@created_at": {"$gte": created}, "@id": "d3"}) == ["d3"]
    assert ids({"@created_at": {"$lt": {"$date": "2020-01-01"}}}) == []
    client.patch(f"{path}/d9", json={"expires_at": "2999-01-01T00:00:00Z"}).raise_for_status()
    assert ids({"@expires_at": {"$exists": True}}) == ["d9"]
    client.patch(f"{path}/d9", json={"expires_at": "2020-01-01T00:00:00Z"}).raise_for_status()
    assert ids({"n": {"$in": [8, 9]}}) == ["d8"]
    for field in ("@document_id", "@text", "@document.n"):
        refused = client.get(path, params={"filter": json.dumps({"$not": {field: "x"}})})
        assert_refused(refused, 400, "invalid", f"/filter/$not/{field}")
    assert_refused(client.get(path, params={"filter": "{"}), 400, "invalid", "/filter")
    assert client.get("/libraries/none/documents", params={"filter": '{"a": 1}'}).status_code == 404
