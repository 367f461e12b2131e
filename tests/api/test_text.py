"""Text in: vectors made by the library's model, search by words, both together; groups and diversity."""

from typing import Any

import httpx
import pytest

from tests.api.problems import assert_refused
from tests.server import Server

pytestmark = pytest.mark.any_database

TEXTS = {
    "apple": "An apple a day keeps the doctor away",
    "rose": "A rose is a rose is a rose",
    "stone": "A rolling stone gathers no moss",
    "bird": "The early bird catches the worm",
    "doctor": "Doctors recommend apples, and a rolling gait",
}


@pytest.fixture
def quotes(client: httpx.Client) -> str:
    """The path of a library of short texts, embedded by the server's default model."""
    library: str = client.post("/libraries", json={"name": "Quotes"}).json()["id"]
    chunks = [{"id": key, "text": text, "metadata": {"words": len(text.split())}} for key, text in TEXTS.items()]
    client.post(f"/libraries/{library}/chunks", json={"chunks": chunks}).raise_for_status()
    return f"/libraries/{library}"


def ids(client: httpx.Client, path: str, **query: Any) -> list[str]:
    response = client.post(f"{path}/query", json=query)
    assert response.status_code == 200, response.text
    return [result["id"] for result in response.json()["results"]]


def test_an_empty_library_takes_the_default_model(client: httpx.Client, quotes: str) -> None:
    library = client.get(quotes).json()
    assert library["embedding"] == {"provider": "wordllama", "model": "l2-supercat-256"}
    assert library["dimension"] == 256
    assert ids(client, quotes, text="apples and doctors", k=2) == ["doctor", "apple"]


def test_a_changed_text_is_embedded_again(client: httpx.Client, quotes: str) -> None:
    def vector() -> list[float]:
        found: list[float] = client.get(f"{quotes}/chunks/rose?include=embedding").json()["embedding"]
        return found

    before = vector()
    client.patch(f"{quotes}/chunks/rose", json={"metadata": {"n": 1}}).raise_for_status()
    assert vector() == before
    client.patch(f"{quotes}/chunks/rose", json={"text": "Something else entirely"}).raise_for_status()
    assert vector() != before
    assert ids(client, quotes, text="something else entirely", k=1) == ["rose"]
    update = {"mode": "update", "chunks": [{"id": "rose", "text": TEXTS["rose"]}]}
    client.post(f"{quotes}/chunks", json=update).raise_for_status()
    assert vector() == before


def test_documents_get_vectors_and_keep_them(client: httpx.Client, quotes: str) -> None:
    document = {"title": "Proverbs", "chunks": [{"text": "Time flies"}, {"text": "Haste makes waste"}]}
    assert client.put(f"{quotes}/documents/d", json=document).json()["created"] == 2
    again = {"title": "Proverbs", "chunks": [{"text": "Haste makes waste"}, {"text": "Time will tell"}]}
    replaced = client.put(f"{quotes}/documents/d", json=again).json()
    assert (replaced["unchanged"], replaced["created"], replaced["deleted"]) == (1, 1, 1)
    assert client.post(f"{quotes}/documents", json={"chunks": [{"text": "Time flies"}]}).status_code == 201
    both = {"documents": [{"chunks": [{"text": "One more"}]}, {"chunks": [{"text": "And another"}]}]}
    assert client.post(f"{quotes}/documents/batch", json=both).status_code == 201
    assert len(ids(client, quotes, text="time and haste", k=20)) == 5 + 2 + 1 + 2


