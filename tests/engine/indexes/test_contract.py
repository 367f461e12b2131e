"""What every index type promises, under every metric: the interface of `base.py`, against exact search by distance."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from apps.engine.errors import InvalidParameter
from apps.engine.indexes.base import VectorIndex
from apps.engine.indexes.brute_force import BruteForce
from apps.engine.indexes.matrix import Matrix, Neighbors
from apps.engine.indexes.registry import AUTO, INDEX_TYPES, check_search_params, index_type
from apps.engine.metrics import Metric
from apps.engine.vectors import Float32
from tests.engine.approximate import assert_sound, embeddings, recall
from tests.engine.numpy_only import numpy_only

ROWS, DIMENSION, K = 10_000, 64, 10
COPIES = np.sort(np.random.default_rng(4).choice(ROWS, 30, replace=False))
EXACT = ("brute_force", "kd_tree")
# The quickest build that still is a graph.
PARAMS = {"hnsw": {"ef_construction": 48}}
every_type = pytest.mark.parametrize("kind", INDEX_TYPES)
every_metric = pytest.mark.parametrize("metric", Metric)


def build(kind: str, vectors: Float32, metric: Metric) -> VectorIndex:
    return index_type(kind).build(Matrix(vectors, metric), PARAMS.get(kind, {}))


def made() -> tuple[Float32, Float32]:
    """Rows and queries; the rows at `COPIES` are copies of each other."""
    vectors, queries = embeddings(ROWS, DIMENSION), embeddings(30, DIMENSION, seed=1)
    vectors[COPIES] = embeddings(1, DIMENSION, seed=7) * np.float32(2)
    return vectors, queries


@cache
def rows() -> tuple[Float32, Float32]:
    """The rows and queries of all tests, which numpy lets nobody write to."""
    vectors, queries = made()
    vectors.flags.writeable = queries.flags.writeable = False
    return vectors, queries


@cache
def built(kind: str, metric: Metric) -> tuple[Float32, Float32, VectorIndex]:
    vectors, queries = rows()
    return vectors, queries, build(kind, vectors, metric)


def same(one: Neighbors, other: Neighbors) -> bool:
    return (
        one.exact == other.exact
        and one.positions.tolist() == other.positions.tolist()
        and one.scores.tobytes() == other.scores.tobytes()
        and one.compared.tolist() == other.compared.tolist()
    )


@every_type
@every_metric
@pytest.mark.parametrize("k", [1, K, 200])
def test_the_nearest_rows_are_found(kind: str, metric: Metric, k: int) -> None:
    vectors, queries, index = built(kind, metric)
    found = index.search(queries, k)
    # A type may find a scan quicker where many rows are asked for, but not where it is meant to answer.
    assert found.exact == (kind in EXACT) or k == 200
    assert_sound(found, vectors, metric, queries, k)
    assert recall(found, vectors, metric, queries, k) >= (1.0 if found.exact else 0.95)
    assert (found.compared <= ROWS).all()
    assert (found.compared >= k).all()


@every_type
@every_metric
@pytest.mark.parametrize("share", [0.0, 1 / ROWS, 0.01, 0.5, 1.0])
def test_a_mask_is_a_search_among_its_rows(kind: str, metric: Metric, share: float) -> None:
    vectors, queries, index = built(kind, metric)
    order = np.random.default_rng(2).permutation(ROWS)
    allowed = np.zeros(ROWS, np.bool_)
    allowed[order[: round(share * ROWS)]] = True
    found = index.search(queries, K, allowed)
    assert_sound(found, vectors, metric, queries, K, allowed)
    assert recall(found, vectors, metric, queries, K, allowed) >= (1.0 if found.exact or share < 0.1 else 0.95)
    if share == 1.0:
        assert found.positions.tolist() == index.search(queries, K).positions.tolist()


@every_type
@every_metric
def test_more_than_there_are_is_all_there_are(kind: str, metric: Metric) -> None:
    vectors, queries, index = built(kind, metric)
    expected = BruteForce.build(Matrix.build(vectors, metric))
    for k in (ROWS - 1, ROWS, ROWS + 5):
        found = index.search(queries[:2], k)
        assert_sound(found, vectors, metric, queries[:2], k)
    assert found.positions.tolist() == expected.search(queries[:2], k).positions.tolist()


@every_type
@every_metric
@pytest.mark.parametrize("count", [0, 1, 2, 40])
def test_few_rows_are_searched_exactly(kind: str, metric: Metric, count: int) -> None:
    vectors, queries = embeddings(count, 5), embeddings(3, 5, seed=1)
    found = build(kind, vectors, metric).search(queries, 4)
    assert found.exact
    assert_sound(found, vectors, metric, queries, 4)


@every_type
@every_metric
def test_copies_of_a_row_are_found_in_their_order(kind: str, metric: Metric) -> None:
    vectors, _, index = built(kind, metric)
    found = index.search(vectors[COPIES[:1]], len(COPIES))
    assert found.positions[0].tolist() == COPIES.tolist()


@every_type
@every_metric
def test_rows_that_are_all_equal_are_found_in_their_order(kind: str, metric: Metric) -> None:
    vectors = np.tile(embeddings(1, DIMENSION), (ROWS, 1))
    found = build(kind, vectors, metric).search(embeddings(2, DIMENSION, seed=1), 5)
    assert found.positions.tolist() == [list(range(5))] * 2


@every_type
@every_metric
def test_a_query_has_the_same_answer_alone_and_in_a_batch(kind: str, metric: Metric) -> None:
    _, queries, index = built(kind, metric)
    together = index.search(queries, K)
    for i in range(len(queries)):
        alone = index.search(queries[i : i + 1], K)
        assert alone.positions[0].tolist() == together.positions[i].tolist()
        assert alone.scores[0].tobytes() == together.scores[i].tobytes()


@every_type
@every_metric
def test_saved_and_mapped_it_answers_as_before(kind: str, metric: Metric, tmp_path: Path) -> None:
    vectors, queries, index = built(kind, metric)
    np.save(tmp_path / "vectors.npy", vectors)
    folder = tmp_path / "index"
    folder.mkdir()
    index.save(folder)
    loaded = index_type(kind).load(folder, Matrix(np.load(tmp_path / "vectors.npy", mmap_mode="r"), metric))
    assert (len(loaded), loaded.nbytes) == (ROWS, index.nbytes)
    for allowed in (None, np.arange(ROWS) % 3 > 0):
        assert same(loaded.search(queries, K, allowed), index.search(queries, K, allowed))
    # Maintenance deletes the files of old segments while they are searched.
    shutil.rmtree(folder)
    assert same(loaded.search(queries, K), index.search(queries, K))


@every_type
@every_metric
def test_threads_do_not_disturb_each_other(kind: str, metric: Metric) -> None:
    _, queries, index = built(kind, metric)
    masks = [None, *(np.arange(ROWS) % 5 != i for i in range(3))]
    expected = [index.search(queries, K, mask) for mask in masks]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(3):
            found = pool.map(lambda mask: index.search(queries, K, mask), masks)
            assert all(same(one, other) for one, other in zip(found, expected, strict=True))


@every_type
@every_metric
def test_nothing_that_the_caller_gives_is_written_to(kind: str, metric: Metric) -> None:
    vectors, queries, index = built(kind, metric)
    allowed = np.arange(ROWS) % 2 > 0
    allowed.flags.writeable = False
    index.search(queries, K)
    index.search(queries, K, allowed)
    for array, again in zip((vectors, queries, allowed), (*made(), np.arange(ROWS) % 2 > 0), strict=True):
        assert np.array_equal(array, again)


@every_type
@every_metric
def test_until_the_kernels_are_loaded_all_rows_are_compared(kind: str, metric: Metric) -> None:
    vectors, queries, index = built(kind, metric)
    expected = Matrix(vectors, metric)
    for allowed in (None, np.arange(ROWS) % 3 > 0):
        with numpy_only():
            found = index.search(queries[:4], K, allowed)
        assert found.scanned.all()
        assert same(found, expected.search(queries[:4], K, allowed))


@every_type
def test_an_index_that_needs_the_kernels_is_not_built_without_them(kind: str) -> None:
    with numpy_only():
        if kind == "brute_force":
            assert len(build(kind, embeddings(10, 3), Metric.DOT)) == 10
        else:
            with pytest.raises(RuntimeError, match=f"{kind} is built by compiled code"):
                build(kind, embeddings(10, 3), Metric.DOT)


@every_type
def test_parameters_it_does_not_take_are_refused(kind: str) -> None:
    vectors = embeddings(10, 3)
    with pytest.raises(InvalidParameter, match=f"^colour: is no parameter of {kind}"):
        index_type(kind).build(Matrix(vectors, Metric.DOT), {"colour": 1})
    with pytest.raises(InvalidParameter, match=f"^colour: is no search parameter of {kind}"):
        check_search_params(kind, {"colour": 1})
    for parameter in index_type(kind).build_parameters:
        with pytest.raises(InvalidParameter, match=f"^{parameter.name}: must be from"):
            index_type(kind).check_params({parameter.name: parameter.high + 1})


def test_what_stays_in_memory_is_codes_not_rows() -> None:
    resident = {kind: built(kind, Metric.COSINE)[2].resident_bytes / ROWS for kind in INDEX_TYPES}
    assert resident["brute_force"] == 4 * DIMENSION, "there is no 8-bit copy here"
    assert resident["quantized"] <= DIMENSION / 2 + 16
    assert resident["ivf"] <= resident["hnsw"] / 4


def test_a_type_that_is_none_is_refused() -> None:
    with pytest.raises(InvalidParameter, match=f"there are: {AUTO}, brute_force, kd_tree, lsh, quantized, ivf, hnsw$"):
        index_type("annoy")
