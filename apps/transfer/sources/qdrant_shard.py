"""Shards of Qdrant's, without a server: a folder of Qdrant Edge, or the snapshot of a shard or of a collection.

A snapshot is a tar. That of a shard has its segments, each a tar; that of a collection has the same below the number of
each shard, besides the collection's own files.
"""

import json
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Self

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
)
from apps.transfer.sources.qdrant import METRICS, point_id, row_of


class QdrantShardSource(VectorSource):
    """It has one collection, named as the file or folder. A page begins with the number of a shard and a point's id."""

    def __init__(self, path: Path, package: Any, fields: Fields) -> None:
        self.place, self._package, self._fields = str(path), package, fields
        self._unpacked = tempfile.TemporaryDirectory(prefix="vectordb-")
        self._shards: list[Any] = []
        try:
            folders = list(_unpack(path, Path(self._unpacked.name), package)) if path.is_file() else [path]
            self._params = _vector_params(folders[0])
            self._vector = choose(list(self._params), fields.vector, "vector", "--vector")
            self._shards += (package.EdgeShard.load(str(folder)) for folder in folders)
        except BaseException:
            self.close()
            raise

    @classmethod
    def open(cls, location: str, fields: Fields) -> Self:
        return cls(Path(location), import_package("qdrant_edge", "qdrant-edge-py"), fields)

    def names(self) -> list[str]:
        return [Path(self.place).stem]

    def collection(self, name: str) -> Collection:
        params = self._params[self._vector]
        if params.get("multivector_config"):
            raise TransferError(f"The points have several vectors each under the name {self._vector!r}.")
        count = sum(shard.count(self._package.CountRequest(exact=True)) for shard in self._shards)
        return Collection(name, count, int(params["size"]), METRICS.get(params["distance"]))

    def page(self, name: str, after: Any, limit: int) -> Page:
        number, offset = after or (0, None)
        request = self._package.ScrollRequest(
            limit=limit, offset=offset, with_payload=True, with_vector=self._vectors_to_read
        )
        points, following = self._shards[number].scroll(request)
        rows = [row_of(point, self._vector, self._fields) for point in points]
        if following is not None:
            return Page(rows, [number, following if isinstance(following, int) else str(following)])
        return Page(rows, [number + 1, None] if number + 1 < len(self._shards) else None)

    def keys(self, name: str) -> Iterator[Sequence[str]]:
        options = {"limit": KEYS_AT_A_TIME, "with_payload": False, "with_vector": False}
        for shard in self._shards:
            points, following = shard.scroll(self._package.ScrollRequest(**options))
            yield [str(point.id) for point in points]
            while following is not None:
                points, following = shard.scroll(self._package.ScrollRequest(offset=following, **options))
                yield [str(point.id) for point in points]

    def fetch(self, name: str, keys: Sequence[str]) -> list[Row]:
        ids = [point_id(key) for key in keys]
        return [
            row_of(point, self._vector, self._fields)
            for shard in self._shards
            for point in shard.retrieve(ids, with_payload=True, with_vector=self._vectors_to_read)
        ]

    def search(self, name: str, vectors: Float32, metric: str, k: int) -> list[list[str]]:
        is_distance = self._params[self._vector]["distance"] in ("Euclid", "Manhattan")
        answers = []
        for query in vectors.tolist():
            nearest = self._package.Query.Nearest(query, using=self._vector or None)
            request = self._package.QueryRequest(limit=k, query=nearest)
            points = [point for shard in self._shards for point in shard.query(request)]
            points.sort(key=lambda point: point.score, reverse=not is_distance)
            answers.append([str(point.id) for point in points[:k]])
        return answers

    @property
    def _vectors_to_read(self) -> list[str] | bool:
        return [self._vector] if self._vector else True

    def close(self) -> None:
        for shard in self._shards:
            shard.close()
        self._unpacked.cleanup()


def _unpack(snapshot: Path, target: Path, package: Any) -> Iterator[Path]:
    """Unpack a snapshot; return the folders of its shards. Raises TransferError where a shard is not in it."""
    with tarfile.open(snapshot) as archive:
        files = [(PurePosixPath(member.name).parts, member) for member in archive if member.isfile()]
        numbers = sorted({parts[0] for parts, _ in files if len(parts) > 1 and parts[0].isdecimal()}, key=int)
        if not numbers:
            package.EdgeShard.unpack_snapshot(str(snapshot), str(target / "shard"))
            yield target / "shard"
        for number in numbers:
            # The package does not read the log.
            of_shard = {"/".join(of[1:]): file for of, file in files if of[0] == number and of[1] != "wal"}
            if not any(name.startswith("segments/") for name in of_shard):
                raise TransferError(
                    f"Another node has shard {number} of the collection. Migrate a snapshot of each shard into one "
                    "library, by --library: POST /collections/{name}/shards/{id}/snapshots makes them."
                )
            packed = target / f"{number}.snapshot"
            with tarfile.open(packed, "w") as shard:
                for name, file in of_shard.items():
                    entry = tarfile.TarInfo(name)
                    entry.size = file.size
                    shard.addfile(entry, archive.extractfile(file))
            package.EdgeShard.unpack_snapshot(str(packed), str(target / number))
            packed.unlink()
            yield target / number


def _vector_params(folder: Path) -> dict[str, Any]:
    """The parameters of each vector, which a segment's file has."""
    for file in (folder / "segments").glob("*/segment.json"):
        found: dict[str, Any] = json.loads(file.read_bytes())["config"]["vector_data"]
        return found
    raise TransferError(f"{folder} has no segment of a shard: it is not one, or it is empty.")
