"""Chunks: upsert, insert, update, PATCH, get, delete, count; sentence by sentence what the contract says of them."""

from collections.abc import Callable
from typing import Any

import httpx
import numpy as np
import pytest

from tests.api.problems import assert_refused
from tests.api.vectors import base64_of

X, Y, Z = [1, 0, 0], [0, 1, 0], [0, 0, 1]


def write(client: httpx.Client, path: str, *chunks: dict[str, Any], mode: str = "upsert") -> dict[str, Any]:
    """The answer to a write of chunks."""
    response = client.post(path, json={"chunks": list(chunks), "mode": mode})
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def read(client: httpx.Client, path: str, chunk_id: str) -> dict[str, Any]:
    """A chunk with its embedding."""
    chunk: dict[str, Any] = (
        client.get(f"{path}/{chunk_id}?include=text&include=metadata&include=embedding").raise_for_status().json()
    )
    return chunk


def test_a_chunk_has_a_default_for_all_but_its_embedding(client: httpx.Client, chunks: str) -> None:
    answer = write(client, chunks, {"embedding": [1, 2, 3]})
    assert (answer["created"], answer["updated"]) == (1, 0)
    chunk = read(client, chunks, answer["ids"][0])
    created, updated = chunk.pop("created_at"), chunk.pop("updated_at")
    assert created == updated
    assert created.endswith("Z")
    assert chunk == {
        "id": answer["ids"][0],
        "document_id": None,
        "position": None,
        "expires_at": None,
        "text": "",
        "metadata": {},
        "embedding": [1, 2, 3],
    }


METADATA = {
    "": "empty key",
    "a.b": 1,
    "$eq": {"/~": [None, True, False, [], {}]},
    "unicode": "Ünïcödé 日本語 🙂 \u202e \u2028 \ufeff \x7f",
    "quotes": "\"'\\ \b\f\n\r\t \x01",
    "integers": [0, -1, 2**53 + 1, 2**63 - 1, -(2**63), 2**64 - 1],
    "floats": [0.1, 1.0, -1e-300, 1e300, 1.7976931348623157e308, 5e-324, 0.30000000000000004],
}


def test_text_and_metadata_come_back_exactly_on_every_way(client: httpx.Client, library: str, chunks: str) -> None:
    text = METADATA["unicode"] + METADATA["quotes"]
    write(client, chunks, {"id": "c", "text": text, "metadata": METADATA, "embedding": X})
    answers = {
        "get": client.get(f"{chunks}/c").json(),
        "list": client.get(chunks).json()["items"][0],
        "by id": client.post(f"{chunks}/get", json={"ids": ["c"]}).json()["items"][0],
        "query": client.post(f"/libraries/{library}/query", json={"vector": X}).json()["results"][0],
    }
    for way, chunk in answers.items():
        assert chunk["text"] == text, way
        assert chunk["metadata"] == METADATA, way
        assert [type(number) for number in chunk["metadata"]["floats"]] == [float] * 7, way


def test_embeddings_come_back_as_arrays_of_what_float32_keeps(client: httpx.Client, chunks: str) -> None:
    given = [0.1, -1e-30, 123456789.123]
    kept = np.array(given, np.float32).astype(float).tolist()
    write(client, chunks, {"id": "array", "embedding": given}, {"id": "base64", "embedding": base64_of(given)})
    for chunk_id in ("array", "base64"):
        embedding = read(client, chunks, chunk_id)["embedding"]
        assert np.array(embedding, np.float32).astype(float).tolist() == kept
    assert "embedding" not in client.get(f"{chunks}/array").json()


def test_upsert_replaces_text_metadata_and_vector(client: httpx.Client, chunks: str) -> None:
    write(client, chunks, {"id": "a", "text": "A", "metadata": {"n": 1}, "embedding": X})
    before = read(client, chunks, "a")
    answer = write(client, chunks, {"id": "new", "embedding": Z}, {"id": "a", "embedding": Y})
    assert answer == {"ids": ["new", "a"], "created": 1, "updated": 1}
    after = read(client, chunks, "a")
    assert after["updated_at"] > before["updated_at"]
    assert after == before | {"text": "", "metadata": {}, "embedding": Y, "updated_at": after["updated_at"]}


