"""What `include` and `vectors` show of chunks: the same by one id, by many, in lists and in queries."""

import base64
from collections.abc import Callable
from typing import Any

import httpx
import numpy as np
import pytest

PATH = "/libraries/included"
VECTOR = [0.1, -2.5, 3e-9]
METADATA = {
    "a": {"b": 1, "c": {"d": [1, 2]}},
    "file.name": "x",
    "@type": None,
    "$ref": {"": {"e": 2}},
    "list": [{"b": 3}],
}
DOCUMENT = {"id": "d", "title": "T", "source": "S", "metadata": {"m": 2.50}}
SHOWN = {"text": "A", "metadata": METADATA, "document": DOCUMENT}
ALWAYS = {"id", "document_id", "position", "created_at", "updated_at", "expires_at"}


@pytest.fixture(scope="module", autouse=True)
def _filled(client: httpx.Client) -> None:
    client.post("/libraries", json={"id": "included", "name": "I", "dimension": 3}).raise_for_status()
    chunk = {"id": "a", "text": "A", "metadata": METADATA, "embedding": VECTOR}
    client.post(f"{PATH}/documents", json=DOCUMENT | {"chunks": [chunk]}).raise_for_status()
    client.post(f"{PATH}/chunks", json={"chunks": [{"id": "b", "text": "B", "embedding": VECTOR}]}).raise_for_status()


def by_id(client: httpx.Client, options: dict[str, Any]) -> list[dict[str, Any]]:
    return [client.get(f"{PATH}/chunks/{name}", params=_parameters(options)).raise_for_status().json() for name in "ab"]


def by_ids(client: httpx.Client, options: dict[str, Any]) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = (
        client.post(f"{PATH}/chunks/get", json={"ids": ["a", "b"]} | options).raise_for_status().json()["items"]
    )
    return items


def listed(client: httpx.Client, options: dict[str, Any]) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = (
        client.get(f"{PATH}/chunks", params=_parameters(options)).raise_for_status().json()["items"]
    )
    return items


def matched(client: httpx.Client, options: dict[str, Any]) -> list[dict[str, Any]]:
    params = _parameters(options) | {"filter": '{"@id": {"$in": ["a", "b"]}}'}
    items: list[dict[str, Any]] = client.get(f"{PATH}/chunks", params=params).raise_for_status().json()["items"]
    return items


def found(client: httpx.Client, options: dict[str, Any]) -> list[dict[str, Any]]:
    results: list[dict[str, Any]] = (
        client.post(f"{PATH}/query", json={"vector": VECTOR} | options).raise_for_status().json()["results"]
    )
    return results


DOORS = [by_id, by_ids, listed, matched, found]
Door = Callable[[httpx.Client, dict[str, Any]], list[dict[str, Any]]]


def _parameters(options: dict[str, Any]) -> dict[str, Any]:
    """Options as parameters of a URL, where an empty list is an empty text."""
    return {name: value or "" for name, value in options.items()}


@pytest.fixture(params=DOORS, ids=lambda door: door.__name__)
def door(request: pytest.FixtureRequest) -> Door:
    """A way to read the chunks `a` and `b`."""
    found: Door = request.param
    return found


def included(door: Door, item: dict[str, Any]) -> dict[str, Any]:
    """An item without what it always has."""
    always = {"id", "document_id", "score", "distance"} if door is found else ALWAYS
    assert always <= item.keys()
    return {name: value for name, value in item.items() if name not in always}


@pytest.mark.parametrize(
    "names",
    [[], ["text"], ["metadata"], ["document"], ["document", "text"], ["text", "metadata", "text"]],
    ids="-".join,
)
def test_what_is_named_is_shown_and_no_more(client: httpx.Client, door: Door, names: list[str]) -> None:
    first, second = door(client, {"include": names})
    assert included(door, first) == {name: SHOWN[name] for name in names}
    assert included(door, second).keys() == set(names)
    assert second.get("document") is None


def test_text_and_metadata_are_shown_by_default(client: httpx.Client, door: Door) -> None:
    first, second = door(client, {})
    assert included(door, first) == {"text": "A", "metadata": METADATA}
    assert included(door, second) == {"text": "B", "metadata": {}}


@pytest.mark.any_database
@pytest.mark.parametrize(
    ("names", "metadata"),
    [
        (["metadata.a"], {"a": METADATA["a"]}),
        (["metadata.a.b"], {"a": {"b": 1}}),
        (["metadata.a.c.d", "metadata.a.b"], {"a": {"b": 1, "c": {"d": [1, 2]}}}),
        (["metadata.a.b", "metadata.a", "metadata.a.c"], {"a": METADATA["a"]}),
        (["metadata.file\\.name"], {"file.name": "x"}),
        (["metadata.file.name"], {}),
        (["metadata.\\@type", "metadata.$ref..e"], {"@type": None, "$ref": {"": {"e": 2}}}),
        (["metadata.@type"], {"@type": None}),
        (["metadata.a.no", "metadata.no", "metadata.list.b", "metadata.file\\.name.x"], {}),
        (["metadata.a", "metadata"], METADATA),
    ],
    ids=str,
)
def test_parts_of_metadata_are_shown_where_they_are(
    client: httpx.Client, door: Door, names: list[str], metadata: dict[str, Any]
) -> None:
    first, second = door(client, {"include": names})
    assert included(door, first) == {"metadata": metadata}
    assert included(door, second) == {"metadata": {}}


def test_vectors_are_arrays_or_base64(client: httpx.Client, door: Door) -> None:
    exact = np.array(VECTOR, np.float32)
    for item in door(client, {"include": ["embedding"]}) + door(client, {"include": ["embedding"], "vectors": "array"}):
        assert np.array_equal(np.array(item["embedding"], np.float32), exact)
    for item in door(client, {"include": ["embedding"], "vectors": "base64"}):
        assert item["embedding"] == base64.b64encode(exact.astype("<f4").tobytes()).decode()


def test_each_query_of_a_batch_shows_vectors_in_its_own_way(client: httpx.Client) -> None:
    queries = [
        {"vector": VECTOR, "k": 1, "include": ["embedding"], "vectors": vectors} for vectors in ("base64", "array")
    ] + [{"vector": VECTOR, "k": 1, "include": ["metadata.a.b"]}]
    answers = client.post(f"{PATH}/query/batch", json={"queries": queries}).raise_for_status().json()["results"]
    first, second, third = (answer["results"][0] for answer in answers)
    assert client.post(f"{PATH}/query", json={"vector": first["embedding"], "k": 1}).status_code == 200
    assert (type(first["embedding"]), type(second["embedding"])) == (str, list)
    assert (third["metadata"], "embedding" in third) == ({"a": {"b": 1}}, False)


def test_a_chunk_has_one_tag_whatever_is_shown_of_it(client: httpx.Client) -> None:
    ways: list[dict[str, Any]] = [
        {},
        {"include": ""},
        {"include": ["embedding", "document"]},
        {"include": "metadata.a"},
    ]
    assert len({client.get(f"{PATH}/chunks/a", params=params).headers["ETag"] for params in ways}) == 1
