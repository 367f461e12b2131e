"""Documents that come as a text: split into chunks, embedded, stored; PUT keeps what is as it was."""

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.api.problems import assert_refused
from tests.embeddings.service import Answer, Service
from tests.server import Server, serving

PARAGRAPHS = [
    f"Paragraph {name} begins here. It says a few things about {name}, and then a few more. It ends with {name}."
    for name in ("apples", "roses", "stones", "birds", "clocks", "rivers", "bridges", "lamps")
]
TEXT = "\n\n".join(PARAGRAPHS)
# One paragraph is 24 tokens long.
BY_PARAGRAPH = {"max_tokens": 30, "overlap": 0}


@pytest.fixture
def path(client: httpx.Client) -> str:
    """The path of a new library, which has no model yet."""
    return f"/libraries/{client.post('/libraries', json={'name': 'Texts'}).json()['id']}"


def chunks(client: httpx.Client, path: str, document_id: str) -> list[dict[str, Any]]:
    """The chunks of a document, by their positions."""
    items = client.get(f"{path}/chunks", params={"document_id": document_id, "limit": 500}).json()["items"]
    return sorted(items, key=lambda chunk: chunk["position"])


def test_a_text_becomes_chunks_that_are_found(client: httpx.Client, path: str) -> None:
    body = {"id": "d", "title": "T", "metadata": {"a": 1}, "text": TEXT, "chunking": BY_PARAGRAPH}
    response = client.post(f"{path}/documents", json=body)
    assert response.status_code == 201, response.text
    created = response.json()
    assert (created["id"], created["title"], created["metadata"], created["chunk_count"]) == ("d", "T", {"a": 1}, 8)
    stored = chunks(client, path, "d")
    assert [chunk["text"] for chunk in stored] == PARAGRAPHS
    assert [chunk["position"] for chunk in stored] == list(range(8))
    assert [chunk["id"] for chunk in stored] == created["chunk_ids"]
    assert all(chunk["metadata"] == {} for chunk in stored)
    found = client.post(f"{path}/query", json={"text": "things about bridges", "k": 1}).json()["results"]
    assert [result["id"] for result in found] == [stored[6]["id"]]
    assert client.get(path).json()["embedding"] == {"provider": "wordllama", "model": "l2-supercat-256"}


def test_without_chunking_a_short_text_is_one_chunk(client: httpx.Client, path: str) -> None:
    client.post(f"{path}/documents", json={"id": "d", "text": f"  {TEXT}\n"}).raise_for_status()
    assert [chunk["text"] for chunk in chunks(client, path, "d")] == [TEXT]


def test_overlap_repeats_the_end_of_the_piece_before(client: httpx.Client, path: str) -> None:
    words = " ".join(f"w{i}" for i in range(2000))
    for name, chunking, overlap in (
        ("default", None, 32),
        ("few", {"max_tokens": 40}, 5),
        ("set", {"overlap": 100}, 100),
    ):
        body = {"id": name, "text": words} | ({} if chunking is None else {"chunking": chunking})
        client.post(f"{path}/documents", json=body).raise_for_status()
        pieces = [chunk["text"].split() for chunk in chunks(client, path, name)]
        assert all(before[-overlap:] == after[:overlap] for before, after in pairwise(pieces)), name
        assert len(pieces[0]) == (chunking or {}).get("max_tokens", 256), name


def test_a_piece_ends_between_characters(client: httpx.Client, path: str) -> None:
    unit = "\U0001f468\u200d\U0001f469\u200d\U0001f467e\u0301漢"
    client.post(
        f"{path}/documents", json={"id": "d", "text": unit * 50, "chunking": {"max_tokens": 10}}
    ).raise_for_status()
    stored = [chunk["text"] for chunk in chunks(client, path, "d")]
    assert len(stored) > 30
    assert not any(piece.startswith(("\u200d", "\u0301")) for piece in stored)


def test_put_keeps_the_pieces_that_are_as_they_were(client: httpx.Client, path: str) -> None:
    body = {"text": TEXT, "chunking": BY_PARAGRAPH}
    before = client.put(f"{path}/documents/d", json=body)
    assert before.status_code == 201, before.text
    same = client.put(f"{path}/documents/d", json=body).json()
    assert (same["unchanged"], same["created"], same["deleted"]) == (8, 0, 0)
    changed = TEXT.replace("about stones", "about pebbles")
    after = client.put(
        f"{path}/documents/d", json=body | {"text": f"A new beginning. It is of its own.\n\n{changed}"}
    ).json()
    assert (after["unchanged"], after["created"], after["deleted"]) == (7, 2, 1)
    kept = before.json()["chunk_ids"]
    assert after["chunk_ids"][1:3] + after["chunk_ids"][4:] == kept[:2] + kept[3:]
    assert [chunk["id"] for chunk in chunks(client, path, "d")] == after["chunk_ids"]
    by_chunks = client.put(f"{path}/documents/d", json={"chunks": [{"text": text} for text in PARAGRAPHS]}).json()
    assert (by_chunks["unchanged"], by_chunks["created"], by_chunks["deleted"]) == (7, 1, 2)