def test_a_library_may_name_its_model(client: httpx.Client) -> None:
    embedding = {"provider": "hashing", "model": "hashing-64"}
    library = client.post("/libraries", json={"name": "Small", "embedding": embedding}).json()
    assert library["embedding"] == embedding
    path = f"/libraries/{library['id']}"
    client.post(f"{path}/chunks", json={"chunks": [{"text": "hello world"}]}).raise_for_status()
    assert client.get(path).json()["dimension"] == 64
    assert client.patch(path, json={"embedding": embedding}).json()["embedding"] == embedding


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"embedding": {"provider": "oracle", "model": "m"}}, "/embedding/provider"),
        ({"embedding": {"provider": "hashing", "model": "m"}}, "/embedding/model"),
        ({"embedding": {"provider": "hashing", "model": "hashing-64"}, "dimension": 65}, "/dimension"),
        ({"embedding": {"provider": "hashing"}}, "/embedding/model"),
        ({"embedding": None}, "/embedding"),
    ],
)
def test_a_model_that_cannot_be_used_is_refused(client: httpx.Client, body: dict[str, Any], pointer: str) -> None:
    assert_refused(client.post("/libraries", json={"name": "N"} | body), 400, "invalid", pointer)


def test_without_a_model_text_is_refused_where_it_needs_one(client: httpx.Client, library: str) -> None:
    path = f"/libraries/{library}"
    chunk = {"id": "x", "text": "hello world", "embedding": [1, 0, 0]}
    client.post(f"{path}/chunks", json={"chunks": [chunk]}).raise_for_status()
    text = {"chunks": [{"id": "x", "text": "hello"}]}
    assert_refused(client.post(f"{path}/chunks", json=text), 400, "embedding_required", "/chunks/0/embedding")
    assert_refused(client.post(f"{path}/query", json={"text": "hello"}), 400, "embedding_required", "/text")
    assert ids(client, path, text="hello", mode="lexical") == ["x"]
    assert ids(client, path, text="hello", vector=[1, 0, 0], mode="hybrid") == ["x"]


@pytest.mark.parametrize("mode", ["vector", "hybrid"])
def test_a_query_by_text_finds_nothing_where_nothing_was_ever_written(client: httpx.Client, mode: str) -> None:
    path = f"/libraries/{client.post('/libraries', json={'name': 'N'}).json()['id']}"
    assert ids(client, path, text="hello", mode=mode) == []
    client.post(f"{path}/chunks", json={"chunks": [{"id": "x", "text": "hello", "embedding": None}]}).raise_for_status()
    assert_refused(
        client.post(f"{path}/query", json={"text": "hello", "mode": mode}), 400, "embedding_required", "/text"
    )


@pytest.mark.parametrize("width", [3, 384])
@pytest.mark.parametrize("at", [0, 1])
def test_no_model_is_taken_beside_vectors_of_the_request(client: httpx.Client, width: int, at: int) -> None:
    """The default model may be another than the one that made them."""
    path = f"/libraries/{client.post('/libraries', json={'name': 'Mixed'}).json()['id']}"
    chunks: list[dict[str, Any]] = [{"id": str(n), "text": f"number {n}", "embedding": [1.0] * width} for n in range(2)]
    chunks.insert(at, {"id": "no", "text": "no vector"})
    own, forgotten = {"chunks": [chunks[1 - at]]}, {"chunks": [chunks[at]]}
    for method, where, body, pointer in (
        ("POST", "chunks", {"chunks": chunks}, f"/chunks/{at}/embedding"),
        ("POST", "documents", {"chunks": chunks}, f"/chunks/{at}/embedding"),
        ("PUT", "documents/d", {"chunks": chunks}, f"/chunks/{at}/embedding"),
        ("POST", "documents/batch", {"documents": [own, forgotten]}, "/documents/1/chunks/0/embedding"),
        ("POST", "documents/batch", {"documents": [own, {"text": "split me"}]}, "/documents/1/text"),
    ):
        response = client.request(method, f"{path}/{where}", json=body)
        assert_refused(response, 400, "embedding_required", pointer)
    assert client.get(path).json()["embedding"] is None
    named = {"chunks": chunks, "embedding": {"provider": "hashing", "model": f"hashing-{width}"}}
    if width == 384:
        client.post(f"{path}/chunks", json=named).raise_for_status()


