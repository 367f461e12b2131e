"""Moving a library to another embedding model, step by step: what is asked, what fails, what others do meanwhile."""

import itertools
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import orjson
import pytest
from django.db import connection, connections
from django.test import Client
from django.utils import timezone
from pytest_django.fixtures import Settings

from apps.embeddings import registry
from apps.embeddings.config import Config
from apps.embeddings.services import embed, query_embedder
from apps.indexing.reembedder import Reembedder, ReembeddingPolicy
from apps.libraries.models import Change, Chunk, Embedding, Library, Reembedding, text_to_embed
from apps.libraries.services.reembedding import WHITE_SPACE
from tests.embeddings.service import Answer, Service

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "snapshot"])

PATH = "/api/v1/libraries/notes"
OLD, NEW = {"provider": "hashing", "model": "hashing-64"}, {"provider": "hashing", "model": "hashing-128"}
SERVED = {"provider": "openai", "model": "served"}
# So that 30 chunks take some steps.
SMALL_PAGES = ReembeddingPolicy(page_size=4, sweep_size=7)


class Api:
    """A client of the library `notes`; each method raises AssertionError for another status than the one expected."""

    def __init__(self) -> None:
        self._client = Client()

    def ask(self, method: str, path: str = "", body: Any = None, status: int = 200) -> Any:
        sent = b"" if body is None else orjson.dumps(body)
        answer = self._client.generic(method, f"{PATH}{path}", sent, "application/json")
        assert answer.status_code == status, answer.content
        return answer.json() if answer.content else None

    def write(self, *ids: str, suffix: str = "") -> None:
        chunks = [{"id": chunk_id, "text": text_of(chunk_id) + suffix} for chunk_id in ids]
        self.ask("POST", "/chunks", {"chunks": chunks})

    def reembed(self, embedding: dict[str, str] = NEW, status: int = 202) -> Any:
        return self.ask("POST", "/reembed", {"embedding": embedding}, status)

    def state(self) -> Any:
        return self.ask("GET", "/stats")["reembedding"]

    def model(self) -> Any:
        return self.ask("GET")["embedding"]


def text_of(chunk_id: str) -> str:
    return f"The text of {chunk_id}, number {sum(map(ord, chunk_id))}"


@pytest.fixture
def api(settings: Settings) -> Api:
    """A library of 30 chunks with vectors of 64 components, on a server that asks for no keys."""
    settings.AUTH = False
    api = Api()
    created = Client().post("/api/v1/libraries", {"id": "notes", "name": "N", "embedding": OLD}, "application/json")
    assert created.status_code == 201
    api.write(*map(str, range(30)))
    return api


@pytest.fixture
def served(service: Service, settings: Settings) -> Iterator[Service]:
    """A service whose vectors have three components."""
    settings.EMBEDDINGS = Config(first_wait=0.001, openai_base_url=f"{service.url}/v1", openai_api_key="k")
    service.usual = lambda body: vectors_of(body["input"])
    yield service
    registry.forget()
    query_embedder.cache_clear()


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with Service() as running:
        yield running


def served_vector(text: str) -> list[float]:
    return [float(len(text)), float(sum(text.encode()) % 97), -1.5]


def vectors_of(texts: list[str]) -> Answer:
    data = [{"object": "embedding", "index": i, "embedding": served_vector(text)} for i, text in enumerate(texts)]
    return Answer({"object": "list", "data": data, "model": "served", "usage": {"prompt_tokens": 1, "total_tokens": 1}})


def steps(policy: ReembeddingPolicy = SMALL_PAGES) -> Iterator[None]:
    """The work on the library, step by step."""
    return Reembedder(policy).steps(Library.objects.get().pk)


def test_who_is_asked_to_stop_does_so_between_two_steps(api: Api) -> None:
    api.reembed()
    asked = iter([False, True])
    assert not Reembedder(SMALL_PAGES).run(lambda: next(asked))
    assert (api.state()["state"], api.state()["embedded"]) == ("running", 8)
    assert Reembedder(SMALL_PAGES).run()
    assert (api.state(), api.model()) == (None, NEW)


