"""Writes that leave out what cannot be stored, and that make the documents that chunks name."""

from typing import Any

import httpx
import pytest

from tests.api.problems import assert_refused

X, Y = [1, 0, 0], [0, 1, 0]


def write(client: httpx.Client, chunks: str, *items: Any, **options: Any) -> dict[str, Any]:
    """The answer to a write that skips what is invalid."""
    answer = client.post(chunks, json={"chunks": items, "on_invalid": "skip", **options})
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


def skipped(answer: dict[str, Any]) -> dict[int, list[str]]:
    """The pointers to what is wrong, by the numbers of the chunks."""
    assert all(error["detail"] for item in answer["skipped"] for error in item["errors"])
    return {item["index"]: [error["pointer"] for error in item["errors"]] for item in answer["skipped"]}


def test_what_cannot_be_stored_is_left_out_and_said(client: httpx.Client, chunks: str) -> None:
    answer = write(
        client,
        chunks,
        {"id": "good", "embedding": X},
        {"id": "wrong dimension", "embedding": [1, 0]},
        {"id": "no vector"},
        "no chunk",
        {"id": "zero", "embedding": [0, 0, 0]},
        {"id": "odd/../id", "embedding": X, "txt": "x", "metadata": []},
        {"id": "good", "embedding": Y},
        {"id": "base64", "embedding": "?"},
        {"id": "document", "embedding": X, "document_id": "nowhere"},
        {"id": "metadata", "embedding": X, "metadata": {"a": ["\0"]}},
        {"id": "good too", "embedding": Y},
        {"id": "empty", "embedding": []},
    )
    assert answer["ids"] == ["good", "good too"]
    assert (answer["created"], answer["updated"]) == (2, 0)
    assert skipped(answer) == {
        1: ["/chunks/1/embedding"],
        2: ["/chunks/2/embedding"],
        3: ["/chunks/3"],
        4: ["/chunks/4/embedding"],
        5: ["/chunks/5/metadata", "/chunks/5/id", "/chunks/5/txt"],
        6: ["/chunks/6/id"],
        7: ["/chunks/7/embedding"],
        8: ["/chunks/8/document_id"],
        9: ["/chunks/9/metadata/a/0"],
        11: ["/chunks/11/embedding"],
    }
    unknown = answer["skipped"][4]["errors"][2]
    assert unknown["detail"] == "is not a known field; try text instead"
    assert client.get(f"{chunks}/good?include=embedding").json()["embedding"] == X
    assert client.post(f"{chunks}/count", json={}).json()["count"] == 2


def test_of_each_chunk_the_first_five_faults_are_listed(client: httpx.Client, chunks: str) -> None:
    many = [{"embedding": X} | {f"f{i}-{j}": 1 for j in range(60)} for i in range(40)]
    answer = write(client, chunks, *many)
    assert [len(found) for found in skipped(answer).values()] == [5] * 40


def test_texts_that_cannot_be_embedded_are_left_out(client: httpx.Client) -> None:
    library = {"id": "partial-texts", "name": "N", "embedding": {"provider": "hashing", "model": "hashing-384"}}
    client.post("/libraries", json=library).raise_for_status()
    chunks = "/libraries/partial-texts/chunks"
    texts = ["one", "", "two", " \n", "three"]
    answer = write(client, chunks, *({"id": f"c{i}", "text": text} for i, text in enumerate(texts)))
    assert answer["ids"] == ["c0", "c2", "c4"]
    assert skipped(answer) == {1: ["/chunks/1/text"], 3: ["/chunks/3/text"]}
    again = write(client, chunks, *({"id": f"c{i}", "text": "new"} for i in range(5)), mode="insert")
    assert again["ids"] == ["c1", "c3"]
    assert skipped(again) == {i: [f"/chunks/{i}/id"] for i in (0, 2, 4)}
    assert client.get(f"{chunks}/c0").json()["text"] == "one"
    changes = [{"id": "c0", "text": " "}, {"id": "nobody", "text": "x"}, {"text": "x"}, {"id": "c1", "text": "newer"}]
    updated = write(client, chunks, *changes, mode="update")
    assert (updated["ids"], updated["updated"]) == (["c1"], 1)
    assert skipped(updated) == {0: ["/chunks/0/text"], 1: ["/chunks/1/id"], 2: ["/chunks/2/id"]}


def test_what_is_kept_is_stored_as_it_came(client: httpx.Client, chunks: str) -> None:
    kept = {
        "id": "a",
        "text": "Text",
        "embed_text": "For the model",
        "embedding": "AACAPwAAAAAAAAAA",
        "metadata": {"n": 2**64 - 1, "x": 1.0, "list": [None, True]},
        "expires_at": "2999-01-01T00:00:00+02:00",
    }
    assert write(client, chunks, kept, "no chunk")["ids"] == ["a"]
    include = ["text", "embed_text", "embedding", "metadata"]
    stored = client.get(f"{chunks}/a", params={"include": include}).json()
    assert stored["expires_at"] == "2998-12-31T22:00:00.000000Z"
    assert stored["embedding"] == X
    assert {name: stored[name] for name in ("text", "embed_text", "metadata")} == {
        name: kept[name] for name in ("text", "embed_text", "metadata")
    }