def test_upsert_needs_a_vector_even_for_a_chunk_that_has_one(client: httpx.Client, chunks: str) -> None:
    write(client, chunks, {"id": "a", "text": "A", "embedding": X})
    before = read(client, chunks, "a")
    body = {"chunks": [{"id": "b", "embedding": X}, {"id": "a", "text": "A"}]}
    problem = assert_refused(client.post(chunks, json=body), 400, "embedding_required", "/chunks/1/embedding")
    assert "send a vector" in problem["detail"]
    assert read(client, chunks, "a") == before
    assert_refused(client.get(f"{chunks}/b"), 404, "not_found")


Attach = Callable[[httpx.Client, str, dict[str, Any]], None]


def upsert(client: httpx.Client, path: str, change: dict[str, Any]) -> None:
    write(client, path, {"id": "c", "embedding": X} | change)


def update(client: httpx.Client, path: str, change: dict[str, Any]) -> None:
    write(client, path, {"id": "c"} | change, mode="update")


def patch(client: httpx.Client, path: str, change: dict[str, Any]) -> None:
    client.patch(f"{path}/c", json=change).raise_for_status()


@pytest.mark.parametrize("attach", [upsert, update, patch])
def test_a_chunk_keeps_changes_and_leaves_its_document(
    client: httpx.Client, documents: str, chunks: str, attach: Attach
) -> None:
    for document in ("d", "e"):
        client.post(documents, json={"id": document, "chunks": [{"embedding": X}] * 2}).raise_for_status()
    write(client, chunks, {"id": "c", "embedding": X, "document_id": "d"})

    def place() -> tuple[str | None, int | None]:
        chunk = read(client, chunks, "c")
        return chunk["document_id"], chunk["position"]

    assert place() == ("d", 2)
    attach(client, chunks, {"metadata": {"n": 1}})
    assert place() == ("d", 2)
    attach(client, chunks, {"document_id": "d"})
    assert place() == ("d", 2)
    attach(client, chunks, {"document_id": "e"})
    assert place() == ("e", 2)
    assert client.get(f"{documents}/d").json()["chunk_count"] == 2
    attach(client, chunks, {"document_id": None})
    assert place() == (None, None)
    client.delete(f"{documents}/e").raise_for_status()
    assert place() == (None, None)


@pytest.mark.parametrize("mode", ["upsert", "insert", "update"])
def test_an_unknown_document_is_400(client: httpx.Client, chunks: str, mode: str) -> None:
    if mode == "update":
        write(client, chunks, {"id": "a", "embedding": X}, {"id": "b", "embedding": X})
    body = {"chunks": [{"id": "a", "embedding": X}, {"id": "b", "embedding": X, "document_id": "no"}], "mode": mode}
    assert_refused(client.post(chunks, json=body), 400, "invalid", "/chunks/1/document_id")
    assert client.post(f"{chunks}/count", json={}).json() == {"count": 2 if mode == "update" else 0}


def test_insert_creates_and_never_replaces(client: httpx.Client, chunks: str) -> None:
    a, b, c = ({"id": name, "text": name, "embedding": X} for name in "abc")
    assert write(client, chunks, a, b, mode="insert") == {"ids": ["a", "b"], "created": 2, "updated": 0}
    before = read(client, chunks, "a")
    body = {"chunks": [a | {"text": "other"}, c, b], "mode": "insert"}
    assert_refused(client.post(chunks, json=body), 409, "conflict", "/chunks/0/id", "/chunks/2/id")
    assert read(client, chunks, "a") == before
    assert_refused(client.get(f"{chunks}/c"), 404, "not_found")


