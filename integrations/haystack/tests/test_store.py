"""What the suites do not ask: all that a document has comes back, policies within one call, searching, pipelines."""

import asyncio
from typing import Any

import pytest
from haystack import Pipeline
from haystack.components.writers import DocumentWriter
from haystack.dataclasses import ByteStream, Document, SparseEmbedding
from haystack.document_stores.errors import DuplicateDocumentError
from haystack.document_stores.types import DuplicatePolicy
from haystack.utils import Secret
from vectordb_client import Client

from haystack_integrations.components.retrievers.vectordb import (
    VectorDBBM25Retriever,
    VectorDBEmbeddingRetriever,
    VectorDBHybridRetriever,
)
from haystack_integrations.document_stores.vectordb import VectorDBDocumentStore

APPLE = Document(id="apple", content="An apple a day", meta={"year": 1866}, embedding=[1.0, 0.0])
ROSE = Document(id="rose", content="A rose is a rose", meta={"year": 1913}, embedding=[0.0, 1.0])
PEAR = Document(id="pear", content="A partridge in a pear tree", meta={"year": 1780})


@pytest.fixture
def fruit(store: VectorDBDocumentStore) -> VectorDBDocumentStore:
    store.write_documents([APPLE, ROSE, PEAR])
    return store


def ids(answer: dict[str, Any]) -> list[str]:
    return [document.id for document in answer["documents"]]


def test_all_that_a_document_has_comes_back(store: VectorDBDocumentStore) -> None:
    documents = [
        Document(content="", meta={"a": {"b": [1, None, "ü"]}, "@type": "x"}),
        Document(blob=ByteStream(b"\x00\xff", {"page": 1}, "image/png")),
        Document(content="text", sparse_embedding=SparseEmbedding([1, 7], [0.5, 0.25]), embedding=[0.5, 0.25]),
    ]
    store.write_documents(documents)
    assert store.filter_documents() == documents
    assert set(store.get_metadata_fields_info()) == {"a.b", "\\@type"}
    store.update_by_filter({"field": "meta.@type", "operator": "==", "value": "x"}, {"c": 1})
    assert store.filter_documents()[0].meta == {**documents[0].meta, "c": 1}


def test_a_document_of_the_server_is_shown_and_can_be_filtered_by(store: VectorDBDocumentStore) -> None:
    assert store.count_documents() == 0
    with Client() as client:
        client.library(store.library).documents.put(
            "poem", chunks=[{"id": "p-1", "text": "A rose"}], title="Sacred Emily", metadata={"topic": "flower"}
        )
    [found] = store.filter_documents({"field": "meta.@document.metadata.topic", "operator": "==", "value": "flower"})
    parent = {"id": "poem", "title": "Sacred Emily", "source": "", "metadata": {"topic": "flower"}}
    assert found.meta == {"@document": parent}
    store.write_documents([Document(id="p-2", content="is a rose", meta={"@document": {"id": "poem"}})])
    of_poem = {"field": "meta.@document.id", "operator": "==", "value": "poem"}
    assert store.count_documents_by_filter(of_poem) == 2
    with pytest.raises(ValueError, match="'@document' of meta cannot be set"):
        store.update_by_filter(of_poem, {"@document": {"id": "another"}})
    with pytest.raises(ValueError, match="is a dict with the id of a document"):
        store.write_documents([Document(content="x", meta={"@document": "poem"})])


def test_policies_hold_within_one_call_and_between_batches(store: VectorDBDocumentStore) -> None:
    first, last = Document(id="1", content="first"), Document(id="1", content="last")
    with pytest.raises(DuplicateDocumentError, match="nothing was written"):
        store.write_documents([first, last])
    assert store.write_documents([first, last], DuplicatePolicy.SKIP) == 1
    assert [document.content for document in store.filter_documents()] == ["first"]
    assert store.write_documents([first, last], DuplicatePolicy.OVERWRITE) == 2
    assert [document.content for document in store.filter_documents()] == ["last"]

    many = [Document(id=str(i), content="many") for i in range(1001)]
    with pytest.raises(DuplicateDocumentError, match=r"with these ids already: 1$"):
        store.write_documents(many)
    assert store.write_documents(many, DuplicatePolicy.SKIP) == 1000
    assert store.write_documents([], DuplicatePolicy.OVERWRITE) == 0


