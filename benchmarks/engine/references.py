"""The same searches by other libraries, called directly, one query at a time and one thread."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from apps.engine.metrics import Metric
from benchmarks.dataset import Float32

# Positions of the k nearest of one query.
Search = Callable[[Float32, int], np.ndarray]
# A search for the given search parameters.
Built = Callable[[Mapping[str, Any]], Search]


class NotInstalled(Exception):
    """A reference's library is missing; the message names it."""


def _units(vectors: Float32) -> Float32:
    found: Float32 = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return found


def numpy_scan(vectors: Float32, metric: Metric, build: Mapping[str, Any]) -> Built:
    rows = _units(vectors) if metric is Metric.COSINE else vectors
    squares = (rows * rows).sum(axis=1) / 2 if metric is Metric.EUCLIDEAN else None

    def search(query: Float32, k: int) -> np.ndarray:
        scores = rows @ query
        if squares is not None:
            scores -= squares
        return np.argpartition(scores, len(scores) - k)[-k:]

    return lambda params: search


def faiss_hnsw(vectors: Float32, metric: Metric, build: Mapping[str, Any]) -> Built:
    import faiss

    faiss.omp_set_num_threads(1)
    rows = _units(vectors) if metric is Metric.COSINE else vectors
    kind = faiss.METRIC_L2 if metric is Metric.EUCLIDEAN else faiss.METRIC_INNER_PRODUCT
    index = faiss.IndexHNSWFlat(vectors.shape[1], build["m"], kind)
    index.hnsw.efConstruction = build["ef_construction"]
    index.add(rows)

    def with_params(params: Mapping[str, Any]) -> Search:
        index.hnsw.efSearch = params["ef"]
        ef = faiss.SearchParametersHNSW(efSearch=params["ef"])
        return lambda query, k: index.search(query[np.newaxis], k, params=ef)[1][0]

    return with_params


def faiss_lists(vectors: Float32, metric: Metric, build: Mapping[str, Any]) -> Built:
    """`IVF{lists},RaBitQfs`, and exact scores in float32 of the rows that it lists."""
    import faiss

    faiss.omp_set_num_threads(1)
    rows = _units(vectors) if metric is Metric.COSINE else vectors
    kind = faiss.METRIC_L2 if metric is Metric.EUCLIDEAN else faiss.METRIC_INNER_PRODUCT
    index = faiss.index_factory(vectors.shape[1], f"IVF{build['lists']},RaBitQfs", kind)
    index.train(rows[:: max(1, len(rows) // (64 * build["lists"]))])
    index.add(rows)

    def with_params(params: Mapping[str, Any]) -> Search:
        probes = faiss.SearchParametersIVF(nprobe=params["probes"])

        def search(query: Float32, k: int) -> np.ndarray:
            listed = index.search(query[np.newaxis], params["rescore"], params=probes)[1][0]
            listed = listed[listed >= 0]
            chosen = rows[listed]
            by_l2 = kind == faiss.METRIC_L2
            scores = -((chosen - query) ** 2).sum(axis=1) if by_l2 else chosen @ query
            found: np.ndarray = listed[np.argpartition(-scores, k - 1)[:k]]
            return found

        return search

    return with_params


def hnswlib_index(vectors: Float32, metric: Metric, build: Mapping[str, Any]) -> Built:
    try:
        import hnswlib
    except ImportError as error:
        raise NotInstalled("hnswlib") from error
    space = {Metric.COSINE: "cosine", Metric.DOT: "ip", Metric.EUCLIDEAN: "l2"}[metric]
    index = hnswlib.Index(space, vectors.shape[1])
    index.init_index(len(vectors), M=build["m"], ef_construction=build["ef_construction"], random_seed=0)
    index.add_items(vectors, num_threads=1)

    def with_params(params: Mapping[str, Any]) -> Search:
        def search(query: Float32, k: int) -> np.ndarray:
            index.set_ef(params["ef"])
            labels: np.ndarray = index.knn_query(query, k, num_threads=1)[0][0]
            return labels

        return search

    return with_params


def scipy_tree(vectors: Float32, metric: Metric, build: Mapping[str, Any]) -> Built:
    try:
        from scipy.spatial import cKDTree
    except ImportError as error:
        raise NotInstalled("scipy") from error
    tree = cKDTree(_units(vectors) if metric is Metric.COSINE else vectors)
    return lambda params: lambda query, k: np.atleast_1d(tree.query(query, k)[1])


REFERENCES: dict[str, Callable[[Float32, Metric, Mapping[str, Any]], Built]] = {
    "numpy": numpy_scan,
    "faiss hnsw": faiss_hnsw,
    "faiss ivf": faiss_lists,
    "hnswlib": hnswlib_index,
    "scipy cKDTree": scipy_tree,
}
