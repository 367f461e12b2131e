"""The retrievers. They differ in what they are asked with, and so in what they send."""

from __future__ import annotations

from typing import Any, TypeVar

from haystack import component, default_from_dict, default_to_dict
from haystack.dataclasses import Document
from haystack.document_stores.types import FilterPolicy, apply_filter_policy

from haystack_integrations.document_stores.vectordb import VectorDBDocumentStore

Filters = dict[str, Any] | None
R = TypeVar("R", bound="_Retriever")


class _Retriever:
    def __init__(
        self,
        document_store: VectorDBDocumentStore,
        *,
        filters: Filters = None,
        top_k: int = 10,
        return_embedding: bool = False,
        filter_policy: str | FilterPolicy = FilterPolicy.REPLACE,
    ) -> None:
        """
        :param document_store: Where to look.
        :param filters: Which documents to look at.
        :param top_k: The most documents to return, 1 to 1,000.
        :param return_embedding: Whether documents come with their embeddings.
        :param filter_policy: Whether filters at run time replace these ones, or are merged with them.
        """
        if not isinstance(document_store, VectorDBDocumentStore):
            raise TypeError(f"document_store is a VectorDBDocumentStore, not {type(document_store).__name__}")
        self.document_store = document_store
        self.filters = filters
        self.top_k = _checked(top_k)
        self.return_embedding = return_embedding
        self.filter_policy = FilterPolicy(filter_policy)

    def to_dict(self) -> dict[str, Any]:
        """The component as a dict."""
        return default_to_dict(
            self,
            document_store=self.document_store.to_dict(),
            filters=self.filters,
            top_k=self.top_k,
            return_embedding=self.return_embedding,
            filter_policy=self.filter_policy.value,
            **self._own_parameters(),
        )

    def _own_parameters(self) -> dict[str, Any]:
        return {}

    @classmethod
    def from_dict(cls: type[R], data: dict[str, Any]) -> R:
        """The component that `to_dict` described."""
        parameters = dict(data["init_parameters"])
        if isinstance(parameters["document_store"], dict):
            parameters["document_store"] = VectorDBDocumentStore.from_dict(parameters["document_store"])
        retriever: R = default_from_dict(cls, {**data, "init_parameters": parameters})
        return retriever

    def close(self) -> None:
        """Close the connections of the store's sync methods."""
        self.document_store.close()

    async def close_async(self) -> None:
        """Close the connections of the store's async methods."""
        await self.document_store.close_async()

    def _options(self, filters: Filters, top_k: int | None) -> dict[str, Any]:
        return {
            "filters": apply_filter_policy(self.filter_policy, self.filters, filters),
            "return_embedding": self.return_embedding,
            "k": self.top_k if top_k is None else _checked(top_k),
        }


@component
class VectorDBEmbeddingRetriever(_Retriever):
    """Finds documents whose embeddings are near an embedding. The score is that of the library's metric.

    >>> retriever = VectorDBEmbeddingRetriever(store, top_k=1)
    >>> retriever.run(query_embedding=[0.1, 0.9, 0.2])["documents"][0].content
    'A rose is a rose'
    """

    @component.output_types(documents=list[Document])
    def run(self, query_embedding: list[float], filters: Filters = None, top_k: int | None = None) -> dict[str, Any]:
        """
        :param query_embedding: What to look for.
        :param filters: Which documents to look at.
        :param top_k: The most documents to return.
        """
        options = self._options(filters, top_k)
        return {"documents": self.document_store.query(vector=query_embedding, **options)}

    @component.output_types(documents=list[Document])
    async def run_async(
        self, query_embedding: list[float], filters: Filters = None, top_k: int | None = None
    ) -> dict[str, Any]:
        """As `run`."""
        options = self._options(filters, top_k)
        return {"documents": await self.document_store.query_async(vector=query_embedding, **options)}


@component
class VectorDBBM25Retriever(_Retriever):
    """Finds documents by the words of a query, with an embedding or without. The score is BM25.

    >>> VectorDBBM25Retriever(store).run(query="roses: a rose")["documents"][0].content
    'A rose is a rose'
    """

    @component.output_types(documents=list[Document])
    def run(self, query: str, filters: Filters = None, top_k: int | None = None) -> dict[str, Any]:
        """
        :param query: Words; those in double quotes are a phrase.
        :param filters: Which documents to look at.
        :param top_k: The most documents to return.
        """
        options = self._options(filters, top_k)
        return {"documents": self.document_store.query(text=query, mode="lexical", **options)}

    @component.output_types(documents=list[Document])
    async def run_async(self, query: str, filters: Filters = None, top_k: int | None = None) -> dict[str, Any]:
        """As `run`."""
        options = self._options(filters, top_k)
        return {"documents": await self.document_store.query_async(text=query, mode="lexical", **options)}


@component
class VectorDBHybridRetriever(_Retriever):
    """Finds documents by words and by embeddings, fused by rank (RRF), in one request.

    >>> found = VectorDBHybridRetriever(store).run(query="an apple", query_embedding=[0.9, 0.1, 0.0])
    >>> found["documents"][0].content
    'An apple a day'
    """

    def __init__(
        self,
        document_store: VectorDBDocumentStore,
        *,
        filters: Filters = None,
        top_k: int = 10,
        return_embedding: bool = False,
        filter_policy: str | FilterPolicy = FilterPolicy.REPLACE,
        hybrid: dict[str, float] | None = None,
    ) -> None:
        """
        :param document_store: Where to look.
        :param filters: Which documents to look at.
        :param top_k: The most documents to return, 1 to 1,000.
        :param return_embedding: Whether documents come with their embeddings.
        :param filter_policy: Whether filters at run time replace these ones, or are merged with them.
        :param hybrid: How the ranks are fused: `rrf_k` (60), `vector_weight` and `lexical_weight` (1 each).
        """
        # `super()` does not know the class that `component` makes of this one.
        _Retriever.__init__(
            self,
            document_store,
            filters=filters,
            top_k=top_k,
            return_embedding=return_embedding,
            filter_policy=filter_policy,
        )
        self.hybrid = hybrid

    def _own_parameters(self) -> dict[str, Any]:
        return {"hybrid": self.hybrid}

    def _hybrid_options(self, query: str, embedding: list[float] | None) -> dict[str, Any]:
        return {"text": query, "vector": embedding, "mode": "hybrid", "hybrid": self.hybrid}

    @component.output_types(documents=list[Document])
    def run(
        self,
        query: str,
        query_embedding: list[float] | None = None,
        filters: Filters = None,
        top_k: int | None = None,
    ) -> dict[str, Any]:
        """
        :param query: Words; those in double quotes are a phrase.
        :param query_embedding: The query's embedding; without one the server embeds the query by the library's model.
        :param filters: Which documents to look at.
        :param top_k: The most documents to return.
        """
        options = self._options(filters, top_k) | self._hybrid_options(query, query_embedding)
        return {"documents": self.document_store.query(**options)}

    @component.output_types(documents=list[Document])
    async def run_async(
        self,
        query: str,
        query_embedding: list[float] | None = None,
        filters: Filters = None,
        top_k: int | None = None,
    ) -> dict[str, Any]:
        """As `run`."""
        options = self._options(filters, top_k) | self._hybrid_options(query, query_embedding)
        return {"documents": await self.document_store.query_async(**options)}


def _checked(top_k: int) -> int:
    if top_k <= 0:
        raise ValueError(f"top_k must be greater than 0, not {top_k}")
    return top_k
