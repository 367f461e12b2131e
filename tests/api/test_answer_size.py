"""VECTORDB_MAX_ANSWER_BYTES: an answer is no larger, and is refused before it is made where it would be."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.api.problems import assert_refused
from tests.server import serving

pytestmark = pytest.mark.any_database

LIMIT = 1 << 20
COUNT = 120
V = [1, 0, 0]
PATH = "/libraries/large"
# What makes an answer of about one and a half times the limit from COUNT of it.
LARGE = "x" * 13_000
# Fewer characters than the limit has bytes.
WIDE = "\u6587" * 4_300
# Six bytes of JSON each.
ESCAPED = "\x01" * 2_200


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A client of a server whose answers have at most 1 MiB: a library of chunks of each kind and of documents, and
    many libraries."""
    folder = tmp_path_factory.mktemp("answers") / "data"
    with serving(folder, VECTORDB_MAX_ANSWER_BYTES=LIMIT, VECTORDB_WORKERS=1) as server, server.client() as client:
        client.post("/libraries", json={"id": "large", "name": "Large", "dimension": 3}).raise_for_status()
        for kind, text in (("large", LARGE), ("wide", WIDE), ("escaped", ESCAPED)):
            for first in range(0, COUNT, 40):
                chunks = [
                    {"id": f"{kind}-{i}", "text": text, "metadata": {"kind": kind}, "embedding": V}
                    for i in range(first, first + 40)
                ]
                client.post(f"{PATH}/chunks", json={"chunks": chunks}).raise_for_status()
        chunks = [{"id": f"titled-{i}", "metadata": {"kind": "titled"}, "embedding": V} for i in range(COUNT)]
        document = {"id": "titled", "title": WIDE, "source": WIDE, "chunks": chunks}
        client.post(f"{PATH}/documents", json=document).raise_for_status()
        for i in range(COUNT):
            value = f"{i}{WIDE}"
            chunk = {"embedding": V, "metadata": {"kind": "valued", "value": value}}
            client.post(f"{PATH}/documents", json={"title": value, "chunks": [chunk]}).raise_for_status()
            client.post("/libraries", json={"name": "Other", "metadata": {"value": value}}).raise_for_status()
        yield client


def too_large(response: httpx.Response) -> None:
    """Check that an answer was refused for its size, and that it is said what to do."""
    detail = assert_refused(response, 400, "invalid")["detail"]
    assert str(LIMIT) in detail
    assert "VECTORDB_MAX_ANSWER_BYTES" in detail
    assert "ask for less" in detail


def answered(response: httpx.Response, key: str, count: int) -> None:
    """Check that an answer has `count` things and is no larger than it may be."""
    assert response.status_code == 200, response.text
    assert len(response.json()[key]) == count
    assert len(response.content) <= LIMIT


def query(kind: str, field: str, k: int) -> dict[str, Any]:
    return {"vector": V, "filter": {"kind": kind}, "k": k, "include": [field]}


CASES = [("large", "text"), ("wide", "text"), ("escaped", "text"), ("titled", "document")]


@pytest.mark.parametrize(("kind", "field"), CASES)
@pytest.mark.parametrize("k", [COUNT, 95])
def test_a_query_is_refused(client: httpx.Client, kind: str, field: str, k: int) -> None:
    """Whether or not its results are so many that they are counted while they are read."""
    too_large(client.post(f"{PATH}/query", json=query(kind, field, k)))
    answered(client.post(f"{PATH}/query", json=query(kind, field, 30)), "results", 30)
    answered(client.post(f"{PATH}/query", json=query(kind, "metadata", k)), "results", k)
    # As Django answers it.
    too_large(client.post(f"{PATH}/query?format=json", json=query(kind, field, k)))


@pytest.mark.parametrize(("kind", "field"), CASES)
def test_a_batch_is_refused(client: httpx.Client, kind: str, field: str) -> None:
    """A chunk counts as often as it is shown."""
    queries = [query(kind, field, 1)] * COUNT
    too_large(client.post(f"{PATH}/query/batch", json={"queries": queries}))
    answered(client.post(f"{PATH}/query/batch", json={"queries": queries[:30]}), "results", 30)


@pytest.mark.parametrize("kind", ["large", "wide", "escaped"])
def test_chunks_by_their_ids_are_refused(client: httpx.Client, kind: str) -> None:
    ids = [f"{kind}-{i}" for i in range(COUNT)]
    too_large(client.post(f"{PATH}/chunks/get", json={"ids": ids}))
    answered(client.post(f"{PATH}/chunks/get", json={"ids": ids[:30]}), "items", 30)


@pytest.mark.parametrize(
    ("path", "params"),
    [
        (f"{PATH}/chunks", {}),
        (f"{PATH}/chunks", {"filter": '{"kind": "wide"}'}),
        (f"{PATH}/chunks", {"filter": '{"kind": "escaped"}', "include": ["text", "embedding"]}),
        (f"{PATH}/documents", {}),
        ("/libraries", {}),
    ],
)
def test_a_page_of_a_list_is_refused(client: httpx.Client, path: str, params: dict[str, Any]) -> None:
    too_large(client.get(path, params={"limit": 110, **params}))
    answered(client.get(path, params={"limit": 30, **params}), "items", 30)


def test_facets_are_refused(client: httpx.Client) -> None:
    too_large(client.post(f"{PATH}/chunks/facets", json={"field": "value", "limit": 110}))
    answered(client.post(f"{PATH}/chunks/facets", json={"field": "value", "limit": 30}), "facets", 30)


def test_one_thing_is_answered_whatever_its_size(client: httpx.Client) -> None:
    text = "\x01" * 200_000
    client.post(f"{PATH}/chunks", json={"chunks": [{"id": "one", "text": text, "embedding": V}]}).raise_for_status()
    assert client.get(f"{PATH}/chunks/one").json()["text"] == text
    changed = client.patch(f"{PATH}/chunks/one", json={"metadata": {"a": 1}})
    assert changed.json()["text"] == text
    too_large(client.post(f"{PATH}/chunks/get", json={"ids": ["one"]}))
    client.delete(f"{PATH}/chunks/one").raise_for_status()
