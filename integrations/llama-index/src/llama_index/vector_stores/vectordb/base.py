"""LlamaIndex's vector store."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from llama_index.core.bridge.pydantic import ConfigDict, Field, PrivateAttr
from llama_index.core.schema import BaseNode
from llama_index.core.vector_stores.types import (
    BasePydanticVectorStore,
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryMode,
    VectorStoreQueryResult,
)
from vectordb_client import AsyncClient, AsyncLibrary, Client, Hits, Library

from llama_index.vector_stores.vectordb.filters import all_of, of_documents, of_nodes, to_filter
from llama_index.vector_stores.vectordb.nodes import OF_OTHER_KINDS, UNINDEXED, to_node, to_row

_EVERYTHING = {"@id": {"$exists": True}}
_MODES = {
    VectorStoreQueryMode.DEFAULT: "vector",
    VectorStoreQueryMode.MMR: "vector",
    VectorStoreQueryMode.HYBRID: "hybrid",
    VectorStoreQueryMode.SPARSE: "lexical",
    VectorStoreQueryMode.TEXT_SEARCH: "lexical",
}


class VectorDBVectorStore(BasePydanticVectorStore):
    """Nodes as the chunks of a library.

    `url` and `api_key` are VECTORDB_URL and VECTORDB_API_KEY of the environment where they are left out; or give a
    `client`, and an `async_client` for the async methods. The library is opened when it is first used, and created if
    need be, with `library_options`, which are those of `client.libraries.create`, such as
    `{"metric": "dot", "index_type": "hnsw"}`; with `create_library=False` it must exist.

    With `server_embedding`, the server makes the vectors of nodes and queries, by the library's model or its default
    one, and those that an index brings are not used: give that `embed_model=MockEmbedding(1)`.
    """

    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)

    stores_text: bool = True
    library: str
    url: str | None = None
    server_embedding: bool = False
    create_library: bool = True
    library_options: dict[str, Any] = Field(default_factory=dict)
    batch_size: int = 500

    _client: Client | None = PrivateAttr()
    _async_client: AsyncClient | None = PrivateAttr()
    _is_given: bool = PrivateAttr()
    _opened: Library | None = PrivateAttr(default=None)
    _async_opened: AsyncLibrary | None = PrivateAttr(default=None)

    def __init__(
        self,
        library: str = "llama-index",
        *,
        url: str | None = None,
        api_key: str | None = None,
        client: Client | None = None,
        async_client: AsyncClient | None = None,
        server_embedding: bool = False,
        create_library: bool = True,
        library_options: Mapping[str, Any] | None = None,
        batch_size: int = 500,
        **fields: Any,
    ) -> None:
        fields |= {
            "library": library,
            "url": url,
            "server_embedding": server_embedding,
            "is_embedding_query": not server_embedding,
            "create_library": create_library,
            "library_options": dict(library_options or {}),
            "batch_size": batch_size,
        }
        super().__init__(**fields)
        self._is_given = client is not None or async_client is not None
        self._client = client if self._is_given else Client(url, api_key)
        self._async_client = async_client if self._is_given else AsyncClient(url, api_key)

    @classmethod
    def class_name(cls) -> str:
        """The name by which LlamaIndex knows the class."""
        return "VectorDBVectorStore"

    @property
    def client(self) -> Library:
        """The library, for what LlamaIndex has no words for; it is opened, or created, when it is first used."""
        if self._opened is None:
            if self._client is None:
                raise ValueError("This store has an async_client alone: use async methods, or give it a client, too.")
            libraries = self._client.libraries
            if self.create_library:
                self._opened = libraries.create(self.library, if_exists="get", **self._options())
            else:
                self._opened = libraries.get(self.library)
        return self._opened

    async def aclient(self) -> AsyncLibrary:
        """As `client`."""
        if self._async_opened is None:
            if self._async_client is None:
                raise ValueError("This store has a client alone: use sync methods, or give it an async_client, too.")
            libraries = self._async_client.libraries
            if self.create_library:
                self._async_opened = await libraries.create(self.library, if_exists="get", **self._options())
            else:
                self._async_opened = await libraries.get(self.library)
        return self._async_opened

    def close(self) -> None:
        """Close the connections that the store has made itself."""
        if self._client is not None and not self._is_given:
            self._client.close()

    async def aclose(self) -> None:
        """As `close`, those of async methods, too."""
        self.close()
        if self._async_client is not None and not self._is_given:
            await self._async_client.close()

    def add(self, nodes: Sequence[BaseNode], **kwargs: Any) -> list[str]:
        """Write nodes, replacing those whose ids exist, `batch_size` at a time: each batch is written whole or not at
        all. A node without an embedding is embedded by the server. Keywords are those of `Library.upsert`."""
        for rows in self._batches(nodes):
            self.client.upsert(rows, **kwargs)
        return [node.node_id for node in nodes]

    async def async_add(self, nodes: Sequence[BaseNode], **kwargs: Any) -> list[str]:
        """As `add`."""
        library = await self.aclient()
        for rows in self._batches(nodes):
            await library.upsert(rows, **kwargs)
        return [node.node_id for node in nodes]

    def delete(self, ref_doc_id: str, **delete_kwargs: Any) -> None:
        """Delete the nodes of a document."""
        self.client.delete(filter=of_documents([ref_doc_id]))

    async def adelete(self, ref_doc_id: str, **delete_kwargs: Any) -> None:
        """As `delete`."""
        await (await self.aclient()).delete(filter=of_documents([ref_doc_id]))

    def delete_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None, **delete_kwargs: Any
    ) -> None:
        """Delete nodes by ids, by filters, or those that both name; without either nothing."""
        if selected := _select(node_ids, filters):
            self.client.delete(**selected)

    async def adelete_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None, **delete_kwargs: Any
    ) -> None:
        """As `delete_nodes`."""
        if selected := _select(node_ids, filters):
            await (await self.aclient()).delete(**selected)

    def clear(self) -> None:
        """Delete all nodes; the library stays."""
        self.client.delete(filter=_EVERYTHING)

    async def aclear(self) -> None:
        """As `clear`."""
        await (await self.aclient()).delete(filter=_EVERYTHING)

    def get_nodes(self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None) -> list[BaseNode]:
        """Nodes by ids, in this order, by filters, or those that both name; without either all of them."""
        selected = _select(node_ids, filters)
        if "ids" in selected:
            return [to_node(chunk) for chunk in self.client.get(**selected)]
        return [to_node(chunk) for chunk in self.client.chunks(**selected)]

    async def aget_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None
    ) -> list[BaseNode]:
        """As `get_nodes`."""
        selected, library = _select(node_ids, filters), await self.aclient()
        if "ids" in selected:
            return [to_node(chunk) for chunk in await library.get(**selected)]
        return [to_node(chunk) async for chunk in library.chunks(**selected)]

    def query(self, query: VectorStoreQuery, **kwargs: Any) -> VectorStoreQueryResult:
        """The best nodes. `similarities` are the server's scores, of which a higher one is better.

        Modes are `default`, `mmr` (`mmr_threshold`, `mmr_prefetch_k` or `mmr_prefetch_factor`), `hybrid` (`alpha` is
        the weight of vectors, 1 - `alpha` that of words), `sparse` and `text_search` (both by words). Other keywords
        are those of `Library.query`, such as `boost`, `group_by`, `exact` and `include`.
        """
        is_explicit = bool(query.node_ids) and self.client.count(_explicit(query)) > 0
        return _result(self.client.query(**_request(query, kwargs, is_explicit=is_explicit)))

    async def aquery(self, query: VectorStoreQuery, **kwargs: Any) -> VectorStoreQueryResult:
        """As `query`."""
        library = await self.aclient()
        is_explicit = bool(query.node_ids) and await library.count(_explicit(query)) > 0
        return _result(await library.query(**_request(query, kwargs, is_explicit=is_explicit)))

    def _options(self) -> dict[str, Any]:
        return {**self.library_options, "unindexed": [*UNINDEXED, *self.library_options.get("unindexed", [])]}

    def _batches(self, nodes: Sequence[BaseNode]) -> Iterator[list[dict[str, Any]]]:
        for begin in range(0, len(nodes), self.batch_size):
            part = nodes[begin : begin + self.batch_size]
            yield [to_row(node, is_embedded_by_server=self.server_embedding) for node in part]


def _select(node_ids: list[str] | None, filters: MetadataFilters | None) -> dict[str, Any]:
    """The keywords that name chunks: ids alone, or a filter; none where neither is given."""
    filter = to_filter(filters)
    if node_ids is None:
        return {"filter": filter} if filter else {}
    return {"filter": all_of(of_nodes(node_ids), filter)} if filter else {"ids": node_ids}


def _explicit(query: VectorStoreQuery) -> dict[str, Any]:
    """The filter of asked nodes that no index has on its list, so somebody asks for them.

    A retriever of an index asks for the nodes on its list. Text nodes are not on it, and are to be found nevertheless.
    """
    return all_of(of_nodes(query.node_ids or []), OF_OTHER_KINDS)


def _request(query: VectorStoreQuery, kwargs: dict[str, Any], *, is_explicit: bool) -> dict[str, Any]:
    """The keywords of the client's query; nodes of other kinds are left out only where `is_explicit`."""
    if query.mode not in _MODES:
        known = ", ".join(mode.value for mode in _MODES)
        raise ValueError(f"The query mode {query.mode.value} is not supported; these are: {known}.")
    mode, k, options = _MODES[query.mode], query.similarity_top_k, dict(kwargs)
    threshold = options.pop("mmr_threshold", query.mmr_threshold)
    prefetch = options.pop("mmr_prefetch_k", None), options.pop("mmr_prefetch_factor", None) or 4
    if query.mode == VectorStoreQueryMode.MMR:
        fetch_k = prefetch[0] or int(k * prefetch[1])
        options["mmr"] = {"lambda": 0.5 if threshold is None else threshold, "fetch_k": fetch_k}
    elif mode == "lexical":
        k = query.sparse_top_k or k
    elif mode == "hybrid":
        k = query.hybrid_top_k or k
        if query.alpha is not None:
            options["hybrid"] = {"vector_weight": query.alpha, "lexical_weight": 1 - query.alpha}
    vector = None if mode == "lexical" else query.query_embedding
    nodes = of_nodes(query.node_ids) if query.node_ids else {}
    filter = all_of(
        to_filter(query.filters),
        nodes if is_explicit or not nodes else {"$or": [nodes, OF_OTHER_KINDS]},
        of_documents(query.doc_ids) if query.doc_ids else {},
    )
    return {
        **options,
        "vector": vector,
        "text": query.query_str if mode != "vector" or vector is None else None,
        "k": k,
        "mode": mode,
        "filter": filter or None,
    }


def _result(hits: Hits) -> VectorStoreQueryResult:
    return VectorStoreQueryResult(nodes=[to_node(hit) for hit in hits], similarities=hits.scores, ids=hits.ids)
