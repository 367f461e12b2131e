"""Libraries in index files."""

import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from apps.engine.indexes.matrix import Matrix
from apps.engine.metrics import Metric
from apps.engine.storage.index_folder import IndexFolder
from apps.engine.storage.manifest import Identity, Manifest, SegmentRecord
from apps.engine.storage.segment import Segment
from apps.engine.vectors import Float32
from tests.engine.data import sealed_rows_of

DIMENSION = 8
# So many that every type makes what it makes for many rows.
MANY, FEW = 6400, 40
IDENTITY = Identity("mine", DIMENSION, "cosine", 1)


def make_vectors(rows: int, seed: int) -> Float32:
    return np.random.default_rng(seed).standard_normal((rows, DIMENSION)).astype(np.float32)


def make_segment(first: int, rows: int, kind: str = "brute_force", metric: Metric = Metric.COSINE) -> Segment:
    """A segment of `rows` rows, whose keys count from `first` on."""
    keys = np.arange(first, first + rows)
    matrix = Matrix.build(make_vectors(rows, first), metric)
    return Segment.build(keys=keys, matrix=matrix, row_data=sealed_rows_of(keys), kind=kind)


def make_manifest(
    *records: SegmentRecord, number: int = 1, identity: Identity = IDENTITY, created_at: float = 5.0
) -> Manifest:
    return Manifest(
        number,
        identity,
        seq=7,
        token=8,
        usable_seq=9,
        usable_token=10,
        rebuild=0,
        created_at=created_at,
        segments=records,
    )


@dataclass
class StoredLibrary:
    """A library in files at `path`: a large segment with dead rows and a small one without, in one manifest."""

    path: Path
    manifest: Manifest
    segments: tuple[Segment, ...]

    @property
    def folder(self) -> IndexFolder:
        return IndexFolder(self.path)

    def files(self) -> list[Path]:
        return sorted(path for path in self.path.rglob("*") if path.is_file())

    def open(self) -> tuple[Segment, ...]:
        """The segments, as a new process finds them."""
        return self.folder.open(self.folder.read(1, IDENTITY), {})

    def copy_to(self, path: Path) -> "StoredLibrary":
        shutil.copytree(self.path, path)
        return replace(self, path=path)


def store_library(
    path: Path, kind: str = "brute_force", metric: Metric = Metric.COSINE, first: int = 0
) -> StoredLibrary:
    folder = IndexFolder(path)
    large, one = folder.save(make_segment(first, MANY, kind, metric).without(np.arange(first, first + 9)))
    small, other = folder.save(make_segment(first + MANY, FEW, metric=metric))
    manifest = make_manifest(one, other, identity=replace(IDENTITY, metric=metric.value))
    return StoredLibrary(path, folder.publish(manifest, {large.name: large, small.name: small}), (large, small))


def publish_again(library: StoredLibrary, number: int) -> Manifest:
    records = tuple(replace(record, alive=None) for record in library.manifest.segments)
    newer = replace(library.manifest, number=number, segments=records)
    return library.folder.publish(newer, {segment.name: segment for segment in library.segments})
