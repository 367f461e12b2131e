"""Qdrant: a server, or a folder of qdrant-client's local mode. Shards have a module of their own."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from apps.engine.vectors import Float32
from apps.transfer.errors import TransferError
from apps.transfer.sources.base import (
    KEYS_AT_A_TIME,
    Collection,
    Fields,
    Page,
    Row,
    VectorSource,
    choose,
    import_package,
    is_url,
    split_record,
    without_secrets,
)

METRICS: Final = {"Cosine": "cosine", "Dot": "dot", "Euclid": "euclidean"}


class QdrantSource(VectorSource):
    """Payloads are metadata; of several vectors one is chosen. The next page begins with a point's id."""

    def __init__(self, place: str, client: Any, fields: Fields) -> None:
        self.place, self._client, self._fields = place, client, fields

    @classmethod
    def open(cls, location: str, fields: Fields) -> Any:
        if not is_url(location):
            path = Path(location).expanduser().resolve()
            if path.suffix == ".snapshot" or (path / "segments").is_dir():
                from apps.transfer.sources.qdrant_shard import QdrantShardSource

                return QdrantShardSource.open(str(path), fields)
            if not (path / "meta.json").is_file():
                raise TransferError(
                    f"{location!r} is neither a folder of qdrant-client's or Qdrant Edge's, nor a file .snapshot."
                )
            client = import_package("qdrant_client", "qdrant-client").QdrantClient(path=str(path))
            return cls(str(path), client, fields)
        package = import_package("qdrant_client", "qdrant-client")
        client = package.QdrantClient(url=location, api_key=os.environ.get("QDRANT_API_KEY"), timeout=60)
        return cls(without_secrets(location), client, fields)

    def names(self) -> list[str]:
        return [str(one.name) for one in self._client.get_collections().collections]

    def _vectors(self, name: str) -> tuple[str, Any]:
        """The name of the vector that is read, and its parameters."""
        vectors = self._client.get_collection(name).config.params.vectors or {}
        by_name = vectors if isinstance(vectors, dict) else {"": vectors}
        chosen = choose(list(by_name), self._fields.vector, "vector", "--vector")
        return chosen, by_name[chosen]

    def collection(self, name: str) -> Collection:
        vector, params = self._vectors(name)
        if params.multivector_config is not None:
            raise TransferError(f"The points of {name!r} have several vectors each under the name {vector!r}.")
        count = self._client.count(name, exact=True).count
        return Collection(name, count, int(params.size), METRICS.get(params.distance.value))

    def page(self, name: str, after: Any, limit: int) -> Page:
        vector, _ = self._vectors(name)
        points, following = self._client.scroll(
            name, limit=limit, offset=after, with_payload=True, with_vectors=[vector] if vector else True
        )
        rows = [row_of(point, vector, self._fields) for point in points]
        return Page(rows, following if following is None or isinstance(following, int) else str(following))

    def keys(self, name: str) -> Iterator[Sequence[str]]:
        options = {"limit": KEYS_AT_A_TIME, "with_payload": False, "with_vectors": False}
        points, following = self._client.scroll(name, **options)
        yield [str(point.id) for point in points]
        while following is not None:
            points, following = self._client.scroll(name, offset=following, **options)
            yield [str(point.id) for point in points]

    def fetch(self, name: str, keys: Sequence[str]) -> list[Row]:
        vector, _ = self._vectors(name)
        points = self._client.retrieve(
            name, [point_id(key) for key in keys], with_payload=True, with_vectors=[vector] if vector else True
        )
        return [row_of(point, vector, self._fields) for point in points]

    def search(self, name: str, vectors: Float32, metric: str, k: int) -> list[list[str]]:
        vector, _ = self._vectors(name)
        found = (
            self._client.query_points(name, query=query, using=vector or None, limit=k, with_payload=False)
            for query in vectors.tolist()
        )
        return [[str(point.id) for point in answer.points] for answer in found]

    def close(self) -> None:
        self._client.close()


def point_id(key: str) -> int | str:
    """The id of a point: a number or a UUID."""
    return int(key) if key.isdecimal() else key


def row_of(point: Any, vector: str, fields: Fields) -> Row:
    """A point as a row; `vector` names the one that is read."""
    found = point.vector.get(vector) if isinstance(point.vector, dict) else point.vector
    text, metadata = split_record(point.payload or {}, fields)
    return Row(str(point.id), None if found is None else np.asarray(found, np.float32), text, metadata)