def test_there_must_be_something_to_embed(client: httpx.Client, quotes: str) -> None:
    blank = {"chunks": [{"text": "fine"}, {"text": " \n"}]}
    assert_refused(client.post(f"{quotes}/chunks", json=blank), 400, "invalid", "/chunks/1/text")
    assert_refused(client.post(f"{quotes}/query", json={"text": " "}), 400, "invalid", "/text")
    assert client.get(f"{quotes}/stats").json()["chunks"] == len(TEXTS)


def test_a_provider_that_fails_is_502_and_nothing_is_written(client: httpx.Client, server: Server) -> None:
    path = f"/libraries/{client.post('/libraries', json={'name': 'Gone'}).json()['id']}"
    # A library of a model whose package is no longer installed.
    changed = server.manage(
        "shell",
        "-c",
        "from apps.libraries.models import Library; "
        f"Library.objects.filter(public_id='{path.rpartition('/')[2]}')"
        ".update(embedding_provider='sentence_transformers', embedding_model='m')",
    )
    assert changed.returncode == 0, changed.stderr
    for method, where, body in (
        ("POST", "chunks", {"chunks": [{"id": "v", "embedding": [1, 0]}, {"text": "a"}]}),
        ("PUT", "documents/d", {"chunks": [{"text": "a"}]}),
        ("POST", "query", {"text": "a"}),
    ):
        response = client.request(method, f"{path}/{where}", json=body)
        assert_refused(response, 502, "embedding_failed")
        assert "make model" in response.json()["detail"]
    stats = client.get(f"{path}/stats").json()
    assert (stats["chunks"], stats["documents"], stats["revision"]) == (0, 0, 0)


def test_words_are_found_by_their_rarity(client: httpx.Client, quotes: str) -> None:
    answer = client.post(f"{quotes}/query", json={"text": "rolling a stone", "mode": "lexical"}).json()
    assert [result["id"] for result in answer["results"]][:2] == ["stone", "doctor"]
    assert answer["meta"]["exact"]
    assert answer["results"][0]["distance"] == -answer["results"][0]["score"]
    assert ids(client, quotes, text='"a rose is"', mode="lexical") == ["rose"]
    assert ids(client, quotes, text='"rose a is"', mode="lexical") == []
    assert ids(client, quotes, text='unbalanced " OR ( rose*', mode="lexical") == ["rose"]
    assert ids(client, quotes, text="a", mode="lexical", filter={"words": {"$lt": 7}}) == ["stone"]
    assert ids(client, quotes, chunk_id="stone", mode="lexical")[0] == "doctor"


def test_words_that_were_changed_are_found_as_they_are_now(client: httpx.Client, quotes: str) -> None:
    client.patch(f"{quotes}/chunks/bird", json={"text": "The second mouse gets the cheese"}).raise_for_status()
    assert ids(client, quotes, text="worm", mode="lexical") == []
    assert ids(client, quotes, text="cheese", mode="lexical") == ["bird"]
    client.delete(f"{quotes}/chunks/bird").raise_for_status()
    assert ids(client, quotes, text="cheese", mode="lexical") == []


