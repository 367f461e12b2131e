"""Writes by text: what is embedded, what changes meanwhile, which models a library can have."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import orjson
import pytest
from django.db import connections
from django.http import HttpResponse
from django.test import Client
from pytest_django.fixtures import Settings

from apps.embeddings.config import Config
from tests.embeddings.service import Answer, Service, embedding_service

pytestmark = pytest.mark.django_db(transaction=True)

LIBRARIES = "/api/v1/libraries"
OWN = [7.0, 8.0, 9.0]


@pytest.fixture(autouse=True)
def _without_keys(settings: Settings) -> None:
    settings.AUTH = False


def send(method: str, path: str, body: Any) -> HttpResponse:
    return Client().generic(method, f"{LIBRARIES}{path}", orjson.dumps(body), "application/json")


def stored(chunk_id: str) -> tuple[str, list[float]]:
    """The text and the vector of a chunk."""
    chunk = Client().get(f"{LIBRARIES}/notes/chunks/{chunk_id}?include=text&include=embedding").json()
    return chunk["text"], chunk["embedding"]


def made(text: str) -> list[float]:
    """The vector that the service makes of a text."""
    return [float(len(text)), float(sum(text.encode())), 1.0]


def answer(body: dict[str, Any]) -> Answer:
    return Answer({"data": [{"index": i, "embedding": made(text)} for i, text in enumerate(body["input"])]})


@pytest.fixture
def service(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    """A service that embeds for the library `notes`. Its chunks `a`, `b` and `c`, which is blank, came with vectors."""
    with embedding_service(settings, monkeypatch, answer) as running:
        library = {"id": "notes", "name": "N", "embedding": {"provider": "openai", "model": "m"}}
        assert send("POST", "", library).status_code == 201
        chunks = [{"id": key, "text": text, "embedding": OWN} for key, text in (("a", "A"), ("b", "B"), ("c", ""))]
        assert send("POST", "/notes/chunks", {"chunks": chunks}).status_code == 200
        yield running


@pytest.mark.django_db(transaction=True, databases=["default", "snapshot"])
def test_a_library_keeps_its_model_when_the_servers_default_changes(settings: Settings) -> None:
    settings.EMBEDDINGS = Config(provider="hashing")
    assert send("POST", "", {"id": "old", "name": "Old"}).status_code == 201
    texts = ["An apple a day keeps the doctor away", "A rose is a rose", "Time flies like an arrow"]
    chunks = {"chunks": [{"id": str(n), "text": text} for n, text in enumerate(texts)]}
    assert send("POST", "/old/chunks", chunks).status_code == 200

    def results() -> list[dict[str, Any]]:
        query = {"text": "apples for the doctor", "include": ["text", "embedding"]}
        found: list[dict[str, Any]] = send("POST", "/old/query", query).json()["results"]
        return found

    before = results()
    assert (before[0]["id"], len(before), len(before[0]["embedding"])) == ("0", 3, 384)
    settings.EMBEDDINGS = Config()
    assert results() == before
    assert send("POST", "/old/chunks", {"chunks": [{"id": "3", "text": texts[0]}]}).status_code == 200
    assert [result["score"] for result in results()][:2] == [before[0]["score"]] * 2
    model = Client().get(f"{LIBRARIES}/old").json()["embedding"]
    assert model == {"provider": "hashing", "model": "hashing-384"}


def test_a_text_that_is_as_it_was_keeps_its_vector_and_costs_nothing(service: Service) -> None:
    for chunk_id, text in (("a", "A"), ("c", "")):
        for method, path, body in (
            ("PATCH", f"/notes/chunks/{chunk_id}", {"text": text, "metadata": {"n": 1}}),
            ("POST", "/notes/chunks", {"chunks": [{"id": chunk_id, "text": text}], "mode": "update"}),
        ):
            response = send(method, path, body)
            assert response.status_code == 200, response.content
        assert stored(chunk_id) == (text, OWN)
    assert service.asked == []
    changes = {"chunks": [{"id": "a", "text": "A"}, {"id": "b", "text": "other"}], "mode": "update"}
    assert send("POST", "/notes/chunks", changes).status_code == 200
    assert (stored("a"), stored("b")) == (("A", OWN), ("other", made("other")))
    assert [asked.body["input"] for asked in service.asked] == [["other"]]


@pytest.mark.django_db(transaction=True, databases=["default", "snapshot"])
def test_a_text_that_the_provider_refuses_is_named_and_left_out_where_that_is_asked_for(service: Service) -> None:
    def picky(body: dict[str, Any]) -> Answer:
        if any("too long" in text for text in body["input"]):
            return Answer({"error": {"message": "much too long"}}, 400)
        return answer(body)

    service.usual = picky
    chunks: list[dict[str, Any]] = [{"id": f"n{i}", "text": f"text {i}"} for i in range(40)]
    chunks[7] |= {"text": "too long"}
    chunks[31] |= {"text": "fine", "embed_text": "too long too"}
    chunks[33] |= {"text": "too long"}
    pointers = ["/chunks/7/text", "/chunks/31/embed_text", "/chunks/33/text"]
    response = send("POST", "/notes/chunks", {"chunks": chunks})
    assert (response.status_code, response.json()["code"]) == (400, "invalid")
    assert [error["pointer"] for error in response.json()["errors"]] == pointers
    assert "much too long" in response.json()["errors"][0]["detail"]
    assert send("POST", "/notes/chunks/count", {}).json() == {"count": 3}
    response = send("POST", "/notes/chunks", {"chunks": chunks, "on_invalid": "skip"})
    assert (response.status_code, response.json()["created"]) == (200, 37)
    assert [error["pointer"] for one in response.json()["skipped"] for error in one["errors"]] == pointers
    assert stored("n32") == ("text 32", made("text 32"))
    queries = [{"text": text} for text in ("one", "too long", "two", "too long")]
    response = send("POST", "/notes/query/batch", {"queries": queries})
    assert [error["pointer"] for error in response.json()["errors"]] == ["/queries/1/text", "/queries/3/text"]
    assert send("POST", "/notes/query", queries[1]).json()["errors"][0]["pointer"] == "/text"


def test_texts_that_the_provider_refuses_only_together_are_none_of_a_chunk(service: Service) -> None:
    def few(body: dict[str, Any]) -> Answer:
        return answer(body) if len(body["input"]) < 3 else Answer({"error": {"message": "too many"}}, 400)

    service.usual = few
    body = {"chunks": [{"text": f"text {i}"} for i in range(4)], "on_invalid": "skip"}
    response = send("POST", "/notes/chunks", body)
    assert (response.status_code, response.json()["code"]) == (400, "invalid")
    assert "too many" in response.json()["detail"]


def test_a_text_that_becomes_blank_is_refused(service: Service) -> None:
    response = send("PATCH", "/notes/chunks/a", {"text": " "})
    assert (response.status_code, response.json()["errors"][0]["pointer"]) == (400, "/text")


@pytest.mark.parametrize("text", ["", "new"])
def test_what_is_not_there_to_be_changed_is_404(service: Service, text: str) -> None:
    assert send("PATCH", "/notes/chunks/absent", {"text": text}).status_code == 404
    chunks = [{"id": "a", "text": "A"}, {"id": "absent", "text": text}]
    response = send("POST", "/notes/chunks", {"chunks": chunks, "mode": "update"})
    assert (response.status_code, response.json()["errors"][0]["pointer"]) == (404, "/chunks/1/id")
    assert service.asked == []


def test_a_text_that_changes_while_others_are_embedded_is_embedded_too(service: Service) -> None:
    """Else the text of the request would stand beside the vector of the other one."""

    def change() -> None:
        try:
            assert send("PATCH", "/notes/chunks/b", {"text": "meanwhile"}).status_code == 200
        finally:
            connections.close_all()

    def change_then_answer(body: dict[str, Any]) -> Answer:
        service.usual = answer
        with ThreadPoolExecutor(1) as pool:
            pool.submit(change).result()
        return answer(body)

    service.usual = change_then_answer
    changes = {"chunks": [{"id": "a", "text": "other"}, {"id": "b", "text": "B"}], "mode": "update"}
    assert send("POST", "/notes/chunks", changes).status_code == 200
    assert (stored("a"), stored("b")) == (("other", made("other")), ("B", made("B")))
    assert [asked.body["input"] for asked in service.asked] == [["other"], ["meanwhile"], ["other", "B"]]


LONG, SHORT = {"provider": "hashing", "model": "hashing-384"}, {"provider": "hashing", "model": "hashing-64"}
TEXT = {"chunks": [{"text": "hello"}]}


@pytest.mark.parametrize(
    ("method", "path", "body", "pointer"),
    [
        ("POST", "/notes/chunks", TEXT, "/embedding"),
        ("POST", "/notes/chunks", TEXT | {"embedding": LONG}, "/embedding/model"),
        ("POST", "/notes/chunks", {"chunks": [{"embedding": [1, 2]}], "embedding": LONG}, "/embedding/model"),
        ("POST", "/notes/documents", TEXT, "/embedding"),
        ("PUT", "/notes/documents/d", {"text": "hello"}, "/embedding"),
        ("POST", "/notes/documents/batch", {"documents": [TEXT]}, "/embedding"),
        ("POST", "/notes/documents/batch", {"documents": [TEXT | {"embedding": LONG}]}, "/documents/0/embedding/model"),
        ("PATCH", "/notes", {"embedding": LONG}, "/embedding/model"),
        ("POST", "/notes/reembed", {"embedding": LONG}, "/embedding/model"),
        ("POST", "", {"name": "N", "embedding": LONG}, "/embedding/model"),
    ],
    ids=str,
)
def test_no_library_takes_a_model_whose_vectors_are_too_long(
    settings: Settings, method: str, path: str, body: dict[str, Any], pointer: str
) -> None:
    settings.LIMITS = replace(settings.LIMITS, dimension=100)
    assert send("POST", "", {"id": "notes", "name": "N"}).status_code == 201
    response = send(method, path, body)
    assert response.status_code == 400, response.content
    [error] = response.json()["errors"]
    assert error["pointer"] == pointer
    assert f"makes vectors of {256 if pointer == '/embedding' else 384} components" in error["detail"]
    assert "at most 100 (limit VECTORDB_MAX_DIMENSION)" in error["detail"]
    assert [library["dimension"] for library in Client().get(LIBRARIES).json()["items"]] == [None]
    assert send("POST", "/notes/chunks", TEXT | {"embedding": SHORT}).status_code == 200


def test_a_library_of_a_model_stays_as_it_is_when_the_limit_is_lowered(settings: Settings) -> None:
    library = {"id": "notes", "name": "N", "embedding": LONG}
    assert send("POST", "", library).status_code == 201
    settings.LIMITS = replace(settings.LIMITS, dimension=100)
    assert send("POST", "/notes/chunks", TEXT).status_code == 200
    assert send("PATCH", "/notes", {"embedding": LONG}).status_code == 200


def test_vectors_of_a_model_that_tells_its_dimension_late_are_refused_too(service: Service, settings: Settings) -> None:
    settings.LIMITS = replace(settings.LIMITS, dimension=2)
    library = {"id": "late", "name": "N", "embedding": {"provider": "openai", "model": "late"}}
    assert send("POST", "", library).status_code == 201
    response = send("POST", "/late/chunks", TEXT)
    assert response.status_code == 400
    assert "VECTORDB_MAX_DIMENSION" in response.json()["detail"]


@pytest.mark.django_db(transaction=True, databases=["default", "snapshot"])
def test_a_request_has_no_more_text_embedded_than_the_limit(settings: Settings, service: Service) -> None:
    settings.LIMITS = replace(settings.LIMITS, embedded_bytes=10)
    chunks = [
        {"id": "d", "text": "four"},
        {"id": "e", "text": "a" * 99, "embedding": OWN},
        {"id": "f", "text": "größe"},
    ]
    response = send("POST", "/notes/chunks", {"chunks": chunks})
    assert response.status_code == 400
    [fault] = orjson.loads(response.content)["errors"]
    assert fault["pointer"] == "/chunks/2/text"
    assert "10 bytes" in fault["detail"]
    assert "VECTORDB_MAX_EMBEDDED_BYTES" in fault["detail"]
    assert Client().get(f"{LIBRARIES}/notes/chunks/d").status_code == 404
    chunks[2]["text"] = "groß"
    assert send("POST", "/notes/chunks", {"chunks": chunks}).status_code == 200
