"""The k-d tree: exact, whatever the data, and looking at few rows where there are few dimensions."""

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.engine import kernels
from apps.engine.errors import InvalidParameter
from apps.engine.indexes.brute_force import BruteForce
from apps.engine.indexes.kd_tree import KdTree
from apps.engine.indexes.matrix import Matrix, Neighbors
from apps.engine.indexes.registry import check_search_params
from apps.engine.metrics import Metric, exact_scores
from apps.engine.vectors import Float32
from tests.engine.data import (
    KINDS,
    MAGNITUDES,
    Problem,
    assert_k_best,
    bounded,
    made,
    metrics,
    problems,
    seeds,
    storable,
    without_zeros,
)


@pytest.fixture(autouse=True, scope="module")
def _compiled() -> None:
    kernels.load()


def search(problem: Problem, leaf_size: int = 32) -> Neighbors:
    index = KdTree.build(Matrix(problem.vectors, problem.metric), {"leaf_size": leaf_size})
    return index.search(problem.queries, problem.k, problem.allowed)


def assert_exact(found: Neighbors, problem: Problem) -> None:
    """`found` is the answer to `problem`, and compares no more rows than are allowed."""
    rows = len(problem.vectors) if problem.allowed is None else np.count_nonzero(problem.allowed)
    assert (found.compared >= min(problem.k, rows)).all()
    assert (found.compared <= rows).all()
    assert_k_best(replace(found, compared=np.full(len(problem.queries), rows)), problem)


@bounded(150)
@given(problem=problems(), leaf_size=st.sampled_from([8, 9, 32, 100]))
def test_the_answer_is_the_k_best(problem: Problem, leaf_size: int) -> None:
    assert_exact(search(problem, leaf_size), problem)


@bounded(100)
@given(
    metric=metrics,
    kind=st.sampled_from(KINDS),
    magnitude=st.sampled_from(MAGNITUDES),
    query_magnitude=st.sampled_from(MAGNITUDES),
    dimension=st.integers(1, 9),
    rows=st.integers(500, 6000),
    k=st.sampled_from([1, 2, 10, 100]),
    share=st.sampled_from([None, 0.3, 0.9]),
    seed=seeds,
)
def test_the_answer_is_the_k_best_of_many_rows_in_few_dimensions(
    metric: Metric,
    kind: str,
    magnitude: float,
    query_magnitude: float,
    dimension: int,
    rows: int,
    k: int,
    share: float | None,
    seed: int,
) -> None:
    rng = np.random.default_rng(seed)
    query = without_zeros(storable(rng.standard_normal((1, dimension)) * query_magnitude))[0]
    vectors = without_zeros(made(rng, kind, rows, query, magnitude))
    near = vectors[rng.integers(0, rows)] * np.float32(1.0001)
    queries = without_zeros(storable(np.stack([query, -query, near])))
    problem = Problem(vectors, queries, metric, k, None if share is None else rng.random(rows) < share)
    assert_exact(search(problem, leaf_size=8), problem)


@pytest.mark.parametrize("metric", Metric)
def test_rows_on_a_grid_tie_by_position(metric: Metric) -> None:
    # Each value lies on a split, and each distance is shared by many rows.
    rng = np.random.default_rng(5)
    grid = np.stack(np.meshgrid(*[np.arange(-5, 6)] * 3), axis=-1).reshape(-1, 3).astype(np.float32)
    vectors = without_zeros(np.repeat(grid, 5, axis=0)[rng.permutation(5 * len(grid))])
    for k in (1, 7, 50, 1000):
        problem = Problem(vectors, without_zeros(grid[::97] + np.float32([0, 0.5, 1])), metric, k, None)
        assert_exact(search(problem), problem)


@pytest.mark.parametrize("metric", Metric)
@pytest.mark.parametrize("distinct", [1, 2, 40])
def test_a_hundred_thousand_copies_of_few_rows_are_rows_like_others(metric: Metric, distinct: int) -> None:
    rng = np.random.default_rng(distinct)
    vectors = rng.standard_normal((distinct, 3)).astype(np.float32)[rng.integers(0, distinct, 100_000)]
    problem = Problem(vectors, np.concatenate([vectors[:1], -vectors[:1]]), metric, 10, None)
    assert_exact(search(problem), problem)


