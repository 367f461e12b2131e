"""PUT makes a document exactly what the body says, and keeps what is already so."""

from typing import Any

import httpx
import pytest

from tests.api.problems import assert_refused
from tests.api.vectors import base64_of

X, Y, Z = [1, 0, 0], [0, 1, 0], [0, 0, 1]
A = {"id": "a", "text": "A", "embedding": X, "metadata": {"n": 1, "m": {"x": 1, "y": 2}}}
B = {"id": "b", "text": "B", "embedding": Y}
C = {"id": "c", "text": "C", "embedding": Z}
N = {"id": "n", "text": "N", "embedding": X}


def nameless(chunk: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """The chunk without its id."""
    return {name: value for name, value in (chunk | changes).items() if name != "id"}


@pytest.fixture
def path(client: httpx.Client, documents: str) -> str:
    """The path of a document of the chunks a, b and c."""
    client.put(f"{documents}/d", json={"title": "T", "chunks": [A, B, C]}).raise_for_status()
    return f"{documents}/d"


def put(client: httpx.Client, path: str, *chunks: dict[str, Any]) -> tuple[list[str], tuple[int, int, int, int]]:
    """The chunk ids, and how many were created, updated, unchanged and deleted."""
    response = client.put(path, json={"title": "T", "chunks": list(chunks)})
    assert response.status_code == 200, response.text
    body = response.json()
    return body["chunk_ids"], (body["created"], body["updated"], body["unchanged"], body["deleted"])


def stored(client: httpx.Client, path: str) -> dict[str, dict[str, Any]]:
    """The document's chunks by id, in order of their positions."""
    library, _, document = path.partition("/documents/")
    listed = client.get(
        f"{library}/chunks?document_id={document}&include=text&include=metadata&include=embedding"
    ).json()["items"]
    assert [chunk["position"] for chunk in sorted(listed, key=lambda c: c["position"])] == list(range(len(listed)))
    return {chunk["id"]: chunk for chunk in sorted(listed, key=lambda c: c["position"])}


def test_put_creates_a_document_that_does_not_exist(client: httpx.Client, documents: str) -> None:
    response = client.put(f"{documents}/new", json={"id": "new", "title": "T", "chunks": [A, nameless(B)]})
    assert response.status_code == 201
    assert response.headers["Location"] == f"/api/v1{documents}/new"
    body = response.json()
    assert (body["created"], body["updated"], body["unchanged"], body["deleted"]) == (2, 0, 0, 0)
    assert list(stored(client, f"{documents}/new")) == body["chunk_ids"]
    assert client.get(f"{documents}/new").json()["title"] == "T"


def test_putting_the_same_again_changes_no_chunk(client: httpx.Client, library: str, path: str) -> None:
    before, revision = stored(client, path), client.get(f"/libraries/{library}/stats").json()["revision"]
    assert put(client, path, A, B, C) == (["a", "b", "c"], (0, 0, 3, 0))
    assert put(client, path, nameless(A), nameless(B), nameless(C)) == (["a", "b", "c"], (0, 0, 3, 0))
    assert stored(client, path) == before
    assert client.get(f"/libraries/{library}/stats").json()["revision"] == revision


@pytest.mark.parametrize(
    "change", [{"text": "other"}, {"metadata": {"n": 2}}, {"embedding": [0, 2, 0]}, {"metadata": {"n": None}}], ids=str
)
def test_a_chunk_of_the_same_id_and_other_content_is_updated(
    client: httpx.Client, path: str, change: dict[str, Any]
) -> None:
    before = stored(client, path)
    assert put(client, path, A, B | change, C) == (["a", "b", "c"], (0, 1, 2, 0))
    after = stored(client, path)
    assert (after["a"], after["c"]) == (before["a"], before["c"])
    assert after["b"] == before["b"] | change | {"updated_at": after["b"]["updated_at"]}
    assert after["b"]["updated_at"] > before["b"]["updated_at"]


def test_what_a_chunk_leaves_out_goes_back_to_its_default(client: httpx.Client, path: str) -> None:
    assert put(client, path, {"id": "a", "embedding": X}, B, C)[1] == (0, 1, 2, 0)
    assert (stored(client, path)["a"]["text"], stored(client, path)["a"]["metadata"]) == ("", {})


def test_a_chunk_without_id_matches_by_equal_content(client: httpx.Client, path: str) -> None:
    ids, counts = put(client, path, nameless(C), nameless(A, text="changed"), nameless(B))
    assert (ids[0], ids[2], counts) == ("c", "b", (1, 0, 2, 1))
    assert ids[1] != "a"
    assert list(stored(client, path)) == ids
    assert stored(client, path)[ids[1]]["text"] == "changed"


def test_equal_content_is_equal_however_it_is_written(client: httpx.Client, path: str) -> None:
    reordered = nameless(A, metadata={"m": {"y": 2, "x": 1}, "n": 1}, embedding=base64_of(X))
    assert put(client, path, reordered, B | {"embedding": base64_of(Y)}, C) == (["a", "b", "c"], (0, 0, 3, 0))


def test_a_mere_change_of_position_is_unchanged(client: httpx.Client, path: str) -> None:
    before = stored(client, path)
    assert put(client, path, C, nameless(A), B) == (["c", "a", "b"], (0, 0, 3, 0))
    after = stored(client, path)
    assert list(after) == ["c", "a", "b"]
    assert after == {name: before[name] | {"position": after[name]["position"]} for name in after}


def test_a_chunk_that_moves_and_changes_is_updated(client: httpx.Client, path: str) -> None:
    assert put(client, path, C | {"text": "moved"}, A, B) == (["c", "a", "b"], (0, 1, 2, 0))
    assert list(stored(client, path)) == ["c", "a", "b"]


def test_what_is_not_named_is_deleted(client: httpx.Client, library: str, path: str) -> None:
    assert put(client, path, B) == (["b"], (0, 0, 1, 2))
    assert list(stored(client, path)) == ["b"]
    found = client.post(f"/libraries/{library}/query", json={"vector": X}).json()["results"]
    assert [result["id"] for result in found] == ["b"]
    assert_refused(client.get(f"/libraries/{library}/chunks/a"), 404, "not_found")


def test_each_of_several_equal_chunks_matches_once(client: httpx.Client, path: str) -> None:
    twin, other_twin = B | {"id": "twin"}, B | {"id": "other"}
    assert put(client, path, B, twin) == (["b", "twin"], (1, 0, 1, 2))
    ids, counts = put(client, path, *[nameless(B)] * 3)
    assert (ids[:2], counts) == (["b", "twin"], (1, 0, 2, 0))
    assert put(client, path, nameless(B), twin, other_twin) == (["b", "twin", "other"], (1, 0, 2, 1))
    assert put(client, path, nameless(B))[1] == (0, 0, 1, 2)


def test_an_id_takes_its_chunk_before_equal_content_does(client: httpx.Client, path: str) -> None:
    put(client, path, A, A | {"id": "twin"})
    assert put(client, path, nameless(A), A) == (["twin", "a"], (0, 0, 2, 0))
    assert list(stored(client, path)) == ["twin", "a"]


def test_a_new_id_with_the_content_of_a_chunk_is_another_chunk(client: httpx.Client, path: str) -> None:
    assert put(client, path, A | {"id": "renamed"}, B, C) == (["renamed", "b", "c"], (1, 0, 2, 1))


def test_the_document_itself_is_made_as_the_body_says(client: httpx.Client, path: str) -> None:
    client.patch(path, json={"source": "S", "metadata": {"a": 1}}).raise_for_status()
    before = client.get(path).json()
    assert (before["title"], before["source"]) == ("T", "S")
    client.put(path, json={"source": "S2", "chunks": [A]}).raise_for_status()
    after = client.get(path).json()
    assert (after["title"], after["source"], after["metadata"], after["chunk_count"]) == ("", "S2", {}, 1)
    assert after["created_at"] == before["created_at"]


def test_chunks_that_joined_otherwise_are_part_of_the_document_too(
    client: httpx.Client, library: str, path: str
) -> None:
    joined = {"id": "joined", "text": "J", "embedding": X, "document_id": "d"}
    client.post(f"/libraries/{library}/chunks", json={"chunks": [joined]}).raise_for_status()
    assert put(client, path, {"text": "J", "embedding": X}, A) == (["joined", "a"], (0, 0, 2, 2))


@pytest.mark.parametrize(
    ("body", "status", "code", "pointer"),
    [
        ({"title": "new", "chunks": [N, {"id": "elsewhere", "embedding": X}]}, 409, "conflict", "/chunks/1/id"),
        ({"title": "new", "chunks": [N, {"id": "alone", "embedding": X}]}, 409, "conflict", "/chunks/1/id"),
        ({"title": "new", "chunks": [N, N]}, 400, "invalid", "/chunks/1/id"),
        ({"title": "new", "chunks": [N, {"embedding": [1, 0]}]}, 400, "invalid", "/chunks/1/embedding"),
        ({"title": "new", "chunks": [N, {"id": "m"}]}, 400, "embedding_required", "/chunks/1/embedding"),
        ({"title": "new", "id": "other", "chunks": [N]}, 400, "invalid", "/id"),
        ({"title": "new"}, 400, "invalid", "/chunks"),
        ({"title": "new", "chunks": []}, 400, "invalid", "/chunks"),
    ],
)
def test_a_refused_put_changes_nothing(
    client: httpx.Client, library: str, path: str, body: dict[str, Any], status: int, code: str, pointer: str
) -> None:
    other = {"id": "other", "chunks": [{"id": "elsewhere", "embedding": X}]}
    client.post(f"/libraries/{library}/documents", json=other).raise_for_status()
    alone = {"id": "alone", "embedding": X}
    client.post(f"/libraries/{library}/chunks", json={"chunks": [alone]}).raise_for_status()
    before = client.get(path).json(), stored(client, path)
    assert_refused(client.put(path, json=body), status, code, pointer)
    assert (client.get(path).json(), stored(client, path)) == before
    absent = path.removesuffix("/d") + "/absent"
    assert_refused(client.put(absent, json=body), status, code, pointer)
    assert_refused(client.get(absent), 404, "not_found")


def upsert(client: httpx.Client, documents: str, *bodies: dict[str, Any]) -> httpx.Response:
    return client.post(f"{documents}/batch", json={"mode": "upsert", "documents": list(bodies)})


def counts(response: httpx.Response) -> list[tuple[int, ...]]:
    """How many chunks were created, updated, unchanged and deleted, by document."""
    assert response.status_code == 200, response.text
    names = ("created", "updated", "unchanged", "deleted")
    return [tuple(document[name] for name in names) for document in response.json()["documents"]]


def test_a_batch_that_is_sent_twice_changes_nothing(client: httpx.Client, library: str, documents: str) -> None:
    bodies = ({"id": "1", "title": "One", "chunks": [A, nameless(B)]}, {"id": "2", "chunks": [C, N]})
    assert counts(upsert(client, documents, *bodies)) == [(2, 0, 0, 0), (2, 0, 0, 0)]
    before = stored(client, f"{documents}/1") | stored(client, f"{documents}/2")
    again = upsert(client, documents, *bodies)
    assert counts(again) == [(0, 0, 2, 0), (0, 0, 2, 0)]
    assert again.json()["ids"] == ["1", "2"]
    assert stored(client, f"{documents}/1") | stored(client, f"{documents}/2") == before
    assert client.get(f"/libraries/{library}/stats").json()["documents"] == 2


def test_a_batch_does_for_each_document_what_put_does(client: httpx.Client, documents: str, path: str) -> None:
    changed = {"id": "d", "title": "New", "chunks": [A | {"text": "changed"}, C]}
    new = {"id": "new", "chunks": [B]}
    assert counts(upsert(client, documents, changed, new)) == [(0, 1, 1, 1), (1, 0, 0, 0)]
    assert client.get(path).json()["title"] == "New"
    assert list(stored(client, path)) == ["a", "c"]
    assert list(stored(client, f"{documents}/new")) == ["b"]


def test_a_chunk_moves_to_a_later_document_of_the_batch(client: httpx.Client, documents: str, path: str) -> None:
    moved = upsert(client, documents, {"id": "d", "chunks": [B]}, {"id": "e", "chunks": [A]})
    assert counts(moved) == [(0, 0, 1, 2), (1, 0, 0, 0)]
    assert list(stored(client, f"{documents}/e")) == ["a"]


def test_a_batch_with_one_bad_document_replaces_none(client: httpx.Client, documents: str, path: str) -> None:
    client.put(f"{documents}/e", json={"chunks": [N]}).raise_for_status()
    before = stored(client, path)
    refused = upsert(client, documents, {"id": "d", "chunks": [A]}, {"id": "f", "chunks": [N]})
    assert_refused(refused, 409, "conflict", "/documents/1/chunks/0/id")
    twice = upsert(client, documents, {"id": "d", "chunks": [N]}, {"id": "d", "chunks": [A]})
    assert_refused(twice, 400, "invalid", "/documents/1/id")
    assert stored(client, path) == before


def test_texts_of_a_batch_are_split_and_embedded_once(client: httpx.Client) -> None:
    library = f"/libraries/{client.post('/libraries', json={'name': 'Texts'}).json()['id']}"
    bodies = [{"id": f"{n}", "text": f"Text number {n}.", "metadata": {"n": n}} for n in range(3)]
    assert counts(upsert(client, f"{library}/documents", *bodies)) == [(1, 0, 0, 0)] * 3
    before = stored(client, f"{library}/documents/1")
    bodies[2]["text"] = "Another text."
    assert counts(upsert(client, f"{library}/documents", *bodies)) == [(0, 0, 1, 0), (0, 0, 1, 0), (1, 0, 0, 1)]
    assert stored(client, f"{library}/documents/1") == before
