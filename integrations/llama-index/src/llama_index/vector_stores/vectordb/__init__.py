"""LlamaIndex on the vectordb server: a vector store."""

from llama_index.vector_stores.vectordb.base import VectorDBVectorStore

__all__ = ["VectorDBVectorStore"]
