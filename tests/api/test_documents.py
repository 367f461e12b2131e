"""Documents with their chunks: POST, batch, GET, PATCH, DELETE. PUT has a file of its own."""

from typing import Any

import httpx
import pytest

from tests.api.problems import assert_refused

X, Y = [1, 0, 0], [0, 1, 0]


def count(client: httpx.Client, documents: str) -> tuple[int, int]:
    """How many documents and chunks the library has."""
    stats = client.get(documents.replace("/documents", "/stats")).json()
    return stats["documents"], stats["chunks"]


def test_a_document_is_stored_with_its_chunks(client: httpx.Client, library: str, documents: str) -> None:
    document = {
        "id": "d",
        "title": "Proverbs",
        "source": "https://example.org/proverbs",
        "metadata": {"language": "en"},
        "chunks": [{"id": "one", "text": "1", "embedding": X, "metadata": {"n": 1}}, {"text": "2", "embedding": Y}],
    }
    response = client.post(documents, json=document)
    assert response.status_code == 201
    assert response.headers["Location"] == f"/api/v1{documents}/d"
    made = response.json()
    first, second = made.pop("chunk_ids")
    assert first == "one"
    assert made == client.get(f"{documents}/d").json()
    assert (made["title"], made["source"], made["metadata"]) == ("Proverbs", document["source"], {"language": "en"})
    assert made["chunk_count"] == 2
    stored = client.get(f"/libraries/{library}/chunks?document_id=d").json()["items"]
    assert [(chunk["id"], chunk["document_id"], chunk["position"], chunk["text"]) for chunk in stored] == [
        ("one", "d", 0, "1"),
        (second, "d", 1, "2"),
    ]


def test_all_but_the_chunks_has_a_default(client: httpx.Client, documents: str) -> None:
    made = client.post(documents, json={"chunks": [{"embedding": X}]}).json()
    assert (made["title"], made["source"], made["metadata"], made["chunk_count"]) == ("", "", {}, 1)
    assert len(made["id"]) == len(made["chunk_ids"][0]) == 36


def test_the_location_of_a_document_with_an_odd_id_leads_to_it(client: httpx.Client, documents: str) -> None:
    response = client.post(documents, json={"id": "é?#%41", "chunks": [{"embedding": X}]})
    assert client.get(httpx.URL(client.base_url).join(response.headers["Location"])).json()["id"] == "é?#%41"


def test_patch_changes_the_fields_named_and_no_chunk(client: httpx.Client, library: str, documents: str) -> None:
    document = {"id": "d", "title": "T", "source": "S", "metadata": {"a": 1}, "chunks": [{"id": "c", "embedding": X}]}
    client.post(documents, json=document).raise_for_status()
    chunk = client.get(f"/libraries/{library}/chunks/c").json()
    before = client.get(f"{documents}/d").json()
    response = client.patch(f"{documents}/d", json={"title": "", "metadata": {"b": 2}})
    assert response.status_code == 200
    assert response.json() == client.get(f"{documents}/d").json()
    assert response.json() | {"updated_at": 0} == before | {"title": "", "metadata": {"b": 2}, "updated_at": 0}
    assert client.get(f"/libraries/{library}/chunks/c").json() == chunk


def test_deleting_a_document_deletes_its_chunks_and_no_others(
    client: httpx.Client, library: str, documents: str
) -> None:
    client.post(documents, json={"id": "d", "chunks": [{"id": "c", "embedding": X}]}).raise_for_status()
    client.post(documents, json={"id": "e", "chunks": [{"id": "f", "embedding": X}]}).raise_for_status()
    alone = {"chunks": [{"id": "alone", "embedding": X}]}
    client.post(f"/libraries/{library}/chunks", json=alone).raise_for_status()
    response = client.delete(f"{documents}/d")
    assert (response.status_code, response.content) == (204, b"")
    assert_refused(client.get(f"{documents}/d"), 404, "not_found")
    assert_refused(client.get(f"/libraries/{library}/chunks/c"), 404, "not_found")
    found = client.post(f"/libraries/{library}/query", json={"vector": X}).json()["results"]
    assert [result["id"] for result in found] == ["f", "alone"]


@pytest.mark.parametrize("method", ["GET", "PATCH", "DELETE"])
def test_an_unknown_document_is_404(client: httpx.Client, shared: str, method: str) -> None:
    body = {"title": "T"} if method == "PATCH" else None
    response = client.request(method, f"/libraries/{shared}/documents/unknown", json=body)
    assert "'unknown'" in assert_refused(response, 404, "not_found")["detail"]


