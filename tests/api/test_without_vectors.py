"""Chunks without a vector: filters, counts and words find them, vectors do not, until they get one."""

from typing import Any

import httpx
import pytest

from tests.api.problems import assert_refused
from tests.server import Server

TEXTS = {"fox": "the quick brown fox", "dog": "the lazy dog", "hen": "a quick hen"}


@pytest.fixture
def words(client: httpx.Client) -> str:
    """The path of a library that is used for words alone."""
    library: str = client.post("/libraries", json={"name": "Words"}).json()["id"]
    write(client, f"/libraries/{library}", bare())
    return f"/libraries/{library}"


@pytest.fixture
def mixed(client: httpx.Client, library: str) -> str:
    """The path of a library of dimension 3 in which `fox` has a vector and the others have none."""
    chunks = bare()
    chunks[0]["embedding"] = [1, 0, 0]
    write(client, f"/libraries/{library}", chunks)
    return f"/libraries/{library}"


def bare() -> list[dict[str, Any]]:
    return [
        {"id": name, "text": text, "embedding": None, "metadata": {"n": n, "kind": "even" if n % 2 == 0 else "odd"}}
        for n, (name, text) in enumerate(TEXTS.items())
    ]


def write(client: httpx.Client, path: str, chunks: list[dict[str, Any]], **options: Any) -> Any:
    return client.post(f"{path}/chunks", json={"chunks": chunks, **options}).raise_for_status().json()


def query(client: httpx.Client, path: str, **spec: Any) -> tuple[list[str], dict[str, Any]]:
    answer = client.post(f"{path}/query", json=spec).raise_for_status().json()
    return [result["id"] for result in answer["results"]], answer["meta"]


def vector_of(client: httpx.Client, path: str, chunk_id: str) -> list[float] | None:
    found: list[float] | None = client.get(f"{path}/chunks/{chunk_id}?include=embedding").json()["embedding"]
    return found


def count_bare(client: httpx.Client, path: str) -> int:
    return int(client.get(f"{path}/stats").json()["chunks_without_vector"])


def test_a_library_of_words_alone_needs_no_dimension_and_no_model(client: httpx.Client, words: str) -> None:
    library = client.get(words).json()
    assert (library["dimension"], library["embedding"]) == (None, None)
    assert client.post(f"{words}/chunks/count", json={"filter": {"kind": "even"}}).json() == {"count": 2}
    listed = client.get(f"{words}/chunks", params={"filter": '{"n": {"$gte": 1}}', "include": "embedding"}).json()
    assert [(chunk["id"], chunk["embedding"]) for chunk in listed["items"]] == [("dog", None), ("hen", None)]
    facets = client.post(f"{words}/chunks/facets", json={"field": "kind"}).json()
    assert [(facet["value"], facet["count"]) for facet in facets["facets"]] == [("even", 2), ("odd", 1)]
    found, meta = query(client, words, text="quick", mode="lexical")
    assert set(found) == {"fox", "hen"}
    assert (meta["exact"], meta["scanned"], meta["plan"]) == (True, 2, "words")
    assert query(client, words, text="quick", mode="lexical", filter={"n": 2})[0] == ["hen"]
    assert set(query(client, words, chunk_id="fox", mode="lexical")[0]) == {"hen", "dog"}
    stats = client.get(f"{words}/stats").json()
    assert (stats["chunks"], stats["chunks_without_vector"]) == (3, 3)
    assert client.post(f"{words}/chunks/delete", json={"filter": {"kind": "even"}}).json() == {"deleted": 2}
    assert query(client, words, text="dog quick", mode="lexical")[0] == ["dog"]


def test_a_library_of_words_alone_answers_no_query_by_vector(client: httpx.Client, words: str) -> None:
    found, meta = query(client, words, vector=[1, 2], filter={"n": 1})
    assert (found, meta["exact"], meta["scanned"], meta["plan"]) == ([], True, 0, "no vectors yet")
    answer = client.post(f"{words}/query", json={"text": "fox"})
    assert_refused(answer, 400, "embedding_required", "/text")
    found, _ = query(client, words, text="quick", vector=[1, 2], mode="hybrid")
    assert set(found) == {"fox", "hen"}