def assert_moved(api: Api, embedding: dict[str, str] = NEW) -> None:
    """The library is `embedding`'s: each chunk has its vector of the text, and no other, and queries find it by it."""
    assert api.model() == embedding
    assert api.state() is None
    assert not Reembedding.objects.exists()
    library = Library.objects.get()
    assert set(Embedding.objects.values_list("generation", flat=True)) <= {library.generation}
    texts = {chunk.pk: text_to_embed(chunk.text, chunk.embed_text) for chunk in Chunk.objects.all()}
    stored = dict(Embedding.objects.values_list("chunk_id", "vector"))
    expected = embed(*embedding.values(), list(texts.values()), "document")
    assert {key: bytes(vector) for key, vector in stored.items()} == {
        key: vector.tobytes() for key, vector in zip(texts, expected, strict=True)
    }
    assert library.dimension == expected.shape[1]
    for chunk in itertools.islice(Chunk.objects.all(), 3):
        found = api.ask("POST", "/query", {"text": texts[chunk.pk], "k": 1})["results"][0]
        assert found["text"] == chunk.text
        assert found["score"] == pytest.approx(1, abs=1e-6)


def test_a_library_is_moved_while_queries_go_on_with_the_old_vectors(api: Api) -> None:
    before = api.ask("POST", "/query", {"text": text_of("7"), "include": ["embedding"]})
    began = api.reembed()
    assert (began["state"], began["embedded"], began["chunks"], began["error"]) == ("running", 0, 30, None)
    assert {name: began[name] for name in NEW} == NEW
    seen = []
    for _ in steps():
        state = api.state()
        if state is None:
            break
        seen.append(state["embedded"])
        assert state == api.ask("GET", "/reembed")
        now = api.ask("POST", "/query", {"text": text_of("7"), "include": ["embedding"]})
        assert now["results"] == before["results"]
        assert now["meta"]["revision"] == before["meta"]["revision"]
        assert api.model() == OLD
    assert seen == sorted(set(seen))
    assert seen[0] > 0
    Reembedder(SMALL_PAGES).run()
    assert_moved(api)
    after = api.ask("POST", "/query", {"text": text_of("7"), "include": ["embedding"]})
    assert len(after["results"][0]["embedding"]) == 128
    assert after["meta"]["revision"] > before["meta"]["revision"]
    refused = api.ask("POST", "/query", {"vector": [1.0] * 64}, 400)
    assert refused["errors"] == [
        {"pointer": "/vector", "detail": "has 64 components, but the library's dimension is 128"}
    ]


def test_what_is_made_beside_is_not_logged(api: Api) -> None:
    log = Change.objects.exclude(library_key=0)
    before = log.count()
    api.reembed()
    for _ in steps():
        if api.state() is None:
            break
        assert log.count() == before
    Reembedder(SMALL_PAGES).run()
    assert_moved(api)
    assert log.count() == before + 1


def test_the_same_model_makes_all_vectors_anew(api: Api) -> None:
    Embedding.objects.update(vector=np.ones(64, "<f4").tobytes())
    api.reembed(OLD)
    Reembedder().run()
    assert_moved(api, OLD)
    assert Library.objects.get().generation == 2


def test_a_library_that_was_given_its_vectors_gets_a_model(api: Api) -> None:
    Library.objects.update(embedding_provider="", embedding_model="")
    api.ask("POST", "/query", {"text": "a"}, 400)
    api.reembed()
    Reembedder().run()
    assert_moved(api)


@pytest.mark.parametrize("dimension", [None, 3])
def test_an_empty_library_just_gets_the_model(api: Api, dimension: int | None) -> None:
    Library.objects.all().delete()
    Library.objects.create(public_id="notes", name="N", dimension=dimension)
    api.reembed()
    Reembedder().run()
    assert_moved(api)
    api.write("first")
    assert_moved(api)


def test_without_a_move_there_is_none_to_see_or_to_call_off(api: Api) -> None:
    for method in ("GET", "DELETE"):
        detail = api.ask(method, "/reembed", status=404)["detail"]
        assert detail == "The library 'notes' is not being moved to another embedding model."
    api.reembed()
    Reembedder().run()
    for method in ("GET", "DELETE"):
        api.ask(method, "/reembed", status=404)