@pytest.mark.parametrize("seed", range(20))
def test_products_that_cancel_cost_no_result(seed: int) -> None:
    # Sums of float64 depend on their order here: by the order, small terms are lost beside large ones or not.
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((3000, 32)) * 0.1
    large = rng.standard_normal(3000) * 1e15
    vectors[:, 0], vectors[:, 20] = large, -large
    problem = Problem(storable(vectors), np.ones((1, 32), np.float32), Metric.DOT, 5, None)
    assert_exact(search(problem), problem)


@pytest.mark.parametrize("metric", Metric)
def test_a_dimension_that_is_the_same_in_all_rows_does_no_harm(metric: Metric) -> None:
    rng = np.random.default_rng(2)
    vectors = rng.standard_normal((5000, 4)).astype(np.float32)
    vectors[:, [0, 2]] = [3.5, 0.0]
    problem = Problem(vectors, rng.standard_normal((5, 4)).astype(np.float32), metric, 10, None)
    assert_exact(search(problem), problem)


@pytest.mark.parametrize("metric", Metric)
@pytest.mark.parametrize("rows", [0, 1, 2, 31, 32, 33, 65])
def test_few_rows_are_all_found(metric: Metric, rows: int) -> None:
    rng = np.random.default_rng(rows)
    problem = Problem(*rng.standard_normal((2, rows, 2)).astype(np.float32), metric, 40, None)
    problem = replace(problem, queries=np.ones((2, 2), np.float32))
    assert_exact(search(problem), problem)


@pytest.mark.parametrize(("dimension", "share"), [(2, 0.01), (3, 0.02), (8, 0.25)])
@pytest.mark.parametrize("metric", Metric)
def test_few_rows_are_compared_in_few_dimensions(metric: Metric, dimension: int, share: float) -> None:
    rng = np.random.default_rng(dimension)
    vectors, queries = (rng.standard_normal((rows, dimension)).astype(np.float32) for rows in (50_000, 100))
    found = KdTree.build(Matrix(vectors, metric)).search(queries, 10)
    assert found.compared.mean() < share * len(vectors)


def test_a_mask_is_no_reason_to_compare_more_than_it_allows() -> None:
    rng = np.random.default_rng(1)
    vectors, queries = (rng.random((rows, 3), dtype=np.float32) for rows in (50_000, 20))
    index = KdTree.build(Matrix(vectors, Metric.EUCLIDEAN))
    for share in (0.001, 0.02, 0.3, 0.9):
        allowed = rng.random(len(vectors)) < share
        found = index.search(queries, 10, allowed)
        assert (found.compared <= np.count_nonzero(allowed)).all()
        assert_exact(found, Problem(vectors, queries, Metric.EUCLIDEAN, 10, allowed))
    assert found.compared.mean() < 500


@bounded(30)
@given(problem=problems(), seed=seeds)
def test_a_query_has_the_same_answer_alone_and_in_a_batch(problem: Problem, seed: int) -> None:
    others = np.random.default_rng(seed).standard_normal((4, problem.queries.shape[1])).astype(np.float32)
    queries = np.concatenate([others[:2], problem.queries, others[2:]])
    index = KdTree.build(Matrix(problem.vectors, problem.metric))
    together = index.search(queries, problem.k, problem.allowed)
    for i, query in enumerate(queries):
        alone = index.search(query[None], problem.k, problem.allowed)
        assert alone.positions[0].tolist() == together.positions[i].tolist()
        assert alone.scores[0].tobytes() == together.scores[i].tobytes()
        assert alone.compared[0] == together.compared[i]


@bounded(30)
@given(problem=problems())
def test_scores_are_those_of_every_other_index(problem: Problem) -> None:
    found = search(problem)
    for query, positions, scores in zip(problem.queries, found.positions, found.scores, strict=True):
        rows = positions[positions >= 0]
        assert scores[: len(rows)].tobytes() == exact_scores(problem.metric, problem.vectors, query, rows).tobytes()


@bounded(15)
@given(problem=problems())
def test_nothing_that_the_caller_gives_is_written_to(problem: Problem) -> None:
    given_arrays = [array for array in (problem.vectors, problem.queries, problem.allowed) if array is not None]
    before = [array.copy() for array in given_arrays]
    for array in given_arrays:
        array.flags.writeable = False
    search(problem)
    for array, copy in zip(given_arrays, before, strict=True):
        assert np.array_equal(array, copy)


