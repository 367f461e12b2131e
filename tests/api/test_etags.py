"""ETag and If-Match: a write that is meant for what the client read, and no other, is refused when that has changed."""

from typing import Any

import httpx
import pytest

from tests.api.problems import assert_refused
from tests.threads import in_threads

X = [1, 0, 0]
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "library": ("", {"description": "changed"}),
    "document": ("/documents/d", {"title": "changed"}),
    "chunk": ("/chunks/c", {"metadata": {"changed": True}}),
}


@pytest.fixture(params=KINDS)
def thing(client: httpx.Client, library: str, request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """The path of a library, document or chunk, and a change for it."""
    client.put(f"/libraries/{library}/documents/d", json={"chunks": [{"embedding": X}]}).raise_for_status()
    chunks = {"chunks": [{"id": "c", "embedding": X}]}
    client.post(f"/libraries/{library}/chunks", json=chunks).raise_for_status()
    path, change = KINDS[request.param]
    return f"/libraries/{library}{path}", change


def test_a_write_with_the_current_etag_succeeds_and_the_tag_moves_on(
    client: httpx.Client, thing: tuple[str, dict[str, Any]]
) -> None:
    path, change = thing
    first = client.get(path).headers["ETag"]
    assert client.get(path).headers["ETag"] == first
    response = client.patch(path, json=change, headers={"If-Match": first})
    assert response.status_code == 200
    second = response.headers["ETag"]
    assert second == client.get(path).headers["ETag"] != first
    for stale in (first, '"other"', f"W/{second}", "", second.strip('"')):
        assert_refused(client.patch(path, json=change, headers={"If-Match": stale}), 412, "precondition_failed")
        assert_refused(client.delete(path, headers={"If-Match": stale}), 412, "precondition_failed")
    assert client.get(path).headers["ETag"] == second
    assert client.patch(path, json=change, headers={"If-Match": f'"other", {second}'}).status_code == 200
    assert client.patch(path, json=change, headers={"If-Match": "*"}).status_code == 200
    last = client.get(path).headers["ETag"]
    assert client.delete(path, headers={"If-Match": last}).status_code == 204
    assert_refused(client.get(path), 404, "not_found")


def test_put_of_a_document_heeds_if_match(client: httpx.Client, documents: str) -> None:
    path, body = f"{documents}/d", {"title": "T", "chunks": [{"embedding": X}]}
    for tag in ("*", '"any"'):
        assert_refused(client.put(path, json=body, headers={"If-Match": tag}), 412, "precondition_failed")
    assert_refused(client.get(path), 404, "not_found")
    assert client.put(path, json=body).status_code == 201
    tag = client.get(path).headers["ETag"]
    changed = body | {"title": "changed"}
    assert client.put(path, json=changed, headers={"If-Match": tag}).status_code == 200
    assert_refused(client.put(path, json=body, headers={"If-Match": tag}), 412, "precondition_failed")
    assert client.get(path).json()["title"] == "changed"


def test_a_chunk_has_one_tag_whether_its_embedding_is_shown_or_not(client: httpx.Client, chunks: str) -> None:
    client.post(chunks, json={"chunks": [{"id": "c", "embedding": X}]}).raise_for_status()
    tags = [client.get(f"{chunks}/c").headers["ETag"], client.get(f"{chunks}/c?include=embedding").headers["ETag"]]
    assert tags[0] == tags[1]
    client.patch(f"{chunks}/c", json={"embedding": [0, 1, 0]}).raise_for_status()
    assert client.get(f"{chunks}/c").headers["ETag"] != tags[0]


def test_what_does_not_exist_matches_nothing(client: httpx.Client, shared: str) -> None:
    assert_refused(client.patch("/libraries/no", json={}, headers={"If-Match": "*"}), 404, "not_found")
    for path, body in [("documents/no", {"title": "T"}), ("chunks/no", {"metadata": {}})]:
        url = f"/libraries/{shared}/{path}"
        assert_refused(client.patch(url, json=body, headers={"If-Match": "*"}), 412, "precondition_failed")
        assert_refused(client.delete(url, headers={"If-Match": "*"}), 412, "precondition_failed")


def test_a_changed_chunk_changes_the_tag_of_its_document(client: httpx.Client, library: str) -> None:
    """PUT would overwrite the chunk."""
    document = {"id": "d", "chunks": [{"id": "c", "text": "A", "embedding": [1, 0, 0]}]}
    client.post(f"/libraries/{library}/documents", json=document).raise_for_status()
    tag = client.get(f"/libraries/{library}/documents/d").headers["ETag"]
    client.patch(f"/libraries/{library}/chunks/c", json={"metadata": {"a": 1}}).raise_for_status()
    put = {"chunks": document["chunks"]}
    refused = client.put(f"/libraries/{library}/documents/d", json=put, headers={"If-Match": tag})
    assert (refused.status_code, refused.json()["code"]) == (412, "precondition_failed")
    assert client.get(f"/libraries/{library}/chunks/c").json()["metadata"] == {"a": 1}


def test_put_of_a_document_that_only_creates(client: httpx.Client, documents: str) -> None:
    path, body, creates = f"{documents}/new", {"chunks": [{"embedding": X}]}, {"If-None-Match": "*"}
    puts = [lambda: client.put(path, json=body, headers=creates)] * 4
    assert sorted(response.status_code for response in in_threads(*puts)) == [201, 412, 412, 412]
    tag = client.get(path).headers["ETag"]
    refused = client.put(path, json=body | {"title": "changed"}, headers=creates)
    assert_refused(refused, 412, "precondition_failed")
    assert client.get(path).headers["ETag"] == tag
    assert_refused(client.put(path, json=body, headers={"If-None-Match": tag}), 400, "invalid")
    assert client.delete(path).status_code == 204
    assert client.put(path, json=body, headers=creates).status_code == 201