@pytest.mark.parametrize(
    ("embedding", "pointer"),
    [
        ({"provider": "oracle", "model": "m"}, "/embedding/provider"),
        ({"provider": "hashing", "model": "m"}, "/embedding/model"),
        ({"provider": "hashing"}, "/embedding/model"),
        (None, "/embedding"),
    ],
)
def test_a_model_that_cannot_be_used_is_refused(api: Api, embedding: Any, pointer: str) -> None:
    assert api.reembed(embedding, 400)["errors"][0]["pointer"] == pointer
    assert not Reembedding.objects.exists()


def test_chunks_whose_text_is_blank_have_no_vector_afterwards(api: Api) -> None:
    assert sorted(WHITE_SPACE) == [char for char in map(chr, range(0x110000)) if char.isspace()]
    vector = {"embedding": [1.0] * 64}
    chunks = [{"id": "none", **vector}, {"id": "white", "text": WHITE_SPACE, **vector}, {"id": "x", "text": " x"}]
    api.ask("POST", "/chunks", {"chunks": chunks})
    api.reembed()
    Reembedder().run()
    assert api.ask("GET", "/stats")["chunks_without_vector"] == 2
    for chunk_id in ("none", "white"):
        assert api.ask("GET", f"/chunks/{chunk_id}?include=embedding")["embedding"] is None
    api.ask("POST", "/chunks/delete", {"ids": ["none", "white"]})
    assert_moved(api)


def test_chunks_without_a_vector_get_one_of_the_new_model(api: Api) -> None:
    api.ask("POST", "/chunks", {"chunks": [{"id": "bare", "text": "bare", "embedding": None}]})
    api.reembed()
    api.ask("POST", "/chunks", {"chunks": [{"id": "late", "text": "late", "embedding": None}]})
    Reembedder().run()
    assert api.ask("GET", "/stats")["chunks_without_vector"] == 0
    assert_moved(api)


def test_another_model_has_to_wait(api: Api) -> None:
    began = api.reembed()
    next(steps())
    problem = api.reembed(OLD, 409)
    assert problem["code"] == "conflict"
    assert "being moved to hashing hashing-128; DELETE" in problem["detail"]
    again = api.reembed()
    assert again == began | {"embedded": 4}
    Reembedder(SMALL_PAGES).run()
    assert_moved(api)


def test_what_was_called_off_leaves_nothing(api: Api) -> None:
    api.reembed()
    working = steps()
    for _ in range(4):
        next(working)
    assert Embedding.objects.count() > 30
    api.ask("DELETE", "/reembed", status=204)
    assert api.state() is None
    for _ in working:
        pass
    assert_moved(api, OLD)
    assert Embedding.objects.count() == 30


def test_another_model_may_be_asked_for_while_the_rest_is_swept(api: Api) -> None:
    api.reembed()
    working = steps()
    for _ in range(5):
        next(working)
    api.ask("DELETE", "/reembed", status=204)
    next(working)
    other = {"provider": "hashing", "model": "hashing-96"}
    assert api.reembed(other)["embedded"] == 0
    for _ in range(3):
        next(working)
    api.ask("DELETE", "/reembed", status=204)
    api.reembed()
    for _ in working:
        pass
    assert_moved(api)


def test_vectors_that_somebody_wrote_do_not_pass_as_new(api: Api) -> None:
    chunk = Chunk.objects.first()
    Embedding.objects.create(chunk=chunk, generation=2, vector=bytes(512))
    api.reembed()
    Reembedder().run()
    assert_moved(api)


