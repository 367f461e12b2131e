"""The vectordb server as a document store of Haystack."""

from haystack_integrations.document_stores.vectordb.document_store import VectorDBDocumentStore

__all__ = ["VectorDBDocumentStore"]