def _every_second_column(array: Float32) -> Float32:
    return np.repeat(array, 2, axis=1)[:, ::2]


@pytest.mark.parametrize("laid_out", [np.asfortranarray, _every_second_column])
@bounded(20)
@given(problem=problems())
def test_the_layout_in_memory_makes_no_difference(laid_out: Callable[[Float32], Float32], problem: Problem) -> None:
    expected = search(problem)
    found = search(replace(problem, vectors=laid_out(problem.vectors), queries=laid_out(problem.queries)))
    assert found.positions.tolist() == expected.positions.tolist()
    assert found.scores.tobytes() == expected.scores.tobytes()


@pytest.mark.parametrize("metric", Metric)
@pytest.mark.parametrize("rows", [0, 1, 3000])
def test_a_saved_index_answers_as_before_from_mapped_files(tmp_path: Path, metric: Metric, rows: int) -> None:
    rng = np.random.default_rng(rows)
    np.save(tmp_path / "vectors.npy", rng.standard_normal((rows, 3)).astype(np.float32))
    vectors = np.load(tmp_path / "vectors.npy", mmap_mode="r")
    queries = rng.standard_normal((5, 3)).astype(np.float32)
    allowed = rng.random(rows) < 0.7
    index = KdTree.build(Matrix(vectors, metric))
    index.save(tmp_path)
    again = KdTree.load(tmp_path, Matrix(vectors, metric))
    assert (len(again), again.nbytes) == (len(index), index.nbytes)
    for mask in (None, allowed):
        expected, found = index.search(queries, 10, mask), again.search(queries, 10, mask)
        assert found.positions.tolist() == expected.positions.tolist()
        assert found.scores.tobytes() == expected.scores.tobytes()
        assert found.compared.tolist() == expected.compared.tolist()


def test_a_missing_file_is_an_error_of_the_file(tmp_path: Path) -> None:
    vectors = np.ones((40, 2), np.float32)
    KdTree.build(Matrix(vectors, Metric.DOT)).save(tmp_path)
    (tmp_path / "boxes.npy").unlink()
    with pytest.raises(OSError, match=r"boxes\.npy"):
        KdTree.load(tmp_path, Matrix(vectors, Metric.DOT))


def test_threads_search_one_index_at_once() -> None:
    rng = np.random.default_rng(3)
    vectors, queries = (rng.standard_normal((rows, 4)).astype(np.float32) for rows in (20_000, 200))
    index = KdTree.build(Matrix(vectors, Metric.COSINE))
    expected = BruteForce.build(Matrix.build(vectors, Metric.COSINE)).search(queries, 10).positions
    found: dict[int, list[list[int]]] = {}

    def read(thread: int) -> None:
        order = np.random.default_rng(thread).permutation(len(queries))
        answers = {int(i): index.search(queries[i : i + 1], 10).positions[0].tolist() for i in order}
        found[thread] = [answers[i] for i in range(len(queries))]

    threads = [threading.Thread(target=read, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found.get(number) for number in range(4)] == [expected.tolist()] * 4


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"leaf_size": 7}, "leaf_size: must be from 8 to 512, not 7"),
        ({"leaf_size": 513}, "leaf_size: must be from 8 to 512, not 513"),
        ({"leaf_size": 16.0}, "leaf_size: must be a whole number from 8 to 512"),
        ({"leaves": 3}, "leaves: is no parameter of kd_tree; there are: leaf_size"),
    ],
)
def test_parameters_that_make_no_sense_are_refused(params: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidParameter, match=f"^{message}$"):
        KdTree.build(Matrix(np.ones((1, 1), np.float32), Metric.DOT), params)


def test_it_takes_no_search_parameters() -> None:
    with pytest.raises(InvalidParameter, match="probes: is no search parameter of kd_tree"):
        check_search_params("kd_tree", {"probes": 1})


def test_it_says_where_it_is_of_no_use() -> None:
    assert KdTree.warning(20) is None
    assert "in 384 it compares nearly all rows" in (KdTree.warning(384) or "")


def test_it_says_what_it_holds() -> None:
    vectors = np.ones((1000, 3), np.float32)
    index = KdTree.build(Matrix(vectors, Metric.DOT))
    assert len(index) == 1000
    assert vectors.nbytes < index.nbytes < 2 * vectors.nbytes + 8 * len(vectors)