def test_what_changes_meanwhile_is_embedded_as_it_is_then(api: Api) -> None:
    api.reembed()
    working = steps()
    for _ in range(5):
        next(working)
    api.write("1", "25", suffix=" by the API")
    api.write("new-1", "new-2")
    api.ask("DELETE", "/chunks/2", status=204)
    api.ask("PATCH", "/chunks/3", {"metadata": {"n": 1}})
    api.ask("PUT", "/documents/d", {"chunks": [{"id": "in-d", "text": "In a document"}]}, 201)
    Chunk.objects.filter(public_id="4").update(text="by the ORM")
    api.ask("PATCH", "/chunks/8", {"embed_text": "Only for the model"})
    api.ask("PATCH", "/chunks/27", {"embed_text": "Only for the model, later"})
    Chunk.objects.filter(public_id__in=["0", "28"]).update(embed_text="For the model, by the ORM")
    Chunk.objects.filter(public_id="9").update(text="Shown", embed_text=text_of("9"))
    with connection.cursor() as cursor:
        cursor.execute("UPDATE vectordb_chunk SET text = 'by SQL' WHERE public_id IN ('5', '6', '26')")
        if connection.vendor == "sqlite":
            cursor.execute(
                "INSERT OR REPLACE INTO vectordb_chunk"
                " (id, library_id, public_id, text, metadata, created_at, updated_at)"
                " SELECT id, library_id, public_id, 'replaced', metadata, created_at, updated_at FROM vectordb_chunk"
                " WHERE public_id = '7'"
            )
    for _ in working:
        pass
    assert_moved(api)


def test_a_text_that_changes_while_it_is_embedded_is_embedded_again(api: Api, served: Service) -> None:
    def change_then_answer(body: dict[str, Any]) -> Answer:
        served.usual = lambda body: vectors_of(body["input"])
        with ThreadPoolExecutor(1) as pool:
            pool.submit(change).result()
        return vectors_of(body["input"])

    def change() -> None:
        try:
            api.write("3", suffix=" changed")
            api.ask("DELETE", "/chunks/4", status=204)
        finally:
            connections.close_all()

    served.usual = change_then_answer
    api.reembed(SERVED)
    Reembedder(SMALL_PAGES).run()
    assert_moved(api, SERVED)


def test_each_different_text_is_embedded_once(api: Api, served: Service) -> None:
    Chunk.objects.update(text="all the same")
    api.reembed(SERVED)
    Reembedder().run()
    assert [asked.body["input"] for asked in served.asked] == [["all the same"]]
    assert_moved(api, SERVED)


def test_writers_that_never_pause_do_not_keep_a_library_from_being_moved(api: Api) -> None:
    api.reembed()
    for number, _ in enumerate(steps()):
        if api.model() != OLD:
            break
        assert number < 40
        api.write(f"again-{number}", f"and-again-{number}")
    Reembedder(SMALL_PAGES).run()
    assert_moved(api)


def test_a_text_that_is_refused_is_named_and_the_rest_is_kept(api: Api, served: Service) -> None:
    def refuse_some(body: dict[str, Any]) -> Answer:
        if text_of("21") in body["input"]:
            return Answer({"error": {"message": "maximum context length is 8192 tokens"}}, 400)
        return vectors_of(body["input"])

    served.usual = refuse_some
    api.reembed(SERVED)
    Reembedder(SMALL_PAGES).run()
    state = api.state()
    assert state["state"] == "failed"
    assert state["embedded"] == 21
    assert "The text of chunk '21' is refused" in state["error"]
    assert "maximum context length" in state["error"]
    assert api.model() == OLD
    asked = len(served.asked)
    Reembedder(SMALL_PAGES).run()
    assert len(served.asked) == asked
    api.write("21", suffix=" in short")
    api.reembed(SERVED)
    assert api.state()["error"] is None
    served.asked.clear()
    Reembedder(SMALL_PAGES).run()
    assert sum(len(asked.body["input"]) for asked in served.asked) == 9
    assert_moved(api, SERVED)


def test_a_failure_that_may_pass_is_tried_again_after_a_minute(api: Api, served: Service) -> None:
    served.usual = lambda _: Answer({"error": {"message": "overloaded"}}, 503)
    api.reembed(SERVED)
    Reembedder().run()
    state = api.state()
    assert (state["state"], state["embedded"]) == ("waiting", 0)
    assert "overloaded" in state["error"]
    retry_at = Reembedding.objects.get().retry_at
    assert retry_at is not None
    assert 50 < (retry_at - timezone.now()).total_seconds() <= 60
    served.usual = lambda body: vectors_of(body["input"])
    served.asked.clear()
    Reembedder().run()
    assert not served.asked
    Reembedding.objects.update(retry_at=timezone.now())
    Reembedder().run()
    assert_moved(api, SERVED)