def test_retrievers_find_by_vectors_by_words_and_by_both(fruit: VectorDBDocumentStore) -> None:
    by_vector = VectorDBEmbeddingRetriever(fruit).run([0.6, 0.8])
    assert [(found.id, found.score, found.embedding) for found in by_vector["documents"]] == [
        ("rose", pytest.approx(0.8), None),
        ("apple", pytest.approx(0.6), None),
    ]
    assert ids(VectorDBBM25Retriever(fruit).run("pear rose")) == ["rose", "pear"]
    words = VectorDBHybridRetriever(fruit, hybrid={"lexical_weight": 5}, return_embedding=True)
    found = words.run("pear", query_embedding=[1.0, 0.0], top_k=2)
    assert ids(found) == ["pear", "apple"]
    assert found["documents"][1].embedding == [1.0, 0.0]
    with pytest.raises(ValueError, match="top_k must be greater than 0"):
        words.run("pear", top_k=0)


@pytest.mark.parametrize(("policy", "expected"), [("replace", ["rose", "apple"]), ("merge", ["apple"])])
def test_filters_of_a_run_replace_or_join_those_of_the_retriever(
    fruit: VectorDBDocumentStore, policy: str, expected: list[str]
) -> None:
    before = {"field": "meta.year", "operator": "<", "value": 1900}
    after = {"field": "meta.name", "operator": "==", "value": None}
    retriever = VectorDBBM25Retriever(fruit, filters=before, filter_policy=policy)
    assert ids(retriever.run("apple rose")) == ["apple"]
    assert ids(retriever.run("apple rose", filters=after)) == expected


def test_async_retrievers_work_in_one_event_loop_after_another(fruit: VectorDBDocumentStore) -> None:
    async def search() -> list[list[str]]:
        found = [
            ids(await VectorDBEmbeddingRetriever(fruit, top_k=1).run_async([0.6, 0.8])),
            ids(await VectorDBBM25Retriever(fruit).run_async("pear")),
            ids(await VectorDBHybridRetriever(fruit, top_k=1).run_async("apple", [1.0, 0.0])),
        ]
        await fruit.close_async()
        return found

    for _ in range(2):
        assert asyncio.run(search()) == [["rose"], ["pear"], ["apple"]]


def test_a_saved_pipeline_names_no_key_and_works_again(
    fruit: VectorDBDocumentStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = Pipeline()
    pipeline.add_component("writer", DocumentWriter(fruit, DuplicatePolicy.OVERWRITE))
    pipeline.add_component("retriever", VectorDBHybridRetriever(fruit, top_k=1, hybrid={"rrf_k": 10}))
    saved = pipeline.dumps()
    loaded = Pipeline.loads(saved)
    assert loaded.dumps() == saved
    answer = loaded.run(
        {"writer": {"documents": [PEAR]}, "retriever": {"query": "rose", "query_embedding": [0.0, 1.0]}}
    )
    assert (answer["writer"], ids(answer["retriever"])) == ({"documents_written": 1}, ["rose"])
    loaded.get_component("retriever").close()
    loaded.get_component("writer").close()

    with pytest.raises(ValueError, match="Cannot serialize token-based secret"):
        VectorDBDocumentStore(api_key=Secret.from_token("secret")).to_dict()
    with pytest.raises(TypeError, match="document_store is a VectorDBDocumentStore, not str"):
        VectorDBBM25Retriever("notes")  # type: ignore[arg-type]
