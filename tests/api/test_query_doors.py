"""A query is answered alike by the edge's route and by the view that every other door leads to."""

from typing import Any

import httpx
import orjson
import pytest

ROUTE = {"Content-Type": "application/json", "X-Request-ID": "same"}
VIEW = ROUTE | {"Content-Type": "application/json; charset=utf-8"}


def reproducible(response: httpx.Response) -> dict[str, Any]:
    """An answer without what differs from one to the next."""
    answer: dict[str, Any] = response.json()
    for one in [answer] if "meta" in answer else answer.get("results", []):
        del one["meta"]["took_ms"]
    return answer


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("query", {"vector": [1, 2, 3]}, 200),
        ("query", {"chunk_id": "kept", "k": 1, "include": ["embedding", "document"]}, 200),
        ("query", {"vector": [1, 2, 3], "include": []}, 200),
        ("query/batch", {"queries": [{"vector": [1, 2, 3]}, {"chunk_id": "alone", "k": 5}]}, 200),
        ("query", {"vector": [1, 2]}, 400),
        ("query", {"vector": [1, 2, 3], "k": 0}, 400),
        ("query", {"vector": [1, 2, 3], "colour": 1}, 400),
        ("query", {"chunk_id": "nope"}, 404),
        ("query/batch", {"queries": []}, 400),
    ],
)
def test_both_doors_answer_alike(
    client: httpx.Client, shared: str, path: str, body: dict[str, Any], status: int
) -> None:
    url, content = f"/libraries/{shared}/{path}", orjson.dumps(body)
    route, view = (client.post(url, content=content, headers=headers) for headers in (ROUTE, VIEW))
    assert route.status_code == view.status_code == status
    assert reproducible(route) == reproducible(view)
    differing = {"date", "content-length", "vary", "allow"}
    assert {name: value for name, value in route.headers.items() if name not in differing} == {
        name: value for name, value in view.headers.items() if name not in differing
    }


@pytest.mark.parametrize("content", [b"", b" ", b"{", b"[]", b'"a"', b"\xff"])
def test_both_doors_refuse_alike_what_is_no_query(client: httpx.Client, shared: str, content: bytes) -> None:
    for path in (f"/libraries/{shared}/query", "/libraries/nowhere/query/batch"):
        route, view = (client.post(path, content=content, headers=headers) for headers in (ROUTE, VIEW))
        assert (route.status_code, route.json()) == (view.status_code, view.json())
