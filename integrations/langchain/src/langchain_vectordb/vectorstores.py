"""LangChain's vector store."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.structured_query import FilterDirective
from langchain_core.vectorstores import VectorStore
from typing_extensions import Self
from vectordb_client import AsyncClient, AsyncLibrary, Chunk, Client, Hit, Hits, Library
from vectordb_client.filters import FilterLike

from langchain_vectordb.filters import to_filter
from langchain_vectordb.relevance import relevance

Mode = Literal["vector", "lexical", "hybrid"]
AnyFilter = FilterLike | FilterDirective
_EVERYTHING = {"@id": {"$exists": True}}


class VectorDBVectorStore(VectorStore):
    """Documents as the chunks of a library.

    `embedding` makes the vectors. Without it the server does: by the library's model, or its default model.

    `url` and `api_key` are VECTORDB_URL and VECTORDB_API_KEY of the environment where they are left out; or give a
    `client`, and an `async_client` for the async methods. The library is opened when it is first used, and created if
    need be, with `library_options`, which are those of `client.libraries.create`, such as
    `{"metric": "dot", "index_type": "hnsw"}`; with `create_library=False` it must exist.

    `mode` is that of searches by text: `vector`, `lexical` (by words) or `hybrid` (both). Each search takes a `filter`
    (a dict, an expression of `vectordb_client.F`, or one of `langchain_core.structured_query`), a `mode`, and what else
    `Library.query` takes: `hybrid`, `boost`, `group_by`, `exact`, `include` and so on.

    `document_id_key` names the key of metadata that holds the id of the document that a chunk belongs to; documents
    that do not exist are created.

    `relevance_score_fn` makes a relevance from 0 to 1 of a score, where the one of the library's metric does not suit.
    """

    def __init__(
        self,
        embedding: Embeddings | None = None,
        library: str = "langchain",
        *,
        url: str | None = None,
        api_key: str | None = None,
        client: Client | None = None,
        async_client: AsyncClient | None = None,
        mode: Mode = "vector",
        create_library: bool = True,
        library_options: Mapping[str, Any] | None = None,
        document_id_key: str | None = None,
        relevance_score_fn: Callable[[float], float] | None = None,
        batch_size: int = 500,
    ) -> None:
        self.library_id = library
        self.mode: Mode = mode
        self._embedding = embedding
        self._is_given = client is not None or async_client is not None
        self._client = client if self._is_given else Client(url, api_key)
        self._async_client = async_client if self._is_given else AsyncClient(url, api_key)
        self._create_library = create_library
        self._library_options = dict(library_options or {})
        self._document_id_key = document_id_key
        self._relevance_score_fn = relevance_score_fn
        self._batch_size = batch_size
        self._library: Library | None = None
        self._async_library: AsyncLibrary | None = None

    @property
    def embeddings(self) -> Embeddings | None:
        """What makes the vectors; None if the server does."""
        return self._embedding

    @property
    def library(self) -> Library:
        """The library, for what LangChain has no words for; it is opened, or created, when it is first used."""
        if self._library is None:
            if self._client is None:
                raise ValueError("This store has an async_client alone: use async methods, or give it a client, too.")
            libraries = self._client.libraries
            if self._create_library:
                self._library = libraries.create(self.library_id, if_exists="get", **self._library_options)
            else:
                self._library = libraries.get(self.library_id)
        return self._library

    async def alibrary(self) -> AsyncLibrary:
        """As `library`."""
        if self._async_library is None:
            if self._async_client is None:
                raise ValueError("This store has a client alone: use sync methods, or give it an async_client, too.")
            libraries = self._async_client.libraries
            if self._create_library:
                self._async_library = await libraries.create(self.library_id, if_exists="get", **self._library_options)
            else:
                self._async_library = await libraries.get(self.library_id)
        return self._async_library

    def close(self) -> None:
        """Close the connections that the store has made itself."""
        if self._client is not None and not self._is_given:
            self._client.close()

    async def aclose(self) -> None:
        """As `close`, those of async methods, too."""
        self.close()
        if self._async_client is not None and not self._is_given:
            await self._async_client.close()

    # Writing

    def add_texts(
        self,
        texts: Iterable[str],
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: list[str] | None = None,
        batch_size: int | None = None,
        **kwargs: Any,
    ) -> list[str]:
        """Write texts, replacing those whose ids exist; return the ids.

        They are written `batch_size` at a time: each batch is written whole or not at all. `expires_at` and other
        keywords are those of `Library.upsert`.
        """
        written: list[str] = []
        for batch in self._batches(texts, metadatas, ids, batch_size):
            vectors = self._embedding.embed_documents(batch["texts"]) if self._embedding else None
            written += self.library.upsert(vectors=vectors, **batch, **kwargs).ids
        return written

    async def aadd_texts(
        self,
        texts: Iterable[str],
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: list[str] | None = None,
        batch_size: int | None = None,
        **kwargs: Any,
    ) -> list[str]:
        """As `add_texts`."""
        library = await self.alibrary()
        written: list[str] = []
        for batch in self._batches(texts, metadatas, ids, batch_size):
            vectors = await self._embedding.aembed_documents(batch["texts"]) if self._embedding else None
            written += (await library.upsert(vectors=vectors, **batch, **kwargs)).ids
        return written

    def update_documents(self, ids: list[str], documents: list[Document]) -> None:
        """Replace documents that exist; an id that does not is NotFound, and nothing of its batch is written."""
        texts, metadatas = _columns(documents)
        for batch in self._batches(texts, metadatas, ids):
            vectors = self._embedding.embed_documents(batch["texts"]) if self._embedding else None
            batch.pop("create_documents", None)
            self.library.update(vectors=vectors, **batch)

    async def aupdate_documents(self, ids: list[str], documents: list[Document]) -> None:
        """As `update_documents`."""
        library = await self.alibrary()
        texts, metadatas = _columns(documents)
        for batch in self._batches(texts, metadatas, ids):
            vectors = await self._embedding.aembed_documents(batch["texts"]) if self._embedding else None
            batch.pop("create_documents", None)
            await library.update(vectors=vectors, **batch)

    def delete(self, ids: list[str] | None = None, *, filter: AnyFilter | None = None, **kwargs: Any) -> bool:
        """Delete documents by ids or by a filter; without either, all of them."""
        self.library.delete(**_deleted(ids, filter))
        return True

    async def adelete(self, ids: list[str] | None = None, *, filter: AnyFilter | None = None, **kwargs: Any) -> bool:
        """As `delete`."""
        await (await self.alibrary()).delete(**_deleted(ids, filter))
        return True

    # Reading

    def get_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        """The documents that exist, in the order of their ids."""
        return [_document(chunk) for chunk in self.library.get(list(ids))]

    async def aget_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        """As `get_by_ids`."""
        return [_document(chunk) for chunk in await (await self.alibrary()).get(list(ids))]

    def similarity_search(self, query: str, k: int = 4, **kwargs: Any) -> list[Document]:
        """The `k` best documents for a text. One that is blank, as self-querying retrievers have where a filter says it
        all, finds the first `k` that match."""
        if not query.strip():
            return [_document(chunk) for chunk in self.library.chunks(**_listed(k, kwargs)).first_page().items]
        return [_document(hit) for hit in self._search(query, k, **kwargs)]

    async def asimilarity_search(self, query: str, k: int = 4, **kwargs: Any) -> list[Document]:
        """As `similarity_search`."""
        if not query.strip():
            page = await (await self.alibrary()).chunks(**_listed(k, kwargs)).first_page()
            return [_document(chunk) for chunk in page.items]
        return [_document(hit) for hit in await self._asearch(query, k, **kwargs)]

    def similarity_search_with_score(self, query: str, k: int = 4, **kwargs: Any) -> list[tuple[Document, float]]:
        """The best documents with their scores, of which a higher one is better: the cosine similarity, the inner
        product, minus the distance, BM25, or the sum of fused ranks."""
        return [(_document(hit), hit.score) for hit in self._search(query, k, **kwargs)]

    async def asimilarity_search_with_score(
        self, query: str, k: int = 4, **kwargs: Any
    ) -> list[tuple[Document, float]]:
        """As `similarity_search_with_score`."""
        return [(_document(hit), hit.score) for hit in await self._asearch(query, k, **kwargs)]

    def similarity_search_by_vector(self, embedding: list[float], k: int = 4, **kwargs: Any) -> list[Document]:
        """The best documents for a vector."""
        return [_document(hit) for hit in self._search(None, k, vector=embedding, **kwargs)]

    async def asimilarity_search_by_vector(self, embedding: list[float], k: int = 4, **kwargs: Any) -> list[Document]:
        """As `similarity_search_by_vector`."""
        return [_document(hit) for hit in await self._asearch(None, k, vector=embedding, **kwargs)]

    def max_marginal_relevance_search(
        self, query: str, k: int = 4, fetch_k: int = 20, lambda_mult: float = 0.5, **kwargs: Any
    ) -> list[Document]:
        """Documents near to the query and unlike one another, chosen by the server among the best `fetch_k`."""
        return self.similarity_search(query, k, mmr={"lambda": lambda_mult, "fetch_k": fetch_k}, **kwargs)

    async def amax_marginal_relevance_search(
        self, query: str, k: int = 4, fetch_k: int = 20, lambda_mult: float = 0.5, **kwargs: Any
    ) -> list[Document]:
        """As `max_marginal_relevance_search`."""
        return await self.asimilarity_search(query, k, mmr={"lambda": lambda_mult, "fetch_k": fetch_k}, **kwargs)

    def max_marginal_relevance_search_by_vector(
        self, embedding: list[float], k: int = 4, fetch_k: int = 20, lambda_mult: float = 0.5, **kwargs: Any
    ) -> list[Document]:
        """As `max_marginal_relevance_search`, for a vector."""
        return self.similarity_search_by_vector(embedding, k, mmr={"lambda": lambda_mult, "fetch_k": fetch_k}, **kwargs)

    async def amax_marginal_relevance_search_by_vector(
        self, embedding: list[float], k: int = 4, fetch_k: int = 20, lambda_mult: float = 0.5, **kwargs: Any
    ) -> list[Document]:
        """As `max_marginal_relevance_search_by_vector`."""
        mmr = {"lambda": lambda_mult, "fetch_k": fetch_k}
        return await self.asimilarity_search_by_vector(embedding, k, mmr=mmr, **kwargs)

    def _similarity_search_with_relevance_scores(
        self, query: str, k: int = 4, **kwargs: Any
    ) -> list[tuple[Document, float]]:
        to_relevance = self._relevance_of(self.library, **kwargs)
        return [
            (document, to_relevance(score)) for document, score in self.similarity_search_with_score(query, k, **kwargs)
        ]

    async def _asimilarity_search_with_relevance_scores(
        self, query: str, k: int = 4, **kwargs: Any
    ) -> list[tuple[Document, float]]:
        to_relevance = self._relevance_of(await self.alibrary(), **kwargs)
        found = await self.asimilarity_search_with_score(query, k, **kwargs)
        return [(document, to_relevance(score)) for document, score in found]

    def _select_relevance_score_fn(self) -> Callable[[float], float]:
        return self._relevance_of(self.library)

    # Making one

    @classmethod
    def from_texts(
        cls,
        texts: list[str],
        embedding: Embeddings | None = None,
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: list[str] | None = None,
        **kwargs: Any,
    ) -> Self:
        """A store with these texts; other keywords are those of the class."""
        store = cls(embedding, **kwargs)
        store.add_texts(texts, metadatas, ids=ids)
        return store

    @classmethod
    async def afrom_texts(
        cls,
        texts: list[str],
        embedding: Embeddings | None = None,
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: list[str] | None = None,
        **kwargs: Any,
    ) -> Self:
        """As `from_texts`."""
        store = cls(embedding, **kwargs)
        await store.aadd_texts(texts, metadatas, ids=ids)
        return store

    def _search(self, text: str | None, k: int, *, vector: list[float] | None = None, **kwargs: Any) -> Hits:
        if text is not None and self._embedding is not None and self._mode(kwargs) != "lexical":
            vector = self._embedding.embed_query(text)
        return self.library.query(**self._query(text, vector, k, kwargs))

    async def _asearch(self, text: str | None, k: int, *, vector: list[float] | None = None, **kwargs: Any) -> Hits:
        if text is not None and self._embedding is not None and self._mode(kwargs) != "lexical":
            vector = await self._embedding.aembed_query(text)
        return await (await self.alibrary()).query(**self._query(text, vector, k, kwargs))

    def _mode(self, options: Mapping[str, Any]) -> Mode:
        mode: Mode = options.get("mode") or self.mode
        return mode

    def _query(self, text: str | None, vector: list[float] | None, k: int, options: dict[str, Any]) -> dict[str, Any]:
        """The keywords of a query: a vector alone, a text alone, or both where they are fused."""
        mode = "vector" if text is None else self._mode(options)
        filter = to_filter(options.get("filter"))
        text = None if mode == "vector" and vector is not None else text
        return {**options, "text": text, "vector": vector, "k": k, "mode": mode, "filter": filter}

    def _relevance_of(self, library: Library | AsyncLibrary, **options: Any) -> Callable[[float], float]:
        if self._relevance_score_fn is not None:
            return self._relevance_score_fn
        assert library.info is not None
        return relevance(library.info.metric, self._mode(options), options.get("hybrid") or {})

    def _batches(
        self,
        texts: Iterable[str],
        metadatas: Sequence[dict[str, Any]] | None,
        ids: Sequence[str | None] | None,
        batch_size: int | None = None,
    ) -> Iterable[dict[str, Any]]:
        """The columns of chunks to write, `batch_size` at a time. Raises ValueError where they differ in length."""
        texts = list(texts)
        for name, column in (("metadatas", metadatas), ("ids", ids)):
            if column is not None and len(column) != len(texts):
                raise ValueError(f"{name}: {len(column)} for {len(texts)} texts; there must be one for each text")
        size = batch_size or self._batch_size
        for begin in range(0, len(texts), size):
            part = slice(begin, begin + size)
            batch: dict[str, Any] = {"texts": texts[part]}
            if metadatas is not None:
                batch["metadatas"] = metadatas[part]
                if self._document_id_key is not None:
                    batch["document_ids"] = [metadata.get(self._document_id_key) for metadata in metadatas[part]]
                    batch["create_documents"] = True
            if ids is not None:
                batch["ids"] = ids[part]
            yield batch


def _columns(documents: Iterable[Document]) -> tuple[list[str], list[dict[str, Any]]]:
    documents = list(documents)
    return [one.page_content for one in documents], [one.metadata for one in documents]


def _deleted(ids: list[str] | None, filter: AnyFilter | None) -> dict[str, Any]:
    if filter is not None:
        if ids is not None:
            raise ValueError("delete: takes ids or a filter, not both")
        return {"filter": to_filter(filter)}
    return {"filter": _EVERYTHING} if ids is None else {"ids": ids}


def _document(one: Chunk | Hit) -> Document:
    """A document of LangChain. Where `include` names `document`, what is known of that is among the metadata."""
    metadata = dict(one.metadata or {})
    if (whole := one.document) is not None:
        own = {"document_id": whole.id, "title": whole.title, "source": whole.source}
        metadata = {**{name: value for name, value in own.items() if value}, **whole.metadata, **metadata}
    return Document(id=one.id, page_content=one.text or "", metadata=metadata)


def _listed(k: int, options: Mapping[str, Any]) -> dict[str, Any]:
    """The keywords of a list of the first `k`, of those of a search."""
    return {"page_size": k, "filter": to_filter(options.get("filter")), "include": options.get("include")}