@pytest.fixture
def small(client: httpx.Client) -> str:
    """The path of a new library of a model of 64 components."""
    library = {"name": "Small", "embedding": {"provider": "hashing", "model": "hashing-64"}}
    return f"/libraries/{client.post('/libraries', json=library).json()['id']}"


def vector(number: int) -> list[float]:
    """A vector that no model made, another one for each number."""
    return [1.0, float(number)] + [0.0] * 62


def counts(answer: httpx.Response) -> tuple[int, int, int, int]:
    body = answer.json()
    return body["created"], body["updated"], body["unchanged"], body["deleted"]


# Chunks of equal text, each with a vector of its own; the number in the metadata of the others tells it too.
TWINS = [{"id": "a", "text": "T", "embedding": vector(1)}, {"id": "b", "text": "T", "embedding": vector(2)}]
NUMBERED = [chunk | {"metadata": {"n": n, "m": 0}} for n, chunk in enumerate(TWINS)]
BLANK = [chunk | {"text": ""} for chunk in TWINS]


def without(chunks: list[dict[str, Any]], *names: str) -> list[dict[str, Any]]:
    return [{name: value for name, value in chunk.items() if name not in names} for chunk in chunks]


PUTS: dict[str, tuple[list[dict[str, Any]], list[dict[str, Any]], list[str]]] = {
    "the same": (TWINS, without(TWINS, "embedding"), ["a", "b"]),
    "turned round": (TWINS, without(TWINS, "embedding")[::-1], ["b", "a"]),
    "without ids": (TWINS, without(TWINS, "embedding", "id"), ["a", "b"]),
    "without the id of the first": (TWINS, [{"text": "T"}, {"id": "b", "text": "T"}], ["a", "b"]),
    "without the id of the other": (TWINS, [{"text": "T"}, {"id": "a", "text": "T"}], ["b", "a"]),
    "with one vector": (TWINS, [TWINS[0], {"text": "T"}], ["a", "b"]),
    "told by their metadata": (NUMBERED, without(NUMBERED, "embedding", "id")[::-1], ["b", "a"]),
    "blank": (BLANK, without(BLANK, "embedding"), ["a", "b"]),
}


@pytest.mark.parametrize(("first", "again", "ids"), PUTS.values(), ids=PUTS)
def test_put_keeps_the_vector_of_each_chunk_of_equal_text(
    client: httpx.Client, small: str, first: list[dict[str, Any]], again: list[dict[str, Any]], ids: list[str]
) -> None:
    client.put(f"{small}/documents/d", json={"chunks": first}).raise_for_status()
    answer = client.put(f"{small}/documents/d", json={"chunks": again})
    assert counts(answer) == (0, 0, 2, 0)
    assert answer.json()["chunk_ids"] == ids
    stored = client.get(f"{small}/chunks?include=embedding").json()["items"]
    assert {chunk["id"]: chunk["embedding"] for chunk in stored} == {"a": vector(1), "b": vector(2)}


def test_put_takes_no_vector_for_two_chunks(client: httpx.Client, small: str) -> None:
    client.put(f"{small}/documents/d", json={"chunks": TWINS[:1]}).raise_for_status()
    more = [{"id": "new", "text": "T"}, {"text": "T"}, {"text": "T"}]
    answer = client.put(f"{small}/documents/d", json={"chunks": more})
    assert counts(answer) == (2, 0, 1, 0)
    assert answer.json()["chunk_ids"][1] == "a"


def test_put_keeps_the_vectors_of_texts_that_change_places(client: httpx.Client, small: str) -> None:
    first = [TWINS[0], TWINS[1] | {"text": "U"}]
    client.put(f"{small}/documents/d", json={"chunks": first}).raise_for_status()
    swapped = [{"id": "a", "text": "U"}, {"id": "b", "text": "T"}]
    assert counts(client.put(f"{small}/documents/d", json={"chunks": swapped})) == (0, 2, 0, 0)
    stored = client.get(f"{small}/chunks?include=embedding").json()["items"]
    assert {chunk["id"]: chunk["embedding"] for chunk in stored} == {"a": vector(2), "b": vector(1)}


def test_a_batch_holds_texts_and_chunks(client: httpx.Client, path: str) -> None:
    documents = [
        {"id": "split", "text": TEXT, "chunking": BY_PARAGRAPH},
        {"id": "given", "chunks": [{"text": "One"}, {"text": "Two"}]},
        {"id": "short", "text": "Three."},
    ]
    answer = client.post(f"{path}/documents/batch", json={"documents": documents})
    assert answer.status_code == 201, answer.text
    assert [document["chunk_count"] for document in answer.json()["documents"]] == [8, 2, 1]
    assert [chunk["text"] for chunk in chunks(client, path, "short")] == ["Three."]


