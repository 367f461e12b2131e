"""What an answer says of itself: with how many rows the query was compared, and whether a scan proved it."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache

import faiss
import numpy as np
import pytest

from apps.engine import kernels
from apps.engine.indexes.base import NO_PARAMS, Params, VectorIndex
from apps.engine.indexes.matrix import Matrix, Neighbors
from apps.engine.indexes.registry import index_type
from apps.engine.metrics import Metric
from apps.engine.storage.row_data import BufferedRows
from apps.engine.storage.segment import Segment
from apps.engine.storage.view import View
from apps.engine.vectors import Float32, Int64, Mask
from tests.engine.approximate import embeddings, recall

ROWS, DIMENSION = 40_000, 64
KINDS = ("brute_force", "kd_tree", "lsh", "quantized", "ivf", "hnsw")
APPROXIMATE = ("lsh", "quantized", "ivf", "hnsw")
PARAMS = {"hnsw": {"ef_construction": 48}}


@pytest.fixture(autouse=True, scope="module")
def _compiled() -> None:
    kernels.load()


@cache
def rows() -> tuple[Float32, Float32]:
    return embeddings(ROWS, DIMENSION), embeddings(20, DIMENSION, seed=1)


@cache
def built(kind: str, metric: Metric = Metric.COSINE) -> VectorIndex:
    vectors, _ = rows()
    return index_type(kind).build(Matrix.build(vectors, metric), PARAMS.get(kind, {}))


def walked(
    index: VectorIndex, queries: Float32, allowed: np.ndarray | None = None, params: Params = NO_PARAMS
) -> tuple[Neighbors, int]:
    """What is found, and the comparisons that faiss counts meanwhile."""
    faiss.cvar.hnsw_stats.reset()
    found = index.search(queries, 10, allowed, params)
    return found, faiss.cvar.hnsw_stats.ndis


def some(share: float) -> np.ndarray:
    return np.random.default_rng(3).random(ROWS) < share


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("share", [0.0, 0.0003, 0.06])
def test_among_few_rows_a_scan_compares_each(kind: str, share: float) -> None:
    vectors, queries = rows()
    allowed = some(share)
    found = built(kind).search(queries, 10, allowed)
    assert found.exact
    assert found.scanned.all()
    assert found.compared.tolist() == [np.count_nonzero(allowed)] * len(queries)
    assert recall(found, vectors, Metric.COSINE, queries, 10, allowed) == 1.0


@pytest.mark.parametrize("kind", APPROXIMATE)
@pytest.mark.parametrize("share", [0.7, 0.95])
def test_among_many_rows_the_index_is_asked(kind: str, share: float) -> None:
    vectors, queries = rows()
    allowed = some(share)
    found = built(kind).search(queries, 10, allowed)
    assert not found.proven.any()
    assert not found.scanned.any()
    assert recall(found, vectors, Metric.COSINE, queries, 10, allowed) >= 0.98


def test_a_walk_counts_what_faiss_counts() -> None:
    _, queries = rows()
    index = built("hnsw")
    for allowed in (None, some(0.9)):
        found, counted = walked(index, queries, allowed)
        assert found.compared.sum() == counted
        for query, compared in zip(queries, found.compared, strict=True):
            assert walked(index, query[None], allowed)[1] == compared
        # A row that is kept was compared with, and so were the neighbours of most.
        assert (found.compared > 128).all()


def test_walks_of_several_threads_count_apart() -> None:
    _, queries = rows()
    index = built("hnsw")
    expected = index.search(queries, 10).compared.tolist()
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda _: index.search(queries, 10), range(12)):
            assert found.compared.tolist() == expected


def test_codes_are_scanned_whatever_the_mask() -> None:
    _, queries = rows()
    for allowed in (None, some(0.7)):
        assert (built("quantized").search(queries, 10, allowed).compared == ROWS).all()


def test_one_hyperplane_leaves_the_rows_of_one_side() -> None:
    vectors, _ = rows()
    index = index_type("lsh").build(Matrix(vectors, Metric.COSINE), {"tables": 1, "bits": 1})
    compared = index.search(vectors[:2000], 1, params={"probes": 1}).compared
    one, other = np.unique(compared)
    assert one + other == ROWS
    share = np.count_nonzero(compared == one) / len(compared)
    assert share == pytest.approx(one / ROWS, abs=0.05)


def test_a_tree_compares_the_rows_of_the_leaves_that_are_near() -> None:
    line = np.arange(1024, dtype=np.float32)[:, None]
    index = index_type("kd_tree").build(Matrix(line, Metric.EUCLIDEAN), {"leaf_size": 16})
    queries = np.array([[500.2], [511.6], [-7.0]], np.float32)
    # The nearest of all lies in one leaf; of 511.6's two nearest, each in one of two leaves.
    assert index.search(queries, 1).compared.tolist() == [16, 16, 16]
    assert index.search(queries, 2).compared.tolist() == [16, 32, 16]
    assert index.search(queries, 1024).compared.tolist() == [1024] * 3
    assert not index.search(queries, 2).scanned.any()


def test_each_query_of_a_batch_says_how_it_was_answered() -> None:
    vectors, queries = rows()
    segment = Segment.build(
        keys=np.arange(ROWS), matrix=Matrix.build(vectors, Metric.DOT), row_data=BufferedRows(), kind="quantized"
    )
    view = View.of(dimension=DIMENSION, metric=Metric.DOT, segments=(segment,), built_at=0.0)
    # All rows score zero for a query of zeros: no list of codes is conclusive.
    nothing, usual = view.search(np.stack([np.zeros(DIMENSION, np.float32), queries[0]]), 5)
    assert (nothing.exact, nothing.kinds, nothing.keys.tolist()) == (True, {"brute_force"}, [0, 1, 2, 3, 4])
    assert (usual.exact, usual.kinds) == (False, {"quantized"})


class Unsure(Matrix):
    """A scan that proves nothing."""

    def search(self, queries: Float32, k: int, allowed: Mask | None = None, order: Int64 | None = None) -> Neighbors:
        found = super().search(queries, k, allowed, order)
        return replace(found, proven=np.zeros(len(queries), np.bool_))


@pytest.mark.parametrize("kind", ["quantized", "hnsw", "lsh"])
def test_an_index_that_leaves_a_query_to_a_scan_claims_no_more_than_that(kind: str) -> None:
    few, queries = rows()[0][:100], rows()[1]
    for scan, proves in ((Matrix, True), (Unsure, False)):
        index = index_type(kind).build(scan(few, Metric.COSINE))
        found = index.search(queries, 5)
        assert found.scanned.all()
        assert (found.proven == proves).all()


def test_all_walks_for_a_query_count() -> None:
    vectors, queries = rows()
    index, ef = built("hnsw"), 20
    near = np.zeros(ROWS, np.bool_)
    near[np.argsort(vectors @ queries[0] / np.linalg.norm(vectors, axis=1))[-2 * ef :]] = True
    found, compared = walked(index, queries[:1], ~near, {"ef": ef})
    # What the first walk keeps is not allowed.
    assert found.compared[0] == compared > walked(index, queries[:1], ~near, {"ef": 4 * ef})[1]
    assert not found.scanned.any()


def test_a_batch_whose_lists_do_not_fit_into_memory_is_answered_in_steps() -> None:
    # Lists of a million rows in all are made at once.
    queries, params = embeddings(150, DIMENSION, seed=2), {"rescore": 9000}
    batch = built("quantized").search(queries, 10, some(0.5), params)
    assert not batch.scanned.any()
    for i in (0, 115, 116, 117, 149):
        alone = built("quantized").search(queries[i : i + 1], 10, some(0.5), params)
        for one, other in zip(vars(alone).values(), vars(batch).values(), strict=True):
            np.testing.assert_array_equal(one[0], other[i])
