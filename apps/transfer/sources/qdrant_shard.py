"""A shard of Qdrant's, without a server: a folder of Qdrant Edge, or the snapshot of a shard."""

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from apps.engine.vectors import Float32
from apps.transfer.errors import TransferError
from apps.transfer.sources.base import Collection, Fields, Page, Row, VectorSource, choose, import_package
from apps.transfer.sources.qdrant import METRICS, point_id, row_of


class QdrantShardSource(VectorSource):
    """It has one collection, named as the file or folder."""

    def __init__(self, path: Path, package: Any, fields: Fields) -> None:
        self.place, self._package, self._fields = str(path), package, fields
        self._unpacked: tempfile.TemporaryDirectory[str] | None = None
        folder = path
        if path.is_file():
            self._unpacked = tempfile.TemporaryDirectory(prefix="vectordb-")
            folder = Path(self._unpacked.name) / "shard"
            package.EdgeShard.unpack_snapshot(str(path), str(folder))
        self._params = _vector_params(folder)
        self._vector = choose(list(self._params), fields.vector, "vector", "--vector")
        self._shard = package.EdgeShard.load(str(folder))

    @classmethod
    def open(cls, location: str, fields: Fields) -> Self:
        return cls(Path(location), import_package("qdrant_edge", "qdrant-edge-py"), fields)

    def names(self) -> list[str]:
        return [Path(self.place).stem]

    def collection(self, name: str) -> Collection:
        params = self._params[self._vector]
        if params.get("multivector_config"):
            raise TransferError(f"The points have several vectors each under the name {self._vector!r}.")
        count = self._shard.count(self._package.CountRequest(exact=True))
        return Collection(name, count, int(params["size"]), METRICS.get(params["distance"]))

    def page(self, name: str, after: Any, limit: int) -> Page:
        request = self._package.ScrollRequest(
            limit=limit, offset=after, with_payload=True, with_vector=self._vectors_to_read
        )
        points, following = self._shard.scroll(request)
        rows = [row_of(point, self._vector, self._fields) for point in points]
        return Page(rows, following if following is None or isinstance(following, int) else str(following))

    def fetch(self, name: str, keys: Sequence[str]) -> list[Row]:
        points = self._shard.retrieve(
            [point_id(key) for key in keys], with_payload=True, with_vector=self._vectors_to_read
        )
        return [row_of(point, self._vector, self._fields) for point in points]

    def search(self, name: str, vectors: Float32, metric: str, k: int) -> list[list[str]]:
        queries = (self._package.Query.Nearest(query, using=self._vector or None) for query in vectors.tolist())
        found = (self._shard.query(self._package.QueryRequest(limit=k, query=query)) for query in queries)
        return [[str(point.id) for point in points] for points in found]

    @property
    def _vectors_to_read(self) -> list[str] | bool:
        return [self._vector] if self._vector else True

    def close(self) -> None:
        self._shard.close()
        if self._unpacked is not None:
            self._unpacked.cleanup()


def _vector_params(folder: Path) -> dict[str, Any]:
    """The parameters of each vector, which a segment's file has."""
    for file in (folder / "segments").glob("*/segment.json"):
        found: dict[str, Any] = json.loads(file.read_bytes())["config"]["vector_data"]
        return found
    raise TransferError(f"{folder} has no segment of a shard: it is not one, or it is empty.")
