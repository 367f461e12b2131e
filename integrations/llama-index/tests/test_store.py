"""The store as an index uses it, for the sync and the async methods."""

import os
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from llama_index.core import MockEmbedding, StorageContext, VectorStoreIndex
from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.schema import (
    BaseNode,
    Document,
    ImageNode,
    IndexNode,
    MediaResource,
    Node,
    NodeRelationship,
    RelatedNodeInfo,
    TextNode,
)
from llama_index.core.vector_stores.types import (
    MetadataFilter,
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryMode,
)
from vectordb_client import AsyncClient, Conflict, NotFound

from llama_index.vector_stores.vectordb import VectorDBVectorStore

MakeStore = Callable[..., VectorDBVectorStore]
Call = Callable[..., Awaitable[Any]]


def node(id: str, text: str, vector: list[float], document: str, **metadata: Any) -> TextNode:
    source = {NodeRelationship.SOURCE: RelatedNodeInfo(node_id=document, metadata={"lang": "en"})}
    return TextNode(id_=id, text=text, embedding=vector, metadata=metadata, relationships=source)


NODES = [
    node("apple", "An apple a day", [1.0, 0.0, 0.0], "proverbs", kind="fruit", author={"name": "Anne"}),
    node("pear", "A pear tree", [0.9, 0.1, 0.0], "songs", kind="fruit"),
    node("bird", "A bird in the hand", [0.0, 1.0, 0.0], "proverbs", kind="animal"),
    node("stone", "A rolling stone", [0.0, 0.0, 1.0], "songs"),
]
FRUIT = MetadataFilters(filters=[MetadataFilter(key="kind", value="fruit")])


@pytest_asyncio.fixture(params=["sync", "async"])
async def call(request: pytest.FixtureRequest) -> Call:
    """Calls a method of a store by its name, or its async twin."""

    async def method(store: VectorDBVectorStore, name: str, *args: Any, **kwargs: Any) -> Any:
        if request.param == "async":
            twin = "async_add" if name == "add" else f"a{name}"
            return await getattr(store, twin)(*args, **kwargs)
        return getattr(store, name)(*args, **kwargs)

    return method


def ids(nodes: list[BaseNode]) -> list[str]:
    return [one.node_id for one in nodes]


async def test_nodes_are_written_read_and_deleted(make_store: MakeStore, call: Call) -> None:
    store = make_store(batch_size=3)
    assert await call(store, "add", NODES) == ids(NODES)
    assert await call(store, "add", []) == []
    [pear, apple] = await call(store, "get_nodes", ["pear", "nothing", "apple"])
    assert apple == NODES[0].model_copy(update={"embedding": None})
    assert pear.source_node == NODES[1].source_node
    assert ids(await call(store, "get_nodes", ["bird", "pear"], FRUIT)) == ["pear"]
    assert ids(await call(store, "get_nodes")) == ids(NODES)

    await call(store, "delete_nodes")
    await call(store, "delete_nodes", ["bird", "pear"], FRUIT)
    assert ids(await call(store, "get_nodes")) == ["apple", "bird", "stone"]
    await call(store, "delete", "proverbs")
    await call(store, "delete_nodes", ["stone", "nothing"])
    assert await call(store, "get_nodes") == []
    await call(store, "add", NODES)
    await call(store, "delete_nodes", filters=FRUIT)
    assert store.client.count() == 2
    await call(store, "clear")
    assert store.client.count() == 0


Q = VectorStoreQuery
MODE = VectorStoreQueryMode
X = [1.0, 0.05, 0.0]