def test_nothing_may_be_left_over(client: httpx.Client, chunks: str) -> None:
    answer = write(client, chunks, {"embedding": [1]}, {"embedding": [2]})
    assert (answer["ids"], answer["created"], list(skipped(answer))) == ([], 0, [0, 1])
    assert write(client, chunks, 1)["ids"] == []
    assert write(client, chunks, {"id": "a", "embedding": X})["skipped"] == []
    body = {"chunks": [1], "on_invalid": "skip"}
    assert_refused(client.post("/libraries/nowhere/chunks", json=body), 404, "not_found")


def test_a_large_body_is_left_out_in_part_too(client: httpx.Client, chunks: str) -> None:
    items: list[Any] = [{"id": f"c{i}", "embedding": [1.25, i, 0], "metadata": {"embedding": [i]}} for i in range(1500)]
    items[700]["embedding"] = [1.25, "x", 0]
    items[800] = {"id": "c800", "embedding": [1, 2, 3], "text": 5}
    items[900] = [1, 2, 3]
    answer = write(client, chunks, *items)
    assert answer["created"] == 1497
    assert skipped(answer) == {700: ["/chunks/700/embedding"], 800: ["/chunks/800/text"], 900: ["/chunks/900"]}
    stored = client.get(f"{chunks}/c1499?include=embedding&include=metadata").json()
    assert (stored["embedding"], stored["metadata"]) == ([1.25, 1499, 0], {"embedding": [1499]})


@pytest.mark.parametrize(
    ("body", "status", "code", "pointers"),
    [
        ({"chunks": [1], "on_invalid": "ignore"}, 400, "invalid", ["/chunks/0", "/on_invalid"]),
        ({"chunks": [1], "on_invalid": "skip", "mode": "x"}, 400, "invalid", ["/chunks/0", "/mode"]),
        ({"chunks": [], "on_invalid": "skip"}, 400, "invalid", ["/chunks"]),
        ({"chunks": [{"text": '"skip"', "embedding": 1}]}, 400, "invalid", ["/chunks/0/embedding"]),
        (
            {"chunks": [{"embedding": X}], "on_invalid": "skip", "embedding": {"provider": "hashing", "model": "x"}},
            409,
            "model_mismatch",
            ["/embedding"],
        ),
    ],
    ids=str,
)
def test_what_is_wrong_beside_the_chunks_is_refused(
    client: httpx.Client, shared: str, body: dict[str, Any], status: int, code: str, pointers: list[str]
) -> None:
    assert_refused(client.post(f"/libraries/{shared}/chunks", json=body), status, code, *pointers)
    assert client.get(f"/libraries/{shared}/stats").json()["chunks"] == 2


def test_by_default_one_chunk_refuses_all(client: httpx.Client, shared: str) -> None:
    body = {"chunks": [{"embedding": X}, {"embedding": [1]}]}
    answer = client.post(f"/libraries/{shared}/chunks", json=body)
    assert_refused(answer, 400, "invalid", "/chunks/1/embedding")


def test_documents_are_made_where_chunks_name_them(client: httpx.Client, library: str) -> None:
    chunks = f"/libraries/{library}/chunks"
    items = [{"id": f"c{i}", "embedding": X, "document_id": name} for i, name in enumerate(["b", "a/b c", "b"])]
    refusal = client.post(chunks, json={"chunks": items})
    assert_refused(refusal, 400, "invalid", *(f"/chunks/{i}/document_id" for i in range(3)))
    body = {"chunks": items, "create_documents": True}
    assert client.post(chunks, json=body).json() == {"ids": ["c0", "c1", "c2"], "created": 3, "updated": 0}
    documents = client.get(f"/libraries/{library}/documents").json()["items"]
    assert [(item["id"], item["title"], item["chunk_count"]) for item in documents] == [("b", "", 2), ("a/b c", "", 1)]
    assert client.get(f"{chunks}/c2").json()["position"] == 1
    moved = {"chunks": [{"id": "c2", "document_id": "new"}], "mode": "update", "create_documents": True}
    assert client.post(chunks, json=moved).json()["updated"] == 1
    assert client.get(f"{chunks}/c2").json()["document_id"] == "new"


def test_no_document_is_made_for_a_chunk_that_is_left_out(client: httpx.Client, library: str) -> None:
    items = [{"embedding": [1], "document_id": "bad"}, {"embedding": X, "document_id": "\u200bx"}]
    good = {"id": "good", "embedding": X, "document_id": "good"}
    answer = write(client, f"/libraries/{library}/chunks", *items, good, create_documents=True)
    assert skipped(answer) == {0: ["/chunks/0/embedding"], 1: ["/chunks/1/document_id"]}
    assert [item["id"] for item in client.get(f"/libraries/{library}/documents").json()["items"]] == ["good"]