def test_a_library_of_words_alone_takes_vectors_later(client: httpx.Client, words: str) -> None:
    write(client, words, [{"id": "dog", "text": TEXTS["dog"], "embedding": [0, 1]}])
    assert client.get(words).json()["dimension"] == 2
    assert query(client, words, vector=[1, 1])[0] == ["dog"]
    assert set(query(client, words, text="the quick", mode="lexical")[0]) == set(TEXTS)
    assert count_bare(client, words) == 2
    patch = client.patch(f"{words}/chunks/fox", json={"embedding": [1, 2, 3]})
    assert_refused(patch, 400, "invalid", "/embedding")


def test_vectors_pass_over_chunks_that_have_none(client: httpx.Client, mixed: str) -> None:
    found, meta = query(client, mixed, vector=[1, 1, 1], k=10)
    assert (found, meta["exact"], meta["scanned"]) == (["fox"], True, 1)
    found, meta = query(client, mixed, vector=[1, 1, 1], filter={"n": {"$gte": 0}})
    assert (found, meta["plan"]) == (["fox"], "filter (3 of 3 rows), then exact scan")
    found, meta = query(client, mixed, vector=[1, 1, 1], filter={"n": {"$gte": 0}}, filter_mode="post")
    assert (found, meta["exact"], meta["incomplete"]) == (["fox"], True, False)
    assert set(query(client, mixed, text="quick", vector=[1, 1, 1], mode="hybrid")[0]) == {"fox", "hen"}
    diverse = {"text": "quick", "vector": [1, 1, 1], "mode": "hybrid", "mmr": {"fetch_k": 10}}
    assert query(client, mixed, **diverse)[0] == ["fox", "hen"]
    assert query(client, mixed, **diverse, offset=1)[0] == ["hen"]
    results = client.post(f"{mixed}/query", json={"text": "lazy", "mode": "lexical", "include": ["embedding"]}).json()
    assert [result["embedding"] for result in results["results"]] == [None]
    grouped = {"text": "quick lazy", "mode": "lexical", "group_by": "kind", "group_size": 2}
    assert set(query(client, mixed, **grouped)[0]) == set(TEXTS)
    assert query(client, mixed, vector=[1, 1, 1], group_by="kind")[0] == ["fox"]


def test_more_like_a_chunk_without_a_vector_is_a_search_for_words(client: httpx.Client, mixed: str) -> None:
    assert query(client, mixed, chunk_id="hen", mode="lexical")[0] == ["fox"]
    for mode in ("vector", "hybrid"):
        refused = client.post(f"{mixed}/query", json={"chunk_id": "hen", "mode": mode})
        assert "mode lexical" in assert_refused(refused, 400, "invalid", "/chunk_id")["detail"]
    missing = client.post(f"{mixed}/query", json={"chunk_id": "none", "mode": "lexical"})
    assert_refused(missing, 404, "not_found", "/chunk_id")


def test_a_vector_is_taken_away_and_given_again(client: httpx.Client, mixed: str) -> None:
    chunk = client.patch(f"{mixed}/chunks/fox", json={"embedding": None}).raise_for_status().json()
    assert chunk["text"] == TEXTS["fox"]
    assert vector_of(client, mixed, "fox") is None
    assert (query(client, mixed, vector=[1, 1, 1])[0], count_bare(client, mixed)) == ([], 3)
    write(client, mixed, [{"id": "fox", "embedding": [0, 1, 0]}, {"id": "hen", "embedding": None}], mode="update")
    assert query(client, mixed, vector=[1, 1, 1])[0] == ["fox"]
    write(client, mixed, [{"id": "hen", "text": "hen", "embedding": [0, 0, 1]}, {"id": "fox", "embedding": None}])
    assert query(client, mixed, vector=[1, 1, 1])[0] == ["hen"]
    inserted = write(client, mixed, [{"id": "new", "text": "new", "embedding": None}], mode="insert")
    assert (inserted["created"], inserted["updated"]) == (1, 0)
    assert query(client, mixed, text="new", mode="lexical")[0] == ["new"]