@pytest.mark.parametrize(
    ("query", "options", "found"),
    [
        (Q(query_embedding=X, similarity_top_k=2), {}, ["apple", "pear"]),
        (Q(query_embedding=X, similarity_top_k=9, filters=FRUIT), {}, ["apple", "pear"]),
        (Q(query_embedding=X, similarity_top_k=9, node_ids=["stone", "pear"]), {}, ["pear", "stone"]),
        (Q(query_embedding=X, similarity_top_k=9, doc_ids=["proverbs"]), {}, ["apple", "bird"]),
        (Q(query_embedding=X, similarity_top_k=9, doc_ids=["songs"], filters=FRUIT), {}, ["pear"]),
        (Q(query_str="a rolling stone", similarity_top_k=1, mode=MODE.TEXT_SEARCH), {}, ["stone"]),
        (Q(query_str="a bird", similarity_top_k=5, sparse_top_k=1, mode=MODE.SPARSE), {}, ["bird"]),
        (Q(query_embedding=X, query_str="stone", alpha=0.0, similarity_top_k=1, mode=MODE.HYBRID), {}, ["stone"]),
        (Q(query_embedding=X, query_str="stone", alpha=0.99, hybrid_top_k=1, mode=MODE.HYBRID), {}, ["apple"]),
        (Q(query_embedding=X, query_str="stone", hybrid_top_k=1, mode=MODE.HYBRID), {}, ["stone"]),
        (Q(query_embedding=X, similarity_top_k=2, mmr_threshold=0.2, mode=MODE.MMR), {}, ["apple", "bird"]),
        (Q(query_embedding=X, similarity_top_k=2, mode=MODE.MMR), {"mmr_threshold": 1.0}, ["apple", "pear"]),
        (
            Q(query_embedding=X, similarity_top_k=2, mmr_threshold=0.2, mode=MODE.MMR),
            {"mmr_prefetch_k": 2},
            ["apple", "pear"],
        ),
        (Q(query_embedding=X, similarity_top_k=2), {"group_by": "ref_doc_id"}, ["apple", "pear"]),
        (Q(query_embedding=X, similarity_top_k=1), {"boost": [{"filter": {"kind": "animal"}, "weight": 2}]}, ["bird"]),
    ],
)
async def test_a_query(filled: VectorDBVectorStore, query: Q, options: dict[str, Any], found: list[str]) -> None:
    async with AsyncClient() as client:
        twin = VectorDBVectorStore(filled.library, async_client=client)
        for result in (filled.query(query, **options), await twin.aquery(query, **options)):
            assert result.ids == ids(list(result.nodes or [])) == found
            assert len(result.similarities or []) == len(found)


def test_modes_that_need_another_engine_are_refused(filled: VectorDBVectorStore) -> None:
    with pytest.raises(ValueError, match="query mode svm is not supported; these are: default, mmr, hybrid"):
        filled.query(Q(query_embedding=X, mode=MODE.SVM))


@pytest.fixture(scope="module")
def filled() -> Any:
    store = VectorDBVectorStore("llama-index-queries")
    store.add(NODES)
    yield store
    store._client.libraries.delete(store.library)  # type: ignore[union-attr]
    store.close()


async def test_nodes_of_all_kinds_come_back(make_store: MakeStore) -> None:
    store = make_store()
    image = ImageNode(id_="image", image_url="https://example.com/a.png", metadata={"page": 1})
    reference = IndexNode(id_="reference", text="See there", index_id="there")
    media = Node(id_="media", text_resource=MediaResource(text="A caption"), image_resource=MediaResource(data=b"aGk="))
    nodes = [image, reference, media]
    store.add([one.model_copy(update={"embedding": [1.0, 0.0]}) for one in nodes])
    found = store.get_nodes(["image", "reference", "media"])
    assert [type(one) for one in found] == [ImageNode, IndexNode, Node]
    assert [one.model_dump() for one in found] == [one.model_dump() for one in nodes]
    assert store.client.describe().unindexed == ("_node_content",)


async def test_an_index_finds_text_nodes_beside_index_nodes(make_store: MakeStore) -> None:
    storage = StorageContext.from_defaults(vector_store=make_store())
    nodes = [TextNode(id_="text", text="A text"), IndexNode(id_="reference", text="See there", index_id="there")]
    retriever = VectorStoreIndex(nodes, storage_context=storage, embed_model=MockEmbedding(2)).as_retriever()
    assert {one.node_id for one in retriever.retrieve("any")} == {"text", "reference"}
    assert {one.node_id for one in await retriever.aretrieve("any")} == {"text", "reference"}


