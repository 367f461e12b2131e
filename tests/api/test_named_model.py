"""A request may say which embedding model it takes the library to have; another one is 409, and nothing is written."""

from typing import Any

import httpx
import pytest

from tests.api.problems import assert_refused

pytestmark = pytest.mark.any_database

SMALL = {"provider": "hashing", "model": "hashing-64"}
OTHER = {"provider": "hashing", "model": "hashing-128"}
VECTOR = [1.0] + [0.0] * 63

REQUESTS: list[tuple[str, str, dict[str, Any], str]] = [
    ("POST", "/chunks", {"chunks": [{"id": "new", "text": "hello"}]}, ""),
    ("POST", "/chunks", {"chunks": [{"id": "new", "embedding": VECTOR}]}, ""),
    ("POST", "/chunks", {"chunks": [{"id": "a", "metadata": {"n": 1}}], "mode": "update"}, ""),
    ("POST", "/documents", {"chunks": [{"text": "hello"}]}, ""),
    ("POST", "/documents", {"text": "Hello. World."}, ""),
    ("PUT", "/documents/d", {"chunks": [{"embedding": VECTOR}]}, ""),
    ("PUT", "/documents/d", {"text": "Hello. World."}, ""),
    ("POST", "/documents/batch", {"documents": [{"text": "Hello."}]}, ""),
    ("POST", "/documents/batch", {"documents": [{"text": "Hello."}]}, "/documents/0"),
    ("POST", "/query", {"text": "hello"}, ""),
    ("POST", "/query", {"vector": VECTOR}, ""),
    ("POST", "/query", {"text": "hello", "mode": "lexical"}, ""),
    ("POST", "/query/batch", {"queries": [{"chunk_id": "a"}, {"vector": VECTOR}]}, "/queries/1"),
    ("PATCH", "", {"name": "Named"}, ""),
]


def naming(body: dict[str, Any], at: str, model: dict[str, str]) -> dict[str, Any]:
    """`body` with the model at a place in it."""
    if not at:
        return body | {"embedding": model}
    _, name, number = at.split("/")
    return {name: [item | {"embedding": model} if i == int(number) else item for i, item in enumerate(body[name])]}


def new(client: httpx.Client, **fields: Any) -> str:
    """The path of a new library."""
    return f"/libraries/{client.post('/libraries', json={'name': 'N'} | fields).json()['id']}"


def stored(client: httpx.Client, path: str) -> tuple[Any, Any, int]:
    """The library and its chunks, and the revision. Not the whole of stats: its index is of the worker that answers."""
    return (
        client.get(path).json(),
        client.get(f"{path}/chunks", params={"include": "embedding"}).json(),
        client.get(f"{path}/stats").json()["revision"],
    )


@pytest.mark.parametrize(("method", "where", "body", "at"), REQUESTS, ids=str)
def test_the_librarys_model_is_fine_and_another_is_refused(
    client: httpx.Client, method: str, where: str, body: dict[str, Any], at: str
) -> None:
    path = new(client, embedding=SMALL)
    client.post(f"{path}/chunks", json={"chunks": [{"id": "a", "text": "hello world"}]}).raise_for_status()
    before = stored(client, path)
    problem = assert_refused(
        client.request(method, path + where, json=naming(body, at, OTHER)), 409, "model_mismatch", f"{at}/embedding"
    )
    for part in ("'hashing-128'", "'hashing-64'", "/reembed"):
        assert part in problem["detail"]
    assert stored(client, path) == before
    response = client.request(method, path + where, json=naming(body, at, SMALL))
    assert response.is_success, response.text


@pytest.mark.parametrize(("method", "where", "body", "at"), REQUESTS, ids=str)
def test_a_library_with_a_dimension_and_no_model_refuses_any(
    client: httpx.Client, method: str, where: str, body: dict[str, Any], at: str
) -> None:
    path = new(client, dimension=64)
    client.post(f"{path}/chunks", json={"chunks": [{"id": "a", "embedding": VECTOR}]}).raise_for_status()
    response = client.request(method, path + where, json=naming(body, at, SMALL))
    problem = assert_refused(response, 409, "model_mismatch", f"{at}/embedding")
    assert "the library has none" in problem["detail"]
    assert client.get(path).json()["embedding"] is None


