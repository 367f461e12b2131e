"""Chroma: a folder as PersistentClient keeps it, or a server."""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Self
from urllib.parse import urlsplit

import numpy as np

from apps.engine.vectors import Float32
from apps.transfer.errors import TransferError
from apps.transfer.sources.base import (
    Collection,
    Fields,
    Page,
    Row,
    VectorSource,
    import_package,
    is_url,
    without_secrets,
)

_METRICS: Final = {"l2": "euclidean", "cosine": "cosine", "ip": "dot"}
_SHOWN: Final = ["embeddings", "documents", "metadatas"]
_IDS_AT_A_TIME: Final = 20_000


class ChromaSource(VectorSource):
    """Documents are texts. A row's place is its number among all."""

    def __init__(self, place: str, client: Any) -> None:
        self.place, self._client = place, client
        self._collections: dict[str, Any] = {}
        # Ids that were read ahead, from a number on.
        self._known: dict[str, tuple[int, list[str]]] = {}

    @classmethod
    def open(cls, location: str, fields: Fields) -> Self:
        chromadb = import_package("chromadb", "chromadb")
        options = {
            "settings": import_package("chromadb.config", "chromadb").Settings(anonymized_telemetry=False),
            "tenant": os.environ.get("CHROMA_TENANT", "default_tenant"),
            "database": os.environ.get("CHROMA_DATABASE", "default_database"),
        }
        if not is_url(location):
            folder = Path(location).expanduser().resolve()
            if not (folder / "chroma.sqlite3").is_file():
                raise TransferError(f"{location!r} is no folder of Chroma's: it has no file chroma.sqlite3.")
            return cls(str(folder), chromadb.PersistentClient(str(folder), **options))
        parts, token = urlsplit(location), os.environ.get("CHROMA_API_KEY")
        client = chromadb.HttpClient(
            host=parts.hostname,
            port=parts.port or (443 if parts.scheme == "https" else 80),
            ssl=parts.scheme == "https",
            headers={"x-chroma-token": token} if token else {},
            **options,
        )
        return cls(without_secrets(location), client)

    def names(self) -> list[str]:
        return [str(one.name) for one in self._client.list_collections()]

    def _collection(self, name: str) -> Any:
        if name not in self._collections:
            # Without its embedding function, which might need a key or a model.
            self._collections[name] = self._client.get_collection(name, embedding_function=None)
        return self._collections[name]

    def collection(self, name: str) -> Collection:
        found = self._collection(name)
        metadata = dict(found.metadata or {})
        space = metadata.pop("hnsw:space", None)
        for index in ("hnsw", "spann"):
            space = ((found.configuration or {}).get(index) or {}).get("space") or space
        first = found.get(limit=1, include=["embeddings"])["embeddings"]
        dimension = len(first[0]) if first is not None and len(first) else None
        return Collection(name, found.count(), dimension, _METRICS.get(str(space or "l2")), metadata)

    def page(self, name: str, after: Any, limit: int) -> Page:
        offset = after or 0
        ids = self._ids(name, offset, limit)
        rows = self.fetch(name, ids) if ids else []
        return Page(rows, offset + len(ids) if len(ids) == limit else None)

    def _ids(self, name: str, offset: int, limit: int) -> list[str]:
        """The ids of a page. Chroma counts its way to a row's number, so that is done once for many pages."""
        first, ids = self._known.get(name, (0, []))
        if not first <= offset <= offset + limit <= first + len(ids):
            found = self._collection(name).get(limit=max(limit, _IDS_AT_A_TIME), offset=offset, include=[])
            first, ids = self._known[name] = offset, list(found["ids"])
        return ids[offset - first : offset - first + limit]

    def keys(self, name: str) -> Iterator[Sequence[str]]:
        offset, collection = 0, self._collection(name)
        while ids := collection.get(limit=_IDS_AT_A_TIME, offset=offset, include=[])["ids"]:
            yield ids
            offset += len(ids)

    def fetch(self, name: str, keys: Sequence[str]) -> list[Row]:
        return _rows(self._collection(name).get(ids=list(keys), include=_SHOWN))

    def search(self, name: str, vectors: Float32, metric: str, k: int) -> list[list[str]]:
        found = self._collection(name).query(query_embeddings=vectors, n_results=k, include=[])
        return [list(ids) for ids in found["ids"]]


def _rows(found: Mapping[str, Any]) -> list[Row]:
    vectors = np.asarray(found["embeddings"], np.float32)
    parts = zip(found["ids"], vectors, found["documents"], found["metadatas"], strict=True)
    return [Row(key, vector, text, metadata or {}) for key, vector, text, metadata in parts]
