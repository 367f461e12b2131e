"""The document store."""

from __future__ import annotations

from typing import Any, Literal

from haystack import default_from_dict, default_to_dict
from haystack.dataclasses import Document
from haystack.document_stores.types import DuplicatePolicy
from haystack.utils import Secret

from haystack_integrations.document_stores.vectordb import operations
from haystack_integrations.document_stores.vectordb.connection import Connection
from haystack_integrations.document_stores.vectordb.conversion import OWN_KEY
from haystack_integrations.document_stores.vectordb.operations import Filters


class VectorDBDocumentStore:
    """Documents in a library of a vectordb server. The library is created when the store is first used.

    >>> store = VectorDBDocumentStore("proverbs")
    >>> apple = Document(content="An apple a day", meta={"year": 1866}, embedding=[0.9, 0.1, 0.0])
    >>> rose = Document(content="A rose is a rose", meta={"year": 1913}, embedding=[0.1, 0.9, 0.2])
    >>> store.write_documents([apple, rose])
    2
    >>> [found.content for found in store.filter_documents({"field": "meta.year", "operator": "<", "value": 1900})]
    ['An apple a day']
    """

    def __init__(
        self,
        library: str = "haystack",
        *,
        url: str | None = None,
        api_key: Secret | None = Secret.from_env_var("VECTORDB_API_KEY", strict=False),  # noqa: B008
        dimension: int | None = None,
        metric: Literal["cosine", "dot", "euclidean"] | None = None,
        embedding: dict[str, str] | None = None,
        timeout: float = 60.0,
    ) -> None:
        """
        :param library: The id of the library.
        :param url: The address of the server; VECTORDB_URL of the environment by default, or http://127.0.0.1:8000.
        :param api_key: A key of the server. One of scope `read` is enough to search a library that exists.
        :param dimension: Of the embeddings; by default that of the first one.
        :param metric: Of a new library, `cosine` by default. A library that exists must have this one.
        :param embedding: The server's model for the library, such as `{"provider": "wordllama", "model":
            "l2-supercat-256"}`. With it, the server embeds documents without embedding, and queries.
        :param timeout: Seconds to wait for an answer.
        """
        self.library = library
        self.url = url
        self.api_key = api_key
        self.dimension = dimension
        self.metric = metric
        self.embedding = embedding
        self.timeout = timeout
        creation = {"dimension": dimension, "metric": metric, "embedding": embedding, "unindexed": [OWN_KEY]}
        self._connection = Connection(library, url, api_key, timeout, creation)

    def to_dict(self) -> dict[str, Any]:
        """The store as a dict; the key only by the name of its environment variable."""
        return default_to_dict(
            self,
            library=self.library,
            url=self.url,
            api_key=self.api_key.to_dict() if self.api_key else None,
            dimension=self.dimension,
            metric=self.metric,
            embedding=self.embedding,
            timeout=self.timeout,
        )

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> VectorDBDocumentStore:
        """The store that `to_dict` described."""
        parameters = dict(data.get("init_parameters", {}))
        if isinstance(parameters.get("api_key"), dict):
            parameters["api_key"] = Secret.from_dict(parameters["api_key"])
        store: VectorDBDocumentStore = default_from_dict(cls, {**data, "init_parameters": parameters})
        return store

    def close(self) -> None:
        """Close the connections of the sync methods; they are opened again where needed."""
        self._connection.close()

    async def close_async(self) -> None:
        """Close the connections of the async methods; they are opened again where needed."""
        await self._connection.close_async()

    def count_documents(self) -> int:
        """The number of documents."""
        return self._connection.run(operations.count(None))

    async def count_documents_async(self) -> int:
        """The number of documents."""
        return await self._connection.run_async(operations.count(None))

    def filter_documents(self, filters: Filters = None) -> list[Document]:
        """The documents that match, with their embeddings, in the order in which they were first written."""
        return self._connection.run(operations.find(filters))

    async def filter_documents_async(self, filters: Filters = None) -> list[Document]:
        """The documents that match, with their embeddings, in the order in which they were first written."""
        return await self._connection.run_async(operations.find(filters))

    def write_documents(self, documents: list[Document], policy: DuplicatePolicy = DuplicatePolicy.NONE) -> int:
        """Write documents, a thousand in one transaction; return how many were written. NONE is FAIL.

        :raises DuplicateDocumentError: Under FAIL, if an id is taken, in the store or within `documents`.
        """
        return self._connection.run(operations.write(documents, policy, embeds=self.embedding is not None))

    async def write_documents_async(
        self, documents: list[Document], policy: DuplicatePolicy = DuplicatePolicy.NONE
    ) -> int:
        """Write documents, a thousand in one transaction; return how many were written. NONE is FAIL.

        :raises DuplicateDocumentError: Under FAIL, if an id is taken, in the store or within `documents`.
        """
        return await self._connection.run_async(operations.write(documents, policy, embeds=self.embedding is not None))

    def delete_documents(self, document_ids: list[str]) -> None:
        """Delete documents by their ids; those that do not exist are passed over."""
        self._connection.run(operations.delete(document_ids))

    async def delete_documents_async(self, document_ids: list[str]) -> None:
        """Delete documents by their ids; those that do not exist are passed over."""
        await self._connection.run_async(operations.delete(document_ids))

    def delete_all_documents(self, recreate_index: bool = False) -> None:
        """Delete all documents. The library stays, with its dimension.

        :param recreate_index: Delete the library too; it is created as this store says when it is next used.
        """
        self._connection.run(operations.delete_all())
        if recreate_index:
            self._connection.delete_library()

    async def delete_all_documents_async(self, recreate_index: bool = False) -> None:
        """Delete all documents. The library stays, with its dimension.

        :param recreate_index: Delete the library too; it is created as this store says when it is next used.
        """
        await self._connection.run_async(operations.delete_all())
        if recreate_index:
            await self._connection.delete_library_async()

    def delete_by_filter(self, filters: dict[str, Any]) -> int:
        """Delete the documents that match, in one transaction; return how many there were."""
        return self._connection.run(operations.delete_matching(filters))

    async def delete_by_filter_async(self, filters: dict[str, Any]) -> int:
        """Delete the documents that match, in one transaction; return how many there were."""
        return await self._connection.run_async(operations.delete_matching(filters))

    def update_by_filter(self, filters: dict[str, Any], meta: dict[str, Any]) -> int:
        """Set fields of `meta` in the documents that match, in one transaction; return how many there were."""
        return self._connection.run(operations.update_matching(filters, meta))

    async def update_by_filter_async(self, filters: dict[str, Any], meta: dict[str, Any]) -> int:
        """Set fields of `meta` in the documents that match, in one transaction; return how many there were."""
        return await self._connection.run_async(operations.update_matching(filters, meta))

    def count_documents_by_filter(self, filters: dict[str, Any]) -> int:
        """The number of documents that match."""
        return self._connection.run(operations.count(filters))

    async def count_documents_by_filter_async(self, filters: dict[str, Any]) -> int:
        """The number of documents that match."""
        return await self._connection.run_async(operations.count(filters))

    def count_unique_metadata_by_filter(self, filters: dict[str, Any], metadata_fields: list[str]) -> dict[str, int]:
        """How many different values each field has among the documents that match; a list counts by its members."""
        return self._connection.run(operations.count_unique(filters, metadata_fields))

    async def count_unique_metadata_by_filter_async(
        self, filters: dict[str, Any], metadata_fields: list[str]
    ) -> dict[str, int]:
        """How many different values each field has among the documents that match; a list counts by its members."""
        return await self._connection.run_async(operations.count_unique(filters, metadata_fields))

    def get_metadata_fields_info(self) -> dict[str, dict[str, str]]:
        """The types of the fields of `meta`: int, float, boolean or keyword; of the 500 that most documents have."""
        return self._connection.run(operations.fields_info())

    async def get_metadata_fields_info_async(self) -> dict[str, dict[str, str]]:
        """The types of the fields of `meta`: int, float, boolean or keyword; of the 500 that most documents have."""
        return await self._connection.run_async(operations.fields_info())

    def get_metadata_field_min_max(self, metadata_field: str) -> dict[str, Any]:
        """The least and the greatest number or text: `{"min": ..., "max": ...}`, None where there is none."""
        return self._connection.run(operations.min_max(metadata_field))

    async def get_metadata_field_min_max_async(self, metadata_field: str) -> dict[str, Any]:
        """The least and the greatest number or text: `{"min": ..., "max": ...}`, None where there is none."""
        return await self._connection.run_async(operations.min_max(metadata_field))

    def get_metadata_field_unique_values(
        self,
        metadata_field: str,
        search_term: str | None = None,
        from_: int = 0,
        size: int = 10,
        filters: Filters = None,
    ) -> tuple[list[Any], int]:
        """A page of the different values of a field, ordered, and how many there are; a list counts by its members.

        :param search_term: Only texts that have this in them, in upper or lower case.
        """
        return self._connection.run(operations.unique_values(metadata_field, search_term, from_, size, filters))

    async def get_metadata_field_unique_values_async(
        self,
        metadata_field: str,
        search_term: str | None = None,
        from_: int = 0,
        size: int = 10,
        filters: Filters = None,
    ) -> tuple[list[Any], int]:
        """A page of the different values of a field, ordered, and how many there are; a list counts by its members.

        :param search_term: Only texts that have this in them, in upper or lower case.
        """
        return await self._connection.run_async(
            operations.unique_values(metadata_field, search_term, from_, size, filters)
        )

    def query(self, *, filters: Filters = None, return_embedding: bool = False, **options: Any) -> list[Document]:
        """The documents that a query finds, the best first, scored; `options` are those of the client's `query`."""
        return self._connection.run(operations.query(filters, return_embedding, options))

    async def query_async(
        self, *, filters: Filters = None, return_embedding: bool = False, **options: Any
    ) -> list[Document]:
        """The documents that a query finds, the best first, scored; `options` are those of the client's `query`."""
        return await self._connection.run_async(operations.query(filters, return_embedding, options))
