"""Lists: in order of creation, page by page with a cursor that stays valid while others write."""

import base64
from typing import Any

import httpx
import pytest

from tests.api.problems import assert_refused

X = [1, 0, 0]


def pages(client: httpx.Client, path: str, **params: Any) -> list[list[str]]:
    """The ids of a list, page by page."""
    found = []
    cursor: str | None = ""
    while cursor is not None:
        page = client.get(path, params=params | ({"cursor": cursor} if cursor else {})).raise_for_status().json()
        assert set(page) == {"items", "next_cursor"}
        found.append([item["id"] for item in page["items"]])
        cursor = page["next_cursor"]
    return found


def write(client: httpx.Client, chunks: str, *ids: str) -> None:
    body = {"chunks": [{"id": name, "embedding": X} for name in ids]}
    client.post(chunks, json=body).raise_for_status()


def test_chunks_are_listed_in_order_of_creation(client: httpx.Client, chunks: str) -> None:
    assert client.get(chunks).json() == {"items": [], "next_cursor": None}
    names = [f"{(7 * n) % 60:02}" for n in range(60)]
    write(client, chunks, *names[:40])
    write(client, chunks, *names[40:], *names[:3])
    assert pages(client, chunks) == [names[:50], names[50:]]
    assert pages(client, chunks, limit=500) == [names]
    assert pages(client, chunks, limit=60) == [names]
    assert pages(client, chunks, limit=59) == [names[:59], names[59:]]
    assert pages(client, chunks, limit=1) == [[name] for name in names]


def test_documents_are_listed_in_order_of_creation(client: httpx.Client, documents: str) -> None:
    names = ["m", "z", "a"]
    for name in names:
        client.put(f"{documents}/{name}", json={"chunks": [{"embedding": X}] * 2}).raise_for_status()
    client.put(f"{documents}/m", json={"chunks": [{"embedding": X}]}).raise_for_status()
    assert pages(client, documents, limit=2) == [["m", "z"], ["a"]]
    listed = client.get(documents).json()["items"]
    assert [item["chunk_count"] for item in listed] == [1, 2, 2]
    assert listed == [client.get(f"{documents}/{name}").json() for name in names]


def test_libraries_are_listed_in_order_of_creation(client: httpx.Client) -> None:
    names = ["listed-b", "listed-a", "listed-c"]
    for name in names:
        client.post("/libraries", json={"id": name, "name": name}).raise_for_status()
    listed = [name for page in pages(client, "/libraries", limit=100) for name in page]
    assert [name for name in listed if name in names] == names
    assert len(listed) == len(set(listed))


def test_a_list_may_be_read_while_it_changes(client: httpx.Client, chunks: str) -> None:
    write(client, chunks, *"abcdefgh")
    first = client.get(chunks, params={"limit": 3}).json()
    assert [item["id"] for item in first["items"]] == ["a", "b", "c"]
    client.post(f"{chunks}/delete", json={"ids": ["a", "c", "e"]}).raise_for_status()
    write(client, chunks, "b", "new", "d")
    rest = client.get(chunks, params={"limit": 500, "cursor": first["next_cursor"]}).json()
    assert [item["id"] for item in rest["items"]] == ["d", "f", "g", "h", "new"]
    assert rest["next_cursor"] is None


def test_chunks_of_one_document(client: httpx.Client, documents: str, chunks: str) -> None:
    for document in ("d", "e"):
        body = {"id": document, "chunks": [{"id": f"{document}{n}", "embedding": X} for n in range(3)]}
        client.post(documents, json=body).raise_for_status()
    write(client, chunks, "alone")
    assert pages(client, chunks, document_id="e", limit=2) == [["e0", "e1"], ["e2"]]
    assert pages(client, chunks) == [["d0", "d1", "d2", "e0", "e1", "e2", "alone"]]
    items = client.get(chunks, params={"document_id": "d", "include": "embedding"}).json()["items"]
    assert [item["embedding"] for item in items] == [X] * 3
    assert pages(client, chunks, filter="{}") == pages(client, chunks)


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ("limit=0", "/limit"),
        ("limit=-1", "/limit"),
        ("limit=501", "/limit"),
        ("limit=", "/limit"),
        ("limit=5.0", "/limit"),
        ("limit=five", "/limit"),
        ("limit=%205", "/limit"),
        ("limit=%D9%A5", "/limit"),  # an Arabic five
        ("limit=" + "9" * 30, "/limit"),
        ("limit=" + "0" * 9 + "1" + "9" * 20, "/limit"),
        ("cursor=", "/cursor"),
        ("cursor=x", "/cursor"),
        ("cursor=%C3%A9", "/cursor"),
        ("cursor=%00", "/cursor"),
        ("cursor=" + base64.urlsafe_b64encode(b"after:-1").decode(), "/cursor"),
        ("cursor=" + base64.urlsafe_b64encode(b"after:" + b"9" * 30).decode(), "/cursor"),
        ("offset=5", "/offset"),
        ("limit=5&foo=", "/foo"),
        ("a/b~=1", "/a~1b~0"),
    ],
)
@pytest.mark.parametrize("path", ["", "/documents", "/chunks"])
def test_a_parameter_that_cannot_be_used_is_refused_by_name(
    client: httpx.Client, shared: str, path: str, query: str, pointer: str
) -> None:
    path = f"/libraries/{shared}{path}" if path else "/libraries"
    assert_refused(client.get(f"{path}?{query}"), 400, "invalid", pointer)


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ("document_id=no", "/document_id"),
        ("document_id=", "/document_id"),
        ("document_id=%00", "/document_id"),
        ("document_id=a%20b", "/document_id"),
        ("include=vector", "/include/0"),
        ("include=embedding,text", "/include/0"),
        ("include=text&include=", "/include/1"),
        ("vectors=float", "/vectors"),
        ("vectors=array&vectors=base64", "/vectors"),
    ],
)
def test_a_parameter_of_chunks_is_refused_by_name(client: httpx.Client, shared: str, query: str, pointer: str) -> None:
    assert_refused(client.get(f"/libraries/{shared}/chunks?{query}"), 400, "invalid", pointer)


@pytest.mark.parametrize(
    ("path", "known"), [("/libraries?page=2", "there are: limit, cursor"), ("/libraries/none?q=a", "there are none")]
)
def test_an_unknown_query_parameter_is_told_what_there_is(client: httpx.Client, path: str, known: str) -> None:
    assert client.get(path).json()["errors"][0]["detail"] == f"is not a query parameter here; {known}"