def test_ranks_by_vector_and_by_words_are_fused(client: httpx.Client, quotes: str) -> None:
    query = {"text": "rolling stone", "mode": "hybrid", "k": 5}
    fused = client.post(f"{quotes}/query", json=query).json()
    by_vector = ids(client, quotes, text="rolling stone", k=5)
    by_words = ids(client, quotes, text="rolling stone", mode="lexical")
    for result in fused["results"]:
        assert result["vector_rank"] == by_vector.index(result["id"]) + 1
        rank = by_words.index(result["id"]) + 1 if result["id"] in by_words else None
        assert result["lexical_rank"] == rank
        expected = 1 / (60 + result["vector_rank"]) + (1 / (60 + rank) if rank else 0)
        assert result["score"] == pytest.approx(expected)
    assert not fused["meta"]["exact"]
    weights = {"hybrid": {"vector_weight": 0, "lexical_weight": 1}}
    assert ids(client, quotes, **query | weights)[:2] == by_words[:2]


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ({"vector": [1.0] * 384, "mode": "lexical"}, "/text"),
        ({"vector": [1.0] * 384, "text": "both"}, ""),
        ({"text": "a", "chunk_id": "rose", "mode": "hybrid"}, ""),
        ({"text": "a", "hybrid": {"rrf_k": 0}}, "/hybrid/rrf_k"),
        ({"text": "a", "hybrid": {"vector_weight": -1}}, "/hybrid/vector_weight"),
        ({"text": "a", "mmr": {"lambda": 2}}, "/mmr/lambda"),
        ({"text": "a", "mmr": {"fetch_k": 0}}, "/mmr/fetch_k"),
        ({"text": "a", "mmr": {"fetch_k": 1001}}, "/mmr/fetch_k"),
        ({"text": "a", "mmr": {}, "mode": "lexical"}, "/mmr"),
        ({"text": "a", "mmr": {}, "group_by": "document"}, "/mmr"),
        ({"text": "a", "group_by": "@chunk"}, "/group_by"),
        ({"text": "a", "group_by": "@created_at"}, "/group_by"),
        ({"text": "a", "group_size": 0}, "/group_size"),
    ],
    ids=str,
)
def test_options_that_do_not_fit_are_refused(
    client: httpx.Client, quotes: str, query: dict[str, Any], pointer: str
) -> None:
    assert_refused(client.post(f"{quotes}/query", json=query), 400, "invalid", pointer)


@pytest.fixture
def grouped(client: httpx.Client, library: str) -> str:
    """A library of three documents of vectors that point further and further away, and one chunk alone."""
    path = f"/libraries/{library}"
    for number, name in enumerate(("near", "middle", "far")):
        chunks = [{"id": f"{name}-{i}", "embedding": [1, number + i / 10, 0]} for i in range(5)]
        client.post(f"{path}/documents", json={"id": name, "chunks": chunks}).raise_for_status()
    client.post(f"{path}/chunks", json={"chunks": [{"id": "alone", "embedding": [1, 1.45, 0]}]}).raise_for_status()
    return path


def test_groups_are_documents_and_chunks_alone(client: httpx.Client, grouped: str) -> None:
    query = {"vector": [1, 0, 0], "group_by": "document", "include": []}
    assert ids(client, grouped, **query, k=10) == ["near-0", "middle-0", "alone", "far-0"]
    assert ids(client, grouped, **query, k=2, group_size=2) == ["near-0", "near-1", "middle-0", "middle-1"]
    assert ids(client, grouped, **query, k=2, offset=2) == ["alone", "far-0"]
    assert ids(client, grouped, **query, k=1, offset=3, group_size=9) == [f"far-{i}" for i in range(5)]
    assert ids(client, grouped, **query, k=9, filter={"@id": {"$prefix": "middle"}}) == ["middle-0"]
    like = {"chunk_id": "near-0", "group_by": "document", "group_size": 2, "k": 1}
    assert ids(client, grouped, **like) == ["near-1", "near-2"]


def test_a_group_is_complete_where_its_chunks_lie_far_apart(client: httpx.Client, library: str) -> None:
    path = f"/libraries/{library}"
    for name, first in (("a", 0.0), ("b", 0.01)):
        chunks = [{"id": f"{name}-0", "embedding": [1, first, 0]}, {"id": f"{name}-1", "embedding": [0, 1, first]}]
        client.post(f"{path}/documents", json={"id": name, "chunks": chunks}).raise_for_status()
    between = [{"embedding": [1, 0.1 + i / 1000, 0]} for i in range(300)]
    client.post(f"{path}/documents", json={"id": "between", "chunks": between}).raise_for_status()
    query = {"vector": [1, 0, 0], "group_by": "document", "group_size": 2, "k": 2}
    assert ids(client, path, **query) == ["a-0", "a-1", "b-0", "b-1"]
    # All chunks of the nearest document come before the third one: the search is widened.
    assert len(ids(client, path, vector=[1, 0.2, 0], group_by="document", k=3)) == 3


