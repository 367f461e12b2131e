"""LangChain's own tests, unchanged."""

from collections.abc import Callable
from typing import Any

import pytest
from langchain_core.retrievers import BaseRetriever
from langchain_tests.integration_tests import RetrieversIntegrationTests, VectorStoreIntegrationTests

from langchain_vectordb import VectorDBRetriever, VectorDBVectorStore

MakeStore = Callable[..., VectorDBVectorStore]


class TestVectorStore(VectorStoreIntegrationTests):
    @pytest.fixture
    def vectorstore(self, make_store: MakeStore) -> VectorDBVectorStore:  # type: ignore[override]
        return make_store(self.get_embeddings())


class TestRetriever(RetrieversIntegrationTests):
    @pytest.fixture(autouse=True)
    def filled(self, make_store: MakeStore) -> None:
        self.store = make_store()
        self.store.add_texts(["An apple a day", "A pear tree", "The golden gate", "A bird in the hand"])

    @property
    def retriever_constructor(self) -> type[BaseRetriever]:
        return VectorDBRetriever

    @property
    def retriever_constructor_params(self) -> dict[str, Any]:
        return {"vectorstore": self.store, "mode": "hybrid"}

    @property
    def retriever_query_example(self) -> str:
        return "fruit trees"