def test_a_chunk_without_a_vector_keeps_none_when_its_text_changes(client: httpx.Client, words: str) -> None:
    client.patch(f"{words}/chunks/fox", json={"text": "a red fox"}).raise_for_status()
    write(client, words, [{"id": "dog", "text": "a red dog"}], mode="update")
    assert set(query(client, words, text="red", mode="lexical")[0]) == {"fox", "dog"}
    assert count_bare(client, words) == 3
    assert client.get(words).json()["embedding"] is None
    # Written whole, it is embedded.
    write(client, words, [{"id": "dog", "text": "a red dog"}])
    assert client.get(words).json()["embedding"] is not None
    assert query(client, words, text="dog")[0] == ["dog"]
    client.patch(f"{words}/chunks/fox", json={"text": "a blue fox"}).raise_for_status()
    assert vector_of(client, words, "fox") is None


def test_null_beside_texts_to_embed_does_not_keep_the_default_model_away(client: httpx.Client) -> None:
    path = f"/libraries/{client.post('/libraries', json={'name': 'Both'}).json()['id']}"
    write(client, path, [{"id": "a", "text": "apple"}, {"id": "b", "text": "", "embedding": None}])
    assert client.get(path).json()["embedding"] is not None
    assert (query(client, path, text="fruit")[0], count_bare(client, path)) == (["a"], 1)


def test_chunks_of_documents_may_have_no_vector(client: httpx.Client, words: str) -> None:
    chunks = [{"id": "d0", "text": "one", "embedding": None}, {"text": "two", "embedding": None}]
    client.post(f"{words}/documents", json={"id": "d", "chunks": chunks}).raise_for_status()
    assert set(query(client, words, text="one two", mode="lexical", group_by="document")[0]) == {"d0"}
    again = client.put(f"{words}/documents/d", json={"chunks": chunks}).raise_for_status().json()
    assert (again["unchanged"], again["created"], again["updated"]) == (2, 0, 0)
    chunks[0]["embedding"] = [1, 2]
    again = client.put(f"{words}/documents/d", json={"chunks": chunks}).raise_for_status().json()
    assert (again["unchanged"], again["updated"]) == (1, 1)
    assert query(client, words, vector=[1, 1])[0] == ["d0"]
    chunks[0]["embedding"] = None
    batch = {"mode": "upsert", "documents": [{"id": "d", "chunks": chunks}, {"id": "e", "chunks": [chunks[1]]}]}
    client.post(f"{words}/documents/batch", json=batch).raise_for_status()
    assert query(client, words, vector=[1, 1])[0] == []
    assert count_bare(client, words) == 6


def test_a_large_body_may_have_vectors_and_none(client: httpx.Client, mixed: str) -> None:
    chunks = [
        {"id": f"c{n}", "text": f"word{n}", "embedding": None if n % 3 == 0 else [n + 1, 0.5, 0.25]} for n in range(900)
    ]
    write(client, mixed, chunks)
    assert count_bare(client, mixed) == 302
    assert vector_of(client, mixed, "c899") == [900, 0.5, 0.25]
    assert vector_of(client, mixed, "c897") is None
    found, meta = query(client, mixed, vector=[1, 0, 0], k=1000)
    assert (len(found), meta["scanned"]) == (601, 601)


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"chunks": [{"embedding": [None]}]}, "/chunks/0/embedding"),
        ({"chunks": [{"embedding": False}]}, "/chunks/0/embedding"),
        ({"chunks": [{"embedding": []}]}, "/chunks/0/embedding"),
        ({"chunks": [{"text": " "}, {"embedding": None}]}, "/chunks/0/embedding"),
    ],
)
def test_what_is_neither_a_vector_nor_null_is_refused(
    client: httpx.Client, mixed: str, body: dict[str, Any], pointer: str
) -> None:
    problem = client.post(f"{mixed}/chunks", json=body)
    assert problem.status_code == 400
    assert [error["pointer"] for error in problem.json()["errors"]] == [pointer]
    assert_refused(client.post(f"{mixed}/query", json={"vector": None}), 400, "invalid", "/vector")


def test_every_worker_sees_a_vector_come_and_go(server: Server, client: httpx.Client, mixed: str) -> None:
    with server.clients_of_each_worker(1) as clients:
        for n in range(6):
            vector = [1, 0, 0] if n % 2 else None
            write(clients[n % 2], mixed, [{"id": "dog", "text": f"round {n}", "embedding": vector}])
            for reader in clients:
                assert set(query(reader, mixed, vector=[1, 0, 0])[0]) == {"fox", *(["dog"] if vector else [])}
                assert query(reader, mixed, text=f"{n}", mode="lexical")[0] == ["dog"]
