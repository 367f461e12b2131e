"""LangChain on the vectordb server: a vector store and a retriever."""

from langchain_vectordb.filters import VectorDBTranslator
from langchain_vectordb.retrievers import VectorDBRetriever
from langchain_vectordb.vectorstores import VectorDBVectorStore

__all__ = ["VectorDBRetriever", "VectorDBTranslator", "VectorDBVectorStore"]
