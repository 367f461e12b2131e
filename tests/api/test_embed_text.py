"""Texts for the embedding model alone: each way to write them makes the vector of them, and shows the text."""

from typing import Any

import httpx
import pytest

from tests.api.problems import assert_refused

MODEL = {"provider": "hashing", "model": "hashing-64"}
SEEN, SHOWN = "Roses: how to cut roses in March", "In March"


@pytest.fixture
def path(client: httpx.Client, library: str) -> str:
    """The path of a new library with a model."""
    name = f"{library}-embed-text"
    client.post("/libraries", json={"id": name, "name": "N", "embedding": MODEL}).raise_for_status()
    return f"/libraries/{name}"


def stored(client: httpx.Client, path: str, chunk_id: str) -> tuple[str, str | None, list[float]]:
    """The text, the text for the model and the vector of a chunk."""
    include = ["text", "embed_text", "embedding"]
    chunk = client.get(f"{path}/chunks/{chunk_id}", params={"include": include}).raise_for_status().json()
    return chunk["text"], chunk["embed_text"], chunk["embedding"]


def vector(client: httpx.Client, path: str, text: str) -> list[float]:
    """The model's vector of a text."""
    client.post(f"{path}/chunks", json={"chunks": [{"id": "probe", "text": text}]}).raise_for_status()
    found = stored(client, path, "probe")[2]
    client.delete(f"{path}/chunks/probe").raise_for_status()
    return found


def test_the_model_is_given_one_text_and_people_the_other(client: httpx.Client, path: str) -> None:
    chunk = {"id": "a", "text": SHOWN, "embed_text": SEEN}
    client.post(f"{path}/chunks", json={"chunks": [chunk]}).raise_for_status()
    assert stored(client, path, "a") == (SHOWN, SEEN, vector(client, path, SEEN))
    assert "embed_text" not in client.get(f"{path}/chunks/a").json()
    [result] = client.post(f"{path}/query", json={"text": SEEN}).json()["results"]
    assert (result["text"], result["score"], "embed_text" in result) == (SHOWN, pytest.approx(1), False)
    query = {"text": "March", "mode": "lexical", "include": ["embed_text"]}
    assert client.post(f"{path}/query", json=query).json()["results"][0]["embed_text"] == SEEN
    # Words are those of the text.
    assert client.post(f"{path}/query", json={"text": "roses", "mode": "lexical"}).json()["results"] == []


@pytest.mark.parametrize(
    ("change", "shown", "seen"),
    [
        ({"text": "In May"}, "In May", SEEN),
        ({"embed_text": "New"}, SHOWN, "New"),
        ({"embed_text": None}, SHOWN, None),
        ({"text": "In May", "embed_text": None}, "In May", None),
        ({"metadata": {"a": 1}}, SHOWN, SEEN),
        ({"embed_text": SHOWN}, SHOWN, SHOWN),
    ],
    ids=str,
)
@pytest.mark.parametrize("way", ["patch", "update"])
def test_a_change_of_what_the_model_is_given_makes_a_new_vector(
    client: httpx.Client, path: str, way: str, change: dict[str, Any], shown: str, seen: str | None
) -> None:
    chunk = {"id": "a", "text": SHOWN, "embed_text": SEEN}
    client.post(f"{path}/chunks", json={"chunks": [chunk]}).raise_for_status()
    if way == "patch":
        client.patch(f"{path}/chunks/a", json=change).raise_for_status()
    else:
        body = {"chunks": [{"id": "a", **change}], "mode": "update"}
        client.post(f"{path}/chunks", json=body).raise_for_status()
    assert stored(client, path, "a") == (shown, seen, vector(client, path, seen or shown))


def test_an_upsert_without_it_resets_it(client: httpx.Client, path: str) -> None:
    for chunk in ({"id": "a", "text": SHOWN, "embed_text": SEEN}, {"id": "a", "text": SHOWN}):
        client.post(f"{path}/chunks", json={"chunks": [chunk]}).raise_for_status()
    assert stored(client, path, "a") == (SHOWN, None, vector(client, path, SHOWN))


def test_it_is_part_of_the_content_of_a_chunk_in_its_document(client: httpx.Client, path: str) -> None:
    document = f"{path}/documents/doc"
    first, second = {"text": "One", "embed_text": "Title: one"}, {"id": "b", "text": "Two"}
    created = client.put(document, json={"chunks": [first, second]}).json()
    a = created["chunk_ids"][0]
    assert stored(client, path, a) == ("One", "Title: one", vector(client, path, "Title: one"))
    again = client.put(document, json={"chunks": [first, second]}).json()
    assert (again["unchanged"], again["chunk_ids"]) == (2, [a, "b"])
    changed = client.put(document, json={"chunks": [{"text": "One"}, second | {"embed_text": "Title: two"}]}).json()
    assert (changed["created"], changed["updated"], changed["deleted"]) == (1, 1, 1)
    assert stored(client, path, "b") == ("Two", "Title: two", vector(client, path, "Title: two"))
    assert stored(client, path, changed["chunk_ids"][0]) == ("One", None, vector(client, path, "One"))
    moved = client.put(document, json={"chunks": [{"id": "b", "text": "2", "embed_text": "Title: two"}]}).json()
    assert moved["updated"] == 1
    assert stored(client, path, "b") == ("2", "Title: two", vector(client, path, "Title: two"))


def test_a_library_without_a_model_keeps_it_for_the_next_one(client: httpx.Client, library: str) -> None:
    path = f"/libraries/{library}"
    chunk = {"id": "a", "text": SHOWN, "embed_text": SEEN, "embedding": [1, 0, 0]}
    client.post(f"{path}/chunks", json={"chunks": [chunk]}).raise_for_status()
    assert stored(client, path, "a") == (SHOWN, SEEN, [1, 0, 0])
    client.patch(f"{path}/chunks/a", json={"text": "Other"}).raise_for_status()
    assert stored(client, path, "a") == ("Other", SEEN, [1, 0, 0])
    refusal = client.patch(f"{path}/chunks/a", json={"embed_text": None})
    assert_refused(refusal, 400, "embedding_required", "/embedding")
    client.patch(f"{path}/chunks/a", json={"embed_text": None, "embedding": [0, 1, 0]}).raise_for_status()
    assert stored(client, path, "a") == ("Other", None, [0, 1, 0])


@pytest.mark.parametrize("value", ["", " \n", "a\0b", 5])
def test_what_is_nothing_to_embed_is_refused(client: httpx.Client, path: str, value: Any) -> None:
    body = {"chunks": [{"text": "x", "embed_text": value}]}
    assert_refused(client.post(f"{path}/chunks", json=body), 400, "invalid", "/chunks/0/embed_text")
    assert_refused(client.put(f"{path}/documents/d", json=body), 400, "invalid", "/chunks/0/embed_text")
