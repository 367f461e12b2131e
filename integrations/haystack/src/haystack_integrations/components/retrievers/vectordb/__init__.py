"""Retrievers of the vectordb server: by vectors, by words, by both."""

from haystack_integrations.components.retrievers.vectordb.retrievers import (
    VectorDBBM25Retriever,
    VectorDBEmbeddingRetriever,
    VectorDBHybridRetriever,
)

__all__ = ["VectorDBBM25Retriever", "VectorDBEmbeddingRetriever", "VectorDBHybridRetriever"]
