"""What LangChain's own tests do not look at, for the sync and the async methods."""

import asyncio
import gc
import json
import math
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.indexing import InMemoryRecordManager, index
from langchain_core.language_models.fake_chat_models import FakeListChatModel
from langchain_core.structured_query import Comparator, Comparison, Operation, Operator
from vectordb_client import Conflict, F, NotFound

from langchain_vectordb import VectorDBRetriever, VectorDBTranslator, VectorDBVectorStore

MakeStore = Callable[..., VectorDBVectorStore]
Call = Callable[..., Awaitable[Any]]


class Angles(Embeddings):
    """Texts that begin with an angle in degrees, as vectors of length 1."""

    def embed_query(self, text: str) -> list[float]:
        angle = math.radians(float(text.split()[0]))
        return [math.cos(angle), math.sin(angle)]

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [self.embed_query(text) for text in texts]


DOCUMENTS = [
    Document("0 apple", id="apple", metadata={"kind": "fruit", "year": 1900, "book": "one"}),
    Document("10 pear", id="pear", metadata={"kind": "fruit", "year": 1950, "book": "two"}),
    Document("60 bird", id="bird", metadata={"kind": "animal", "year": 2000, "seen": "2024-05-01", "book": "two"}),
    Document("180 stone", id="stone", metadata={"tags": ["grey", "hard"]}),
]


@pytest_asyncio.fixture(params=["sync", "async"])
async def call(request: pytest.FixtureRequest) -> Call:
    """Calls a method of a store by its name, or its async twin."""

    async def method(store: VectorDBVectorStore, name: str, *args: Any, **kwargs: Any) -> Any:
        if request.param == "async":
            return await getattr(store, f"a{name}")(*args, **kwargs)
        return getattr(store, name)(*args, **kwargs)

    return method


def ids(documents: list[Document]) -> list[str | None]:
    return [document.id for document in documents]


@pytest.mark.parametrize(
    ("filter", "found"),
    [
        ({"kind": "fruit", "year": {"$gt": 1920}}, {"pear"}),
        ((F("year") >= 1950) & ~(F("kind") == "animal"), {"pear"}),
        (Comparison(comparator=Comparator.EQ, attribute="kind", value="fruit"), {"apple", "pear"}),
        (Comparison(comparator=Comparator.NE, attribute="kind", value="fruit"), {"bird", "stone"}),
        (Comparison(comparator=Comparator.IN, attribute="year", value=[1900, 2000]), {"apple", "bird"}),
        (Comparison(comparator=Comparator.NIN, attribute="year", value=[1900, 2000]), {"pear", "stone"}),
        (Comparison(comparator=Comparator.LTE, attribute="year", value=1950), {"apple", "pear"}),
        (Comparison(comparator=Comparator.CONTAIN, attribute="tags", value="grey"), {"stone"}),
        (Comparison(comparator=Comparator.LIKE, attribute="kind", value="fr%"), {"apple", "pear"}),
        (Comparison(comparator=Comparator.LIKE, attribute="kind", value="%nim%"), {"bird"}),
        (
            Comparison(comparator=Comparator.GT, attribute="seen", value={"date": "2024-04-30", "type": "date"}),
            {"bird"},
        ),
        (
            Operation(
                operator=Operator.NOT,
                arguments=[
                    Operation(
                        operator=Operator.OR,
                        arguments=[
                            Comparison(comparator=Comparator.GTE, attribute="year", value=2000),
                            Comparison(comparator=Comparator.LT, attribute="year", value=1950),
                        ],
                    )
                ],
            ),
            {"pear", "stone"},
        ),
    ],
)
def test_filters_are_dicts_expressions_or_langchains_own(
    filled: VectorDBVectorStore, filter: Any, found: set[str]
) -> None:
    assert set(ids(filled.similarity_search("0", k=9, filter=filter))) == found


@pytest.fixture(scope="module")
def filled() -> Any:
    store = VectorDBVectorStore(Angles(), "langchain-filters")
    store.add_documents(DOCUMENTS)
    yield store
    store._client.libraries.delete(store.library_id)  # type: ignore[union-attr]
    store.close()


def test_a_pattern_that_the_server_has_no_operator_for_is_refused() -> None:
    with pytest.raises(ValueError, match="takes part% or %part%, not '%end'"):
        Comparison(comparator=Comparator.LIKE, attribute="kind", value="%end").accept(VectorDBTranslator())


async def test_searches_by_words_by_both_by_vector_and_by_diversity(make_store: MakeStore, call: Call) -> None:
    store = make_store(Angles())
    await call(store, "add_documents", DOCUMENTS)
    assert ids(await call(store, "similarity_search", "170", k=1)) == ["stone"]
    assert ids(await call(store, "similarity_search", "170 pear", mode="lexical")) == ["pear"]
    hybrid = {"vector_weight": 1, "lexical_weight": 3}
    assert ids(await call(store, "similarity_search", "170 pear", k=2, mode="hybrid", hybrid=hybrid)) == [
        "pear",
        "stone",
    ]
    assert ids(await call(store, "similarity_search_by_vector", [0.0, 1.0], k=1)) == ["bird"]
    assert ids(await call(store, "max_marginal_relevance_search", "1", k=2, lambda_mult=0.3)) == ["apple", "stone"]
    vector = Angles().embed_query("1")
    assert ids(await call(store, "max_marginal_relevance_search_by_vector", vector, k=2, fetch_k=2)) == [
        "apple",
        "pear",
    ]
    [document] = await call(store, "search", "9", "similarity", k=1)
    assert document == DOCUMENTS[1]
    # A query of a filter alone.
    for kind in ("similarity", "mmr"):
        assert ids(await call(store, "search", " ", kind, k=1, filter={"kind": "fruit"})) == ["apple"]