def updated(client: httpx.Client, path: str, change: dict[str, Any]) -> httpx.Response:
    return client.post(path, json={"chunks": [{"id": "c"} | change], "mode": "update"})


def patched(client: httpx.Client, path: str, change: dict[str, Any]) -> httpx.Response:
    return client.patch(f"{path}/c", json=change)


Change = Callable[[httpx.Client, str, dict[str, Any]], httpx.Response]


@pytest.mark.parametrize("change_by", [updated, patched])
@pytest.mark.parametrize(
    "change",
    [
        {},
        {"text": "C"},
        {"metadata": {"b": 2}},
        {"metadata": {}},
        {"embedding": Y},
        {"text": "new", "embedding": Y},
        {"text": "", "embedding": Y, "metadata": {"d": 4}},
    ],
    ids=str,
)
def test_update_changes_only_the_fields_named(
    client: httpx.Client, chunks: str, change_by: Change, change: dict[str, Any]
) -> None:
    write(client, chunks, {"id": "c", "text": "C", "metadata": {"a": 1, "b": 1}, "embedding": X})
    before = read(client, chunks, "c")
    response = change_by(client, chunks, change)
    assert response.status_code == 200, response.text
    after = read(client, chunks, "c")
    assert after == before | change | {"updated_at": after["updated_at"]}
    if change_by is updated:
        assert response.json() == {"ids": ["c"], "created": 0, "updated": 1}
    else:
        assert response.json() == {name: value for name, value in after.items() if name != "embedding"}
        assert response.headers["ETag"] == client.get(f"{chunks}/c").headers["ETag"]


@pytest.mark.parametrize(("change_by", "at"), [(updated, "/chunks/0"), (patched, "")])
def test_changed_text_needs_a_vector(client: httpx.Client, chunks: str, change_by: Change, at: str) -> None:
    write(client, chunks, {"id": "c", "text": "C", "embedding": X})
    before = read(client, chunks, "c")
    response = change_by(client, chunks, {"text": "other", "metadata": {"a": 1}})
    assert_refused(response, 400, "embedding_required", f"{at}/embedding")
    assert_refused(change_by(client, chunks, {"embedding": [1, 2]}), 400, "invalid", f"{at}/embedding")
    assert_refused(change_by(client, chunks, {"document_id": "no"}), 400, "invalid", f"{at}/document_id")
    assert read(client, chunks, "c") == before


def test_update_of_an_absent_id_writes_nothing(client: httpx.Client, chunks: str) -> None:
    write(client, chunks, {"id": "a", "embedding": X})
    before = read(client, chunks, "a")
    change = {"metadata": {"n": 1}}
    body = {"chunks": [{"id": "a"} | change, {"id": "absent"} | change], "mode": "update"}
    assert_refused(client.post(chunks, json=body), 404, "not_found", "/chunks/1/id")
    body["chunks"].append(change)
    refusal = client.post(chunks, json=body)
    assert_refused(refusal, 400, "invalid", "/chunks/2/id")
    assert refusal.json()["errors"][0]["detail"] == "is required to update a chunk"
    assert read(client, chunks, "a") == before
    assert_refused(client.patch(f"{chunks}/absent", json=change), 404, "not_found")


@pytest.mark.parametrize("mode", ["upsert", "insert", "update"])
def test_an_id_may_come_once_in_a_request(client: httpx.Client, chunks: str, mode: str) -> None:
    body = {"chunks": [{"id": name, "embedding": X} for name in "abab"], "mode": mode}
    assert_refused(client.post(chunks, json=body), 400, "invalid", "/chunks/2/id", "/chunks/3/id")


def test_chunks_are_read_by_their_ids_in_the_order_asked(client: httpx.Client, chunks: str) -> None:
    write(client, chunks, *({"id": name, "embedding": X} for name in "abc"))
    asked = {"ids": ["c", "no", "a", "neither"]}
    answer = client.post(f"{chunks}/get", json=asked).json()
    assert [item["id"] for item in answer["items"]] == ["c", "a"]
    assert answer["missing"] == ["no", "neither"]
    assert "embedding" not in answer["items"][0]
    answer = client.post(f"{chunks}/get", json=asked | {"include": ["embedding"]}).json()
    assert answer["items"][0]["embedding"] == X