def test_who_asks_again_need_not_wait(api: Api, served: Service) -> None:
    served.usual = lambda _: Answer({"error": {"message": "overloaded"}}, 503)
    api.reembed(SERVED)
    Reembedder().run()
    assert api.state()["state"] == "waiting"
    served.usual = lambda body: vectors_of(body["input"])
    again = api.reembed(SERVED)
    assert (again["state"], again["error"]) == ("running", None)
    Reembedder().run()
    assert_moved(api, SERVED)


def test_a_provider_that_refuses_for_good_fails(api: Api, served: Service) -> None:
    served.usual = lambda _: Answer({"error": {"message": "Incorrect API key"}}, 401)
    api.reembed(SERVED)
    Reembedder().run()
    assert api.state()["state"] == "failed"
    assert api.ask("POST", "/query", {"text": text_of("7"), "k": 1})["results"][0]["id"] == "7"


def test_a_provider_that_manages_few_texts_at_once_gets_few(api: Api, served: Service) -> None:
    def slow(body: dict[str, Any]) -> Answer:
        return vectors_of(body["input"]) if len(body["input"]) <= 20 else Answer({}, 504)

    served.usual = slow
    api.reembed(SERVED)
    worker = Reembedder()
    for _ in range(4):
        worker.run()
        Reembedding.objects.update(retry_at=timezone.now())
        if api.state() is None:
            break
    served.usual = lambda body: vectors_of(body["input"])
    assert_moved(api, SERVED)


def test_vectors_of_another_dimension_than_before_are_told(api: Api, served: Service) -> None:
    api.reembed(SERVED)
    next(steps())
    registry.forget()
    data = [{"object": "embedding", "index": i, "embedding": [1.0, 2.0]} for i in range(4)]
    served.usual = lambda _: Answer({"object": "list", "data": data, "model": "served", "usage": {}})
    Reembedder(SMALL_PAGES).run()
    state = api.state()
    assert state["state"] == "failed"
    assert "2 components now, and had 3 before" in state["error"]


def test_a_library_that_is_deleted_takes_its_move_along(api: Api) -> None:
    api.reembed()
    working = steps()
    next(working)
    api.ask("DELETE", status=204)
    for _ in working:
        pass
    assert not Reembedding.objects.exists()
    assert not Embedding.objects.exists()


if connection.vendor == "postgresql":

    def test_of_several_hosts_one_works_on_a_library(api: Api) -> None:
        def as_another_host() -> int:
            try:
                return sum(1 for _ in steps())
            finally:
                connections.close_all()

        api.reembed()
        working = steps()
        next(working)
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(as_another_host).result() == 0
            assert api.state()["embedded"] == 4
            working.close()
            assert pool.submit(as_another_host).result() > 0
        assert_moved(api)


def test_queries_and_writes_by_text_know_nothing_of_the_switch(api: Api) -> None:
    """Each answer is wholly of one model, and none is an error, while the library moves to and fro."""
    over = threading.Event()

    def ask(number: int) -> int:
        mine, answers = Api(), 0
        try:
            while not over.is_set():
                text = text_of(str(number))
                many = {"queries": [{"text": text, "k": 3, "include": ["embedding"]}] * 2}
                for answer in mine.ask("POST", "/query/batch", many)["results"]:
                    sizes = {len(result["embedding"]) for result in answer["results"]}
                    assert len(sizes) == 1
                    assert answer["results"][0]["id"] == str(number)
                    assert answer["results"][0]["score"] == pytest.approx(1, abs=1e-6)
                answers += 1
        finally:
            connections.close_all()
        return answers

    def write(number: int) -> int:
        mine, written = Api(), 0
        try:
            while not over.is_set():
                mine.write(f"writer-{number}", suffix=str(written))
                written += 1
        finally:
            connections.close_all()
        return written

    with ThreadPoolExecutor(4) as pool:
        others = [pool.submit(work, number) for work in (ask, write) for number in (1, 2)]
        try:
            for turn in range(6):
                api.reembed((NEW, OLD)[turn % 2])
                while Reembedding.objects.exists():
                    Reembedder(SMALL_PAGES).run()
        finally:
            over.set()
        assert all(other.result() for other in others)
    assert_moved(api, OLD)