@pytest.mark.parametrize(
    ("metric", "mode", "expected"),
    [
        ("cosine", "vector", [1, 0.985, 0.5, 0]),
        ("dot", "vector", [1, 0.985, 0.5, 0]),
        ("euclidean", "vector", [1, 0.852, 0.5, 0.333]),
        ("cosine", "hybrid", [1, 0.492, 0.484, 0.477]),
    ],
)
async def test_relevance_is_from_0_to_1(
    make_store: MakeStore, call: Call, metric: str, mode: str, expected: list[float]
) -> None:
    store = make_store(Angles(), mode=mode, library_options={"metric": metric})
    await call(store, "add_documents", DOCUMENTS)
    found = await call(store, "similarity_search_with_relevance_scores", "0 apple", k=4)
    assert [document.id for document, _ in found] == ["apple", "pear", "bird", "stone"]
    assert [score for _, score in found] == pytest.approx(expected, abs=0.001)
    above = await call(store, "similarity_search_with_relevance_scores", "0 apple", score_threshold=0.49)
    assert {document.id for document, _ in above} == {document.id for (document, score) in found if score >= 0.49}


async def test_documents_are_updated_and_deleted(make_store: MakeStore, call: Call) -> None:
    store = make_store(Angles(), batch_size=3)
    assert await call(store, "add_documents", DOCUMENTS) == ids(DOCUMENTS)
    await call(store, "update_documents", ["pear"], [Document("90 plum", metadata={"kind": "fruit"})])
    assert ids(await call(store, "similarity_search", "90", k=1)) == ["pear"]
    with pytest.raises(NotFound):
        await call(store, "update_documents", ["nothing"], [Document("90 plum")])
    await call(store, "delete", filter=F("kind") == "fruit")
    assert set(ids(await call(store, "similarity_search", "0"))) == {"bird", "stone"}
    await call(store, "delete")
    assert store.library.count() == 0
    with pytest.raises(ValueError, match="metadatas: 1 for 2 texts"):
        await call(store, "add_texts", ["1", "2"], [{}])


async def test_chunks_belong_to_documents_and_show_their_metadata(make_store: MakeStore, call: Call) -> None:
    store = make_store(Angles(), document_id_key="book")
    await call(store, "add_documents", DOCUMENTS)
    store.library.documents.update("two", title="Second", metadata={"shelf": 2, "kind": "book"})
    include = ["text", "metadata", "document"]
    found = await call(store, "similarity_search", "20", group_by="document", include=include)
    assert ids(found) == ["pear", "apple", "stone"]
    assert found[0].metadata == {"document_id": "two", "title": "Second", "shelf": 2} | DOCUMENTS[1].metadata
    assert ids(await call(store, "similarity_search", "0", filter=F("@document.shelf") == 2)) == ["pear", "bird"]


async def test_a_library_must_be_as_expected(make_store: MakeStore, call: Call) -> None:
    store = make_store(Angles())
    await call(store, "add_texts", ["0"])
    other = make_store(library=store.library_id, library_options={"metric": "dot"})
    with pytest.raises(Conflict, match="metric='cosine', not 'dot'"):
        await call(other, "similarity_search", "0")
    absent = make_store(library="nothing-of-this-name", create_library=False)
    with pytest.raises(NotFound):
        await call(absent, "similarity_search", "0")


# What a loop leaves open when it ends can be closed by nobody else.
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_store_is_used_in_one_event_loop_after_another() -> None:
    store = VectorDBVectorStore(Angles(), "langchain-loops")
    assert asyncio.run(store.aadd_texts(["0 a"], ids=["a"])) == ["a"]
    assert ids(asyncio.run(store.asimilarity_search("0"))) == ["a"]
    assert ids(asyncio.run(VectorDBRetriever(vectorstore=store, score_key="score").ainvoke("0"))) == ["a"]
    store._client.libraries.delete(store.library_id)  # type: ignore[union-attr]
    asyncio.run(store.aclose())
    del store
    gc.collect()


def test_langchains_indexing_writes_what_changed_and_deletes_what_is_gone(make_store: MakeStore) -> None:
    store, records = make_store(Angles()), InMemoryRecordManager("test")
    records.create_schema()

    def sync(documents: list[Document]) -> tuple[int, int, int]:
        done = index(documents, records, store, cleanup="full", key_encoder="sha256")
        return done["num_added"], done["num_skipped"], done["num_deleted"]

    assert sync(DOCUMENTS[:3]) == (3, 0, 0)
    assert sync(DOCUMENTS[1:]) == (1, 2, 1)
    assert store.library.count() == 3


def test_the_readme() -> None:
    text = (Path(__file__).parent.parent / "README.md").read_text()
    code, self_querying = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    names: dict[str, Any] = {}
    exec(code, names)
    assert [one.id for one in names["store"].similarity_search("anything")] == ["apple"]
    said = [{"query": "", "filter": 'lt("year", 1900)'}, {"query": "fruit", "filter": 'eq("topic", "work")'}]
    names["llm"] = FakeListChatModel(responses=["```json\n" + json.dumps(one) + "\n```" for one in said])
    exec(self_querying, names)
    assert names["retriever"].invoke("What is about work?") == []
    assert [one.id for one in names["retriever"].invoke("What is old?")] == ["apple"]
    names["store"]._client.libraries.delete("proverbs")
    names["store"].close()