async def test_metadata_follow_the_server_and_chunks_of_others_are_nodes(make_store: MakeStore, call: Call) -> None:
    store = make_store()
    await call(store, "add", NODES[:1])
    store.client.update_metadata({"kind": "saying"}, ids=["apple"])
    chunk = {"id": "page", "text": "A page", "vector": [0.0, 1.0, 0.0]}
    store.client.documents.create("book", title="A book", metadata={"lang": "de"}, chunks=[chunk])
    query = Q(query_embedding=[0.0, 1.0, 0.0], similarity_top_k=2)
    page, apple = (await call(store, "query", query, include=["text", "metadata", "document"])).nodes
    assert (apple.metadata["kind"], apple.ref_doc_id) == ("saying", "proverbs")
    assert (page.text, page.ref_doc_id) == ("A page", "book")
    assert page.metadata == {"document_id": "book", "title": "A book", "lang": "de"}
    german = MetadataFilters(filters=[MetadataFilter(key="@document.lang", value="de")])
    assert ids(await call(store, "get_nodes", filters=german)) == ["page"]
    nested = MetadataFilters(filters=[MetadataFilter(key="author.name", value="Anne")])
    assert ids(await call(store, "get_nodes", filters=nested)) == ["apple"]
    await call(store, "delete", "book")
    assert ids(await call(store, "get_nodes")) == ["apple"]


async def test_the_server_embeds_nodes_and_queries(make_store: MakeStore, call: Call) -> None:
    store = make_store(server_embedding=True)
    first = Document(id_="d1", text="Nothing of note", metadata={"title": "Gardening and flowers"})
    second = Document(id_="d2", text="Nothing of note", metadata={"title": "Engines and gears"})
    storage = StorageContext.from_defaults(vector_store=store)
    index = VectorStoreIndex.from_documents([first, second], storage_context=storage, embed_model=MockEmbedding(1))
    retriever = index.as_retriever(similarity_top_k=1)
    assert retriever.retrieve("mechanical machines")[0].node.ref_doc_id == "d2"
    assert (await retriever.aretrieve("roses"))[0].node.ref_doc_id == "d1"
    await index.adelete_ref_doc("d1")
    assert [one.ref_doc_id for one in store.get_nodes()] == ["d2"]


async def test_a_pipeline_and_serialization(make_store: MakeStore) -> None:
    key = os.environ["VECTORDB_API_KEY"]
    store = make_store(api_key=key)
    pipeline = IngestionPipeline(transformations=[MockEmbedding(2)], vector_store=store)
    await pipeline.arun(documents=[Document(id_="d1", text="One")])
    assert [one.get_content() for one in store.get_nodes()] == ["One"]
    assert key not in store.to_json()
    copy = VectorDBVectorStore.from_json(store.to_json())
    assert (await copy.aquery(Q(query_embedding=[1.0, 1.0]))).ids == ids(store.get_nodes())
    await copy.aclose()


async def test_a_library_must_be_as_expected(make_store: MakeStore, call: Call) -> None:
    store = make_store()
    await call(store, "add", NODES)
    with pytest.raises(Conflict, match="metric='cosine', not 'dot'"):
        await call(make_store(library=store.library, library_options={"metric": "dot"}), "clear")
    with pytest.raises(NotFound):
        await call(make_store(library="nothing-of-this-name", create_library=False), "clear")


def test_the_readme() -> None:
    text = (Path(__file__).parent.parent / "README.md").read_text()
    [code] = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    names: dict[str, Any] = {}
    exec(code, names)
    store = names["store"]
    assert sorted(one.ref_doc_id for one in store.get_nodes()) == ["apple", "hands"]
    store._client.libraries.delete(store.library)
    store.close()