CHUNK = {"embedding": X}


@pytest.mark.parametrize(
    ("document", "status", "code", "pointers"),
    [
        pytest.param({"id": "doc", "chunks": [CHUNK]}, 409, "conflict", ["/id"], id="document id in use"),
        pytest.param({"chunks": [CHUNK, CHUNK | {"id": "kept"}]}, 409, "conflict", ["/chunks/1/id"], id="of another"),
        pytest.param({"chunks": [CHUNK | {"id": "alone"}]}, 409, "conflict", ["/chunks/0/id"], id="stands alone"),
        pytest.param({"chunks": [CHUNK | {"id": "n"}] * 2}, 400, "invalid", ["/chunks/1/id"], id="chunk id twice"),
        pytest.param({"title": "No chunks"}, 400, "invalid", ["/chunks"], id="no chunks"),
        pytest.param({"chunks": []}, 400, "invalid", ["/chunks"], id="an empty list of chunks"),
        pytest.param({"chunks": [{}]}, 400, "embedding_required", ["/chunks/0/embedding"], id="no vector"),
        pytest.param({"chunks": [CHUNK, {"embedding": [1]}]}, 400, "invalid", ["/chunks/1/embedding"], id="dimension"),
        pytest.param(
            {"chunks": [CHUNK | {"document_id": "doc"}]},
            400,
            "invalid",
            ["/chunks/0/document_id"],
            id="a chunk that names its document",
        ),
        pytest.param({"chunks": [CHUNK], "title": None}, 400, "invalid", ["/title"], id="null title"),
    ],
)
def test_a_refused_document_leaves_nothing_behind(
    client: httpx.Client, shared: str, document: dict[str, Any], status: int, code: str, pointers: list[str]
) -> None:
    documents = f"/libraries/{shared}/documents"
    assert_refused(client.post(documents, json=document), status, code, *pointers)
    good = {"id": "good", "chunks": [{"id": "good", "embedding": X}]}
    batch = client.post(f"{documents}/batch", json={"documents": [good, document]})
    assert_refused(batch, status, code, *(f"/documents/1{pointer}" for pointer in pointers))
    assert count(client, documents) == (1, 2)


def test_a_batch_stores_several_documents(client: httpx.Client, documents: str) -> None:
    batch = [
        {"id": "a", "title": "A", "chunks": [{"id": "a0", "embedding": X}, {"id": "a1", "embedding": Y}]},
        {"chunks": [{"embedding": X}]},
        {"id": "c", "metadata": {"n": 3}, "chunks": [{"id": "c0", "embedding": Y}]},
    ]
    response = client.post(f"{documents}/batch", json={"documents": batch})
    assert response.status_code == 201
    made = response.json()
    assert [document["id"] for document in made["documents"]] == made["ids"]
    assert [made["ids"][0], made["ids"][2]] == ["a", "c"]
    assert [document["chunk_count"] for document in made["documents"]] == [2, 1, 1]
    assert made["documents"][0]["chunk_ids"] == ["a0", "a1"]
    listed = client.get(documents).json()["items"]
    assert listed == [{k: v for k, v in document.items() if k != "chunk_ids"} for document in made["documents"]]
    assert count(client, documents) == (3, 4)


def test_ids_must_differ_between_the_documents_of_a_batch(client: httpx.Client, documents: str) -> None:
    same = {"id": "same", "chunks": [CHUNK]}
    response = client.post(f"{documents}/batch", json={"documents": [same, same]})
    assert_refused(response, 400, "invalid", "/documents/1/id")
    sharing = [{"chunks": [CHUNK | {"id": "same"}]}] * 2
    response = client.post(f"{documents}/batch", json={"documents": sharing})
    assert_refused(response, 400, "invalid", "/documents/1/chunks/0/id")
    assert count(client, documents) == (0, 0)


def test_the_limit_of_chunks_counts_those_of_all_documents_of_a_batch(client: httpx.Client, documents: str) -> None:
    batch = [{"chunks": [CHUNK] * 1000}, {"chunks": [CHUNK] * 1000}]
    assert client.post(f"{documents}/batch", json={"documents": batch}).status_code == 201
    response = client.post(f"{documents}/batch", json={"documents": [*batch, {"chunks": [CHUNK]}]})
    assert "VECTORDB_MAX_CHUNKS_PER_WRITE" in assert_refused(response, 400, "invalid", "/documents")["detail"]
    assert_refused(client.post(f"{documents}/batch", json={"documents": []}), 400, "invalid", "/documents")
    assert count(client, documents) == (2, 2000)