BODIES: list[tuple[dict[str, Any], str, str]] = [
    ({}, "/chunks", "is required, or a text to be split"),
    ({"text": "Both.", "chunks": [{"text": "Both."}]}, "/text", "together with chunks"),
    ({"chunks": [{"text": "x"}], "chunking": {}}, "/chunking", "is for a text"),
    ({"text": " \n\u3000"}, "/text", "must not be blank"),
    ({"text": "a\0b"}, "/text", "NUL"),
    ({"text": 5}, "/text", "must be a string"),
    ({"text": "x", "chunking": None}, "/chunking", "must not be null"),
    ({"text": "x", "chunking": {"max_tokens": 0}}, "/chunking/max_tokens", "from 1 to 4096"),
    ({"text": "x", "chunking": {"max_tokens": 4097}}, "/chunking/max_tokens", "from 1 to 4096"),
    ({"text": "x", "chunking": {"max_tokens": True}}, "/chunking/max_tokens", "must be an integer"),
    ({"text": "x", "chunking": {"overlap": -1}}, "/chunking/overlap", "from 0 to 2048"),
    ({"text": "x", "chunking": {"overlap": 256}}, "/chunking/overlap", "at most half of max_tokens, which is 256"),
    ({"text": "x", "chunking": {"max_tokens": 9, "overlap": 5}}, "/chunking/overlap", "at most half of max_tokens"),
    ({"text": "x", "chunking": {"size": 9}}, "/chunking/size", "is not a known field"),
    (
        {"text": "a b " * 1500, "chunking": {"max_tokens": 1}},
        "/text",
        "about 3,000 chunks, and the request may write",
    ),
    ({"text": "a" * (2 * 1024 * 1024 + 1)}, "/text", "VECTORDB_MAX_SPLIT_BYTES"),
]


@pytest.mark.any_database
@pytest.mark.parametrize(("body", "pointer", "says"), BODIES, ids=lambda value: str(value)[:60])
def test_what_cannot_be_split_is_refused(
    client: httpx.Client, path: str, body: dict[str, Any], pointer: str, says: str
) -> None:
    for method, where, sent, at in (
        ("POST", "documents", body, pointer),
        ("PUT", "documents/d", body, pointer),
        ("POST", "documents/batch", {"documents": [{"text": "Fine."}, body]}, f"/documents/1{pointer}"),
    ):
        assert (
            says in assert_refused(client.request(method, f"{path}/{where}", json=sent), 400, "invalid", at)["detail"]
        )
    stats = client.get(f"{path}/stats").json()
    assert (stats["documents"], stats["chunks"]) == (0, 0)
    assert client.get(path).json()["embedding"] is None


def test_texts_of_a_batch_have_one_limit_together(client: httpx.Client, path: str) -> None:
    half = "word " * (3 * 1024 * 1024 // 10)
    response = client.post(f"{path}/documents/batch", json={"documents": [{"text": half}, {"text": half}]})
    assert "VECTORDB_MAX_SPLIT_BYTES" in assert_refused(response, 400, "invalid", "/documents")["detail"]


def test_without_a_model_a_text_is_refused(client: httpx.Client, library: str) -> None:
    response = client.post(f"/libraries/{library}/documents", json={"text": "To be split."})
    assert_refused(response, 400, "embedding_required", "/text")


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    """A service that embeds as OpenAI's does, and remembers the texts."""
    with Service() as running:

        def embed(body: dict[str, Any]) -> Answer:
            data = [{"index": i, "embedding": [len(text), 1, 2]} for i, text in enumerate(body["input"])]
            return Answer({"data": data})

        running.usual = embed
        yield running


@pytest.fixture(scope="module")
def beside(service: Service, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server whose texts are embedded by that service."""
    folder: Path = tmp_path_factory.mktemp("texts") / "data"
    with serving(folder, VECTORDB_OPENAI_BASE_URL=service.url, NO_PROXY="127.0.0.1", VECTORDB_WORKERS=1) as running:
        yield running


def test_only_what_changed_is_embedded(service: Service, beside: Server) -> None:
    with beside.client() as client:
        embedding = {"provider": "openai", "model": "m"}
        client.post("/libraries", json={"id": "l", "name": "L", "embedding": embedding}).raise_for_status()
        body = {"text": TEXT, "chunking": BY_PARAGRAPH}
        client.put("/libraries/l/documents/d", json=body).raise_for_status()
        assert [asked.body["input"] for asked in service.asked] == [PARAGRAPHS]
        service.asked.clear()
        changed = TEXT.replace("about stones", "about pebbles")
        client.put("/libraries/l/documents/d", json=body | {"text": changed}).raise_for_status()
        assert [asked.body["input"] for asked in service.asked] == [
            [PARAGRAPHS[2].replace("about stones", "about pebbles")]
        ]
        service.asked.clear()
        client.put("/libraries/l/documents/d", json=body | {"text": changed, "title": "T"}).raise_for_status()
        assert service.asked == []
        assert_refused(
            client.post("/libraries/l/documents", json={"text": "word " * 4000, "chunking": {"max_tokens": 1}}),
            400,
            "invalid",
            "/text",
        )
        assert service.asked == []
