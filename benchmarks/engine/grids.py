"""What is measured: data sets, and for each index type the parameters to try."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from apps.engine.metrics import Metric
from benchmarks.dataset import Dataset, Float32
from benchmarks.hard_data import hard_dataset


@dataclass(frozen=True)
class DataSet:
    """`make` gives rows [n, dimension] and queries [m, dimension], from the real data where it is of some."""

    name: str
    metric: Metric
    make: Callable[[Dataset], tuple[Float32, Float32]]


@dataclass(frozen=True)
class Entry:
    """An index type, or a reference, with build and search parameters; each of `searches` is one line of the table."""

    kind: str
    build: Mapping[str, Any] = field(default_factory=dict)
    searches: Sequence[Mapping[str, Any]] = ({},)
    most_rows: int = 10**9
    most_dimensions: int = 10**9
    least_rows: int = 0


_QUERIES = 500


def _wordnet(rows: int | None) -> Callable[[Dataset], tuple[Float32, Float32]]:
    def make(data: Dataset) -> tuple[Float32, Float32]:
        vectors = data.vectors
        if rows is not None:
            chosen = np.random.default_rng(0).choice(len(vectors), rows, replace=False)
            vectors = np.ascontiguousarray(vectors[np.sort(chosen)])
        return vectors, data.queries[:_QUERIES]

    return make


def _hard(rows: int) -> Callable[[Dataset], tuple[Float32, Float32]]:
    def make(data: Dataset) -> tuple[Float32, Float32]:
        hard = hard_dataset(data, rows)
        return hard.vectors, hard.queries[:_QUERIES]

    return make


def _uniform(rows: int, dimension: int) -> Callable[[Dataset], tuple[Float32, Float32]]:
    def make(data: Dataset) -> tuple[Float32, Float32]:
        rng = np.random.default_rng(1)
        return rng.random((rows, dimension), np.float32), rng.random((_QUERIES, dimension), np.float32)

    return make


def clustered(rows: int, dimension: int, seed: int = 2) -> tuple[Float32, Float32]:
    """Gaussian clusters of a hundred rows about centres that lie on a few directions, as embeddings do; queries are
    drawn from the same clusters."""
    rng = np.random.default_rng(seed)
    count = max(1, rows // 100)
    inner = min(dimension, 64)
    basis = (rng.standard_normal((inner, dimension)) / np.sqrt(inner)).astype(np.float32)
    centres = rng.standard_normal((count, inner)).astype(np.float32) @ basis

    def drawn(number: int) -> Float32:
        spread = rng.standard_normal((number, inner)).astype(np.float32) @ basis
        noise = rng.standard_normal((number, dimension), np.float32)
        found: Float32 = centres[rng.integers(0, count, number)] + 0.5 * spread + 0.1 * noise
        return found

    return drawn(rows), drawn(_QUERIES)


def _clustered(rows: int, dimension: int) -> Callable[[Dataset], tuple[Float32, Float32]]:
    return lambda data: clustered(rows, dimension)


DATA_SETS = [
    DataSet("wordnet, 1,000 x 384", Metric.COSINE, _wordnet(1000)),
    DataSet("wordnet, 10,000 x 384", Metric.COSINE, _wordnet(10_000)),
    DataSet("wordnet, 30,000 x 384", Metric.COSINE, _wordnet(30_000)),
    DataSet("wordnet, 117,659 x 384", Metric.COSINE, _wordnet(None)),
    DataSet("hard, 200,000 x 384", Metric.COSINE, _hard(200_000)),
    DataSet("hard, 1,000,000 x 384", Metric.COSINE, _hard(1_000_000)),
    DataSet("clustered, 500,000 x 384", Metric.COSINE, _clustered(500_000, 384)),
    DataSet("uniform, 1,000 x 3", Metric.EUCLIDEAN, _uniform(1000, 3)),
    DataSet("uniform, 100,000 x 3", Metric.EUCLIDEAN, _uniform(100_000, 3)),
    DataSet("uniform, 100,000 x 8", Metric.EUCLIDEAN, _uniform(100_000, 8)),
    DataSet("clustered, 100,000 x 16", Metric.EUCLIDEAN, _clustered(100_000, 16)),
    DataSet("clustered, 10,000 x 1,536", Metric.COSINE, _clustered(10_000, 1536)),
]

_GRAPH, _WALKS = {"m": 16, "ef_construction": 128}, [{"ef": ef} for ef in (32, 64, 128, 256)]

ENTRIES = [
    Entry("brute_force"),
    Entry("kd_tree", most_dimensions=20),
    Entry("lsh", searches=({}, {"probes": 1}, {"probes": 64}), most_rows=200_000),
    Entry("quantized", least_rows=2000),
    Entry("ivf", searches=({}, *({"recall": share} for share in (0.9, 0.95, 0.97, 0.98, 0.995))), least_rows=30_000),
    Entry("hnsw", _GRAPH, _WALKS, least_rows=5000),
]

REFERENCES = [
    Entry("numpy"),
    Entry("faiss hnsw", _GRAPH, _WALKS, least_rows=5000, most_rows=200_000),
    Entry(
        "faiss ivf",
        {"lists": 1024},
        [{"probes": 32, "rescore": 200}, {"probes": 64, "rescore": 300}, {"probes": 128, "rescore": 600}],
        least_rows=100_000,
    ),
    Entry("hnswlib", _GRAPH, _WALKS, least_rows=5000, most_rows=200_000),
    Entry("scipy cKDTree", most_dimensions=20),
]