@pytest.mark.parametrize(
    ("method", "where", "body", "at"),
    [row for row in REQUESTS if "query" not in row[1] and "mode" not in row[2]],
    ids=str,
)
def test_an_empty_library_takes_the_model_that_is_named(
    client: httpx.Client, method: str, where: str, body: dict[str, Any], at: str
) -> None:
    path = new(client)
    unknown = {"provider": "hashing", "model": "m"}
    response = client.request(method, path + where, json=naming(body, at, unknown))
    assert_refused(response, 400, "invalid", f"{at}/embedding/model")
    assert client.get(path).json()["embedding"] is None
    response = client.request(method, path + where, json=naming(body, at, SMALL))
    assert response.is_success, response.text
    library = client.get(path).json()
    assert library["embedding"] == SMALL
    assert library["dimension"] == 64
    client.post(f"{path}/chunks", json={"chunks": [{"text": "more"}]}).raise_for_status()


@pytest.mark.parametrize(
    ("where", "body", "at"),
    [
        ("/chunks", {"chunks": [{"embedding": [1, 2]}], "embedding": SMALL}, "/chunks/0/embedding"),
        ("/documents", {"chunks": [{"embedding": [1, 2]}], "embedding": SMALL}, "/chunks/0/embedding"),
        ("/chunks", {"chunks": [{"text": "x"}, {"embedding": [1, 2]}], "embedding": SMALL}, "/chunks/1/embedding"),
    ],
    ids=str,
)
def test_vectors_that_the_model_does_not_make_do_not_become_its_first(
    client: httpx.Client, where: str, body: dict[str, Any], at: str
) -> None:
    path = new(client)
    assert_refused(client.post(path + where, json=body), 400, "invalid", at)
    library = client.get(path).json()
    assert (library["embedding"], library["dimension"]) == (None, None)
    client.patch(path, json={"embedding": SMALL}).raise_for_status()
    assert_refused(client.post(path + where, json=body | {"embedding": SMALL}), 400, "invalid", at)


def test_one_request_names_one_model(client: httpx.Client) -> None:
    path = new(client)
    body = {"documents": [{"text": "One."}, {"text": "Two.", "embedding": OTHER}], "embedding": SMALL}
    assert_refused(client.post(f"{path}/documents/batch", json=body), 409, "model_mismatch", "/documents/1/embedding")
    library = client.get(path).json()
    assert (library["embedding"], library["dimension"]) == (None, None)


def test_a_stale_patch_is_stale_whatever_it_names(client: httpx.Client) -> None:
    path = new(client, embedding=SMALL)
    response = client.patch(path, json={"embedding": OTHER}, headers={"If-Match": '"stale"'})
    assert_refused(response, 412, "precondition_failed")


@pytest.mark.parametrize(
    ("embedding", "pointer"),
    [
        (None, "/embedding"),
        ("hashing-64", "/embedding"),
        ({"provider": "hashing"}, "/embedding/model"),
        (SMALL | {"dimension": 64}, "/embedding/dimension"),
        ({"provider": "openai", "model": "a\0b"}, "/embedding/model"),
        ({"provider": "open\0ai", "model": "m"}, "/embedding/provider"),
        ({"provider": "openai", "model": "m" * 501}, "/embedding/model"),
        ({"provider": "p" * 65, "model": "m"}, "/embedding/provider"),
    ],
)
def test_what_names_no_model_is_refused(client: httpx.Client, embedding: Any, pointer: str) -> None:
    assert_refused(client.post("/libraries", json={"name": "N", "embedding": embedding}), 400, "invalid", pointer)
    path = new(client, embedding=SMALL)
    for method, where, body in (
        ("POST", "/reembed", {}),
        ("POST", "/query", {"vector": VECTOR}),
        ("POST", "/documents", {"text": "x"}),
        ("PATCH", "", {}),
    ):
        response = client.request(method, path + where, json=body | {"embedding": embedding})
        assert_refused(response, 400, "invalid", pointer)
