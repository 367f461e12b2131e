"""Run by `make test-integrations-wheels` in an environment that has one of the packages and what it requires alone.

Writes documents to the server of VECTORDB_URL and VECTORDB_API_KEY, which embeds them, and finds one, sync and async.
"""

import asyncio
import re
import sys
from importlib import import_module
from importlib.metadata import files, requires, version
from pathlib import Path

TEXTS = {"apple": "An apple a day keeps the doctor away.", "bird": "The early bird catches the worm."}
YEARS = {"apple": 1866, "bird": 1605}
QUESTION, ANSWER = "healthy fruit", TEXTS["apple"]


def haystack(library: str) -> None:
    from haystack import Document, Pipeline
    from haystack_integrations.components.retrievers.vectordb import VectorDBHybridRetriever
    from haystack_integrations.document_stores.vectordb import VectorDBDocumentStore

    model = {"provider": "wordllama", "model": "l2-supercat-256"}
    store = VectorDBDocumentStore(library, embedding=model)
    documents = [Document(id=id, content=text, meta={"year": YEARS[id]}) for id, text in TEXTS.items()]
    assert store.write_documents(documents) == 2
    pipeline = Pipeline()
    pipeline.add_component("retriever", VectorDBHybridRetriever(store, top_k=1))
    pipeline = Pipeline.loads(pipeline.dumps())
    [document] = pipeline.run({"retriever": {"query": QUESTION}})["retriever"]["documents"]
    assert document.content == ANSWER
    old = {"field": "meta.year", "operator": "<", "value": 1700}
    assert [document.id for document in store.filter_documents(old)] == ["bird"]

    async def ask() -> None:
        found = await VectorDBHybridRetriever(store, top_k=1).run_async(query=QUESTION)
        assert found["documents"][0].content == ANSWER
        await store.close_async()

    asyncio.run(ask())
    store.close()


def langchain(library: str) -> None:
    from langchain_core.documents import Document
    from langchain_core.structured_query import Comparator, Comparison
    from langchain_vectordb import VectorDBRetriever, VectorDBVectorStore

    store = VectorDBVectorStore(library=library)
    documents = [Document(text, id=id, metadata={"year": YEARS[id]}) for id, text in TEXTS.items()]
    assert store.add_documents(documents) == list(TEXTS)
    assert store.similarity_search(QUESTION, k=1)[0].page_content == ANSWER
    old = Comparison(comparator=Comparator.LT, attribute="year", value=1700)
    assert [document.id for document in store.similarity_search(QUESTION, filter=old)] == ["bird"]
    retriever = VectorDBRetriever(vectorstore=store, k=1, mode="hybrid")
    assert retriever.invoke(QUESTION)[0].page_content == ANSWER

    async def ask() -> None:
        [document] = await store.as_retriever(search_kwargs={"k": 1}).ainvoke(QUESTION)
        assert document.page_content == ANSWER
        await store.aclose()

    asyncio.run(ask())


def llama_index(library: str) -> None:
    from llama_index.core import MockEmbedding, StorageContext, VectorStoreIndex
    from llama_index.core.schema import Document
    from llama_index.core.vector_stores import FilterOperator, MetadataFilter, MetadataFilters
    from llama_index.vector_stores.vectordb import VectorDBVectorStore

    store = VectorDBVectorStore(library, server_embedding=True)
    index = VectorStoreIndex.from_documents(
        [Document(doc_id=id, text=text, metadata={"year": YEARS[id]}) for id, text in TEXTS.items()],
        storage_context=StorageContext.from_defaults(vector_store=store),
        embed_model=MockEmbedding(1),
    )
    [found] = index.as_retriever(similarity_top_k=1, vector_store_query_mode="hybrid").retrieve(QUESTION)
    assert (found.text, found.node.ref_doc_id) == (ANSWER, "apple")
    old = MetadataFilters(filters=[MetadataFilter(key="year", value=1700, operator=FilterOperator.LT)])
    assert [found.node.ref_doc_id for found in index.as_retriever(filters=old).retrieve(QUESTION)] == ["bird"]

    async def ask() -> None:
        [found] = await index.as_retriever(similarity_top_k=1).aretrieve(QUESTION)
        assert found.text == ANSWER
        await store.aclose()

    asyncio.run(ask())


# By the name of the folder: the package, what of it is imported, and what tries it.
PACKAGES = {
    "haystack": ("vectordb-haystack", "haystack_integrations.document_stores.vectordb", haystack),
    "langchain": ("langchain-vectordb", "langchain_vectordb", langchain),
    "llama-index": ("llama-index-vector-stores-vectordb", "llama_index.vector_stores.vectordb", llama_index),
}


def main(folder: str, resolution: str) -> None:
    package, module, attempt = PACKAGES[folder]
    for name, imported in {package: module, "vectordb-client": "vectordb_client"}.items():
        path = Path(import_module(imported).__file__ or "").resolve()
        shipped = files(name) or []
        assert path in {Path(file.locate()).resolve() for file in shipped}, f"{path} is not of the package {name}"
        assert not path.is_relative_to(Path(__file__).resolve().parents[1]), f"{path} is in the checkout"
        assert any(file.name == "py.typed" for file in shipped), f"{name} lacks py.typed"
    [requirement] = [one for one in requires(package) or [] if not one.startswith("vectordb-client")]
    framework, bound = re.findall(r"^[\w-]+|(?<=>=)[\d.]+", requirement)
    installed = f"{framework} {version(framework)}, httpx2 {version('httpx2')}"
    is_lowest = f"{version(framework)}.".startswith(f"{bound}.")
    assert is_lowest == (resolution == "lowest-direct"), f"{installed} by {resolution} of {requirement}"
    attempt(f"{folder}-{resolution}")
    print(f"{package} works with {installed}, Python {sys.version.split()[0]}")  # noqa: T201


if __name__ == "__main__":
    main(*sys.argv[1:])