def test_an_id_twice_is_one_and_none_are_nothing(client: httpx.Client, chunks: str) -> None:
    write(client, chunks, *({"id": name, "embedding": X} for name in "abc"))
    answer = client.post(f"{chunks}/get", json={"ids": ["c", "no", "a", "c", "no"]}).json()
    assert ([item["id"] for item in answer["items"]], answer["missing"]) == (["c", "a"], ["no"])
    assert client.post(f"{chunks}/get", json={"ids": []}).json() == {"items": [], "missing": []}
    assert client.post(f"{chunks}/delete", json={"ids": []}).json() == {"deleted": 0}
    assert client.post(f"{chunks}/delete", json={"ids": ["c", "no", "c"]}).json() == {"deleted": 1}
    assert client.post(f"{chunks}/count", json={}).json() == {"count": 2}


def test_as_many_ids_are_read_and_deleted_as_a_filter_takes(client: httpx.Client, chunks: str) -> None:
    write(client, chunks, {"id": "0", "embedding": X}, {"id": "9999", "embedding": X})
    ids = {"ids": [str(n) for n in range(10_000)]}
    answer = client.post(f"{chunks}/get", json=ids).json()
    assert ([item["id"] for item in answer["items"]], len(answer["missing"])) == (["0", "9999"], 9_998)
    assert client.post(f"{chunks}/delete", json=ids).json() == {"deleted": 2}
    for path in (f"{chunks}/get", f"{chunks}/delete"):
        problem = assert_refused(client.post(path, json={"ids": [*ids["ids"], "x"]}), 400, "invalid", "/ids")
        assert "10000" in problem["detail"]


def test_deleting_answers_204_once_and_404_from_then_on(client: httpx.Client, library: str, chunks: str) -> None:
    write(client, chunks, *({"id": name, "embedding": X} for name in "abc"))
    response = client.delete(f"{chunks}/b")
    assert (response.status_code, response.content) == (204, b"")
    assert_refused(client.delete(f"{chunks}/b"), 404, "not_found")
    assert_refused(client.get(f"{chunks}/b"), 404, "not_found")
    found = client.post(f"/libraries/{library}/query", json={"vector": X}).json()["results"]
    assert [result["id"] for result in found] == ["a", "c"]


def test_deleting_by_ids_counts_those_that_were_there(client: httpx.Client, chunks: str) -> None:
    write(client, chunks, *({"id": name, "embedding": X} for name in "abc"))
    assert client.post(f"{chunks}/delete", json={"ids": ["a", "no", "c"]}).json() == {"deleted": 2}
    assert client.post(f"{chunks}/delete", json={"ids": ["a"]}).json() == {"deleted": 0}
    assert client.post(f"{chunks}/count", json={}).json() == {"count": 1}
    assert client.post(f"{chunks}/count", json={"filter": {}}).json() == {"count": 1}


def test_a_write_takes_2000_chunks(client: httpx.Client, chunks: str) -> None:
    many = [{"id": str(n), "embedding": base64_of([n, 1, 0])} for n in range(2000)]
    answer = write(client, chunks, *many)
    assert answer == {"ids": [chunk["id"] for chunk in many], "created": 2000, "updated": 0}
    ids = {"ids": answer["ids"]}
    assert len(client.post(f"{chunks}/get", json=ids).json()["items"]) == 2000
    assert client.post(f"{chunks}/delete", json=ids).json() == {"deleted": 2000}
    body = {"chunks": [*many, {"embedding": X}]}
    problem = assert_refused(client.post(chunks, json=body), 400, "invalid", "/chunks")
    assert "2000" in problem["detail"]
    assert "VECTORDB_MAX_CHUNKS_PER_WRITE" in problem["detail"]