def test_groups_are_by_any_field(client: httpx.Client, library: str) -> None:
    path = f"/libraries/{library}"
    values = ["x", 1, "x", 1.0, True, None, ["x"], {"x": 1}, "1"]
    chunks = [
        {"id": str(n), "embedding": [1, n / 10, 0], "metadata": {"document": value, "a": {"b.c": n % 2}}}
        for n, value in enumerate(values)
    ]
    document = {"id": "d", "metadata": {"by": "me"}, "chunks": chunks[:4]}
    client.post(f"{path}/documents", json=document).raise_for_status()
    others = [*chunks[4:], {"id": "bare", "embedding": [0, 1, 0]}]
    client.post(f"{path}/chunks", json={"chunks": others}).raise_for_status()
    query = {"vector": [1, 0, 0], "include": []}

    def groups(**options: Any) -> list[tuple[str, Any]]:
        answer = client.post(f"{path}/query", json=query | options).raise_for_status().json()
        return [(one["id"], one.get("group")) for one in answer["results"]]

    alone = [("5", None), ("6", None), ("7", None)]
    assert groups(group_by="\\document") == [("0", "x"), ("1", 1), ("4", True), *alone, ("8", "1"), ("bare", None)]
    assert groups(group_by="\\document", group_size=2, k=2) == [("0", "x"), ("2", "x"), ("1", 1), ("3", 1)]
    assert groups(group_by="a.b\\.c") == [("0", 0), ("1", 1), ("bare", None)]
    assert groups(group_by="@document.by", k=3) == [("0", "me"), ("4", None), ("5", None)]
    for document in ("document", "@document_id"):
        assert groups(group_by=document, k=2) == [("0", None), ("4", None)]
        assert "group" not in client.post(f"{path}/query", json=query | {"group_by": document}).json()["results"][0]


def test_diverse_results_are_unlike_one_another(client: httpx.Client, library: str) -> None:
    path = f"/libraries/{library}"
    vectors = {"best": [1, 0.1, 0], "copy": [1, 0.1, 0.001], "twin": [1, 0.1, 0.002], "other": [1, -0.5, 0.3]}
    chunks = [{"id": key, "embedding": vector} for key, vector in vectors.items()]
    client.post(f"{path}/chunks", json={"chunks": chunks}).raise_for_status()
    query = {"vector": [1, 0.1, 0], "k": 2, "include": []}
    assert ids(client, path, **query) == ["best", "copy"]
    assert ids(client, path, **query, mmr={"lambda": 0.3}) == ["best", "other"]
    assert ids(client, path, **query, mmr={"lambda": 1}) == ["best", "copy"]
    assert ids(client, path, **query | {"offset": 1, "k": 1}, mmr={"lambda": 0.3}) == ["other"]


def test_diverse_results_are_chosen_from_k_at_least_and_the_others_follow(client: httpx.Client, library: str) -> None:
    path = f"/libraries/{library}"
    chunks = [{"id": f"{i}", "embedding": [1, i / 50, (i % 3) / 20]} for i in range(12)]
    client.post(f"{path}/chunks", json={"chunks": chunks}).raise_for_status()
    query = {"vector": [1, 0, 0], "include": []}
    plain = ids(client, path, **query, k=12)
    few, more = {"lambda": 0.1, "fetch_k": 2}, {"lambda": 0.1, "fetch_k": 8}
    assert ids(client, path, **query, k=8, mmr=few) == ids(client, path, **query, k=8, mmr=more)
    diverse = ids(client, path, **query, k=4, mmr=few)
    assert diverse != plain[:4]
    assert set(diverse) == set(plain[:4])
    pages = [ids(client, path, **query, k=4, offset=offset, mmr=few) for offset in (0, 4, 8, 2)]
    assert pages == [diverse, plain[4:8], plain[8:], [*diverse[2:], *plain[4:6]]]
