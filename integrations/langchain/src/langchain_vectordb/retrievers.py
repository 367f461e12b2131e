"""LangChain's retriever."""

from __future__ import annotations

from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForRetrieverRun, CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from pydantic import ConfigDict, Field

from langchain_vectordb.vectorstores import VectorDBVectorStore


class VectorDBRetriever(BaseRetriever):
    """The best documents of a store for a text.

    `k`, `filter`, `mode`, and in `options` whatever else `Library.query` takes, such as `group_by`, `boost`, `mmr` and
    `score_threshold` (of the server's scores); `invoke` takes the same for one call. With `score_key`, each document
    has its score in its metadata.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    vectorstore: VectorDBVectorStore
    k: int = 4
    filter: Any = None
    mode: str | None = None
    options: dict[str, Any] = Field(default_factory=dict)
    score_key: str | None = None

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun, **kwargs: Any
    ) -> list[Document]:
        return self._documents(self.vectorstore.similarity_search_with_score(query, **self._search(kwargs)))

    async def _aget_relevant_documents(
        self, query: str, *, run_manager: AsyncCallbackManagerForRetrieverRun, **kwargs: Any
    ) -> list[Document]:
        found = await self.vectorstore.asimilarity_search_with_score(query, **self._search(kwargs))
        return self._documents(found)

    def _search(self, kwargs: dict[str, Any]) -> dict[str, Any]:
        return {"k": self.k, "filter": self.filter, "mode": self.mode, **self.options, **kwargs}

    def _documents(self, found: list[tuple[Document, float]]) -> list[Document]:
        if self.score_key is not None:
            for document, score in found:
                document.metadata[self.score_key] = score
        return [document for document, _ in found]
