"""Exact search: the k best by the plain float64 product, ties by position, whatever the data, with compiled kernels and
without."""

import itertools
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.engine import kernels
from apps.engine.errors import InvalidParameter
from apps.engine.indexes.brute_force import BruteForce
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
from tests.engine.numpy_only import numpy_only

MiB = 1 << 20


@pytest.fixture(scope="module", params=["compiled", "numpy"], autouse=True)
def _kernels(request: pytest.FixtureRequest) -> Iterator[None]:
    kernels.load()
    with numpy_only() if request.param == "numpy" else nullcontext():
        yield


def search(problem: Problem) -> Neighbors:
    return BruteForce.build(Matrix.build(problem.vectors, problem.metric)).search(
        problem.queries, problem.k, problem.allowed
    )


@bounded(100)
@given(problems())
def test_the_answer_is_the_k_best(problem: Problem) -> None:
    assert_k_best(search(problem), problem)


@bounded(30)
@given(
    metric=metrics,
    kind=st.sampled_from(KINDS),
    rows=st.integers(2600, 4000),
    k=st.integers(1, 10),
    seed=seeds,
)
def test_the_answer_is_the_k_best_of_many_rows(metric: Metric, kind: str, rows: int, k: int, seed: int) -> None:
    # From 256 k rows on, the floor of the short-list comes from the maxima of columns.
    rng = np.random.default_rng(seed)
    query = rng.standard_normal(4).astype(np.float32)
    vectors = without_zeros(made(rng, kind, rows, query, 1.0))
    problem = Problem(vectors, np.stack([query, -query]), metric, k, None)
    assert_k_best(search(problem), problem)


@pytest.mark.parametrize("magnitude", MAGNITUDES)
@pytest.mark.parametrize("metric", Metric)
def test_near_ties_are_told_apart_at_every_magnitude(metric: Metric, magnitude: float) -> None:
    rng = np.random.default_rng(7)
    for query_magnitude, dimension in itertools.product(MAGNITUDES, (1, 3, 16, 65)):
        query = rng.standard_normal(dimension)
        vectors = without_zeros(storable(query * magnitude * (1 + rng.standard_normal((60, dimension)) * 2e-7)))
        queries = without_zeros(storable(np.stack([query, -query]) * query_magnitude))
        problem = Problem(vectors, queries, metric, k=3, allowed=None)
        assert_k_best(search(problem), problem)


@pytest.mark.parametrize("metric", Metric)
def test_roundings_that_all_go_one_way_cost_no_result(metric: Metric) -> None:
    # Summed in order, each product of the best row is lost (it is below half an ulp of the sum so far), and each one
    # of the other rows is rounded up to an ulp: the quick scores err by nearly all that their bound allows.
    dimension, small = 322, 2.0**-12
    query = np.full(dimension, small)
    query[0], query[-1] = 1.0, 0.0
    best, other = query.copy(), query * 1.02
    other[0] = 1.0
    if metric is Metric.DOT:
        best[1:] *= 0.98
        best[0] += 2.0**-20
    elif metric is Metric.COSINE:
        other[-1] = 1.4e-3
    vectors = np.tile(other, (40, 1)).astype(np.float32)
    vectors[23] = best
    queries = np.tile(query, (2, 1)).astype(np.float32)
    assert int(np.argmax(exact_scores(metric, vectors, queries[0]))) == 23
    index = BruteForce.build(Matrix.build(vectors, metric))
    assert index.search(queries, 1).positions.tolist() == [[23], [23]]
    assert index.search(queries[:1], 1).positions.tolist() == [[23]]


@pytest.mark.parametrize("magnitude", [1.0, 1e15, 1e-10, 1e-30])
def test_rows_whose_norm_float32_cannot_hold_have_a_cosine_too(magnitude: float) -> None:
    # The norms are 5.66 and 6.40 times the smallest float32, and both are rounded to 6.
    smallest = 2.0**-149
    vectors = np.array([[5 * smallest, 4 * smallest]] * 20 + [[4 * smallest] * 2, [1.0, 0.7]], np.float32)
    queries = np.full((2, 2), magnitude, np.float32)
    index = BruteForce.build(Matrix.build(vectors, Metric.COSINE))
    assert index.search(queries, 3).positions.tolist() == [[20, 0, 1]] * 2
    assert index.search(queries[:1], 3).scores[0].tolist() == pytest.approx([1.0, 0.99388, 0.99388], abs=1e-5)


@pytest.mark.parametrize("metric", [Metric.DOT, Metric.EUCLIDEAN])
def test_zero_vectors_are_ranked_like_others(metric: Metric) -> None:
    vectors = np.array([[0, 0], [-1, 0], [0, 0], [2, 0]], np.float32)
    found = BruteForce.build(Matrix.build(vectors, metric)).search(np.array([[0, 0], [1, 0]], np.float32), 3)
    assert found.positions.tolist() == ([[0, 1, 2], [3, 0, 2]] if metric is Metric.DOT else [[0, 2, 1], [0, 2, 3]])


@bounded(30)
@given(problem=problems(), seed=seeds)
def test_a_query_has_the_same_answer_alone_and_in_a_batch(problem: Problem, seed: int) -> None:
    others = np.random.default_rng(seed).standard_normal((4, problem.queries.shape[1])).astype(np.float32)
    queries = np.concatenate([others[:2], problem.queries, others[2:]])
    index = BruteForce.build(Matrix.build(problem.vectors, problem.metric))
    together = index.search(queries, problem.k, problem.allowed)
    for i, query in enumerate(queries):
        alone = index.search(query[None], problem.k, problem.allowed)
        assert alone.positions[0].tolist() == together.positions[i].tolist()
        assert alone.scores[0].tobytes() == together.scores[i].tobytes()


@bounded(30)
@given(problem=problems(masked=False), copies=st.integers(1, 30), seed=seeds)
def test_equal_rows_tie_bit_for_bit_wherever_they_lie(problem: Problem, copies: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows = len(problem.vectors) + copies
    places = np.sort(rng.choice(rows, copies, replace=False))
    vectors = np.empty((rows, problem.queries.shape[1]), np.float32)
    vectors[np.setdiff1d(np.arange(rows), places)] = problem.vectors
    vectors[places] = problem.queries[-1]
    found = BruteForce.build(Matrix.build(vectors, problem.metric)).search(problem.queries[:1], rows)
    where = np.flatnonzero(np.isin(found.positions[0], places))
    assert found.positions[0][where].tolist() == places.tolist(), "of two equal rows the later one came first"
    assert len({score.tobytes() for score in found.scores[0][where]}) == 1


@pytest.mark.parametrize("metric", Metric)
@pytest.mark.parametrize("dimension", [1, 3, 8, 9, 127, 384, 1000, 8192])
def test_equal_rows_have_one_score_however_many_there_are(metric: Metric, dimension: int) -> None:
    row, query = np.random.default_rng(dimension).standard_normal((2, dimension)).astype(np.float32)
    scores: set[float] = set()
    for rows in (1, 2, 7, 64, 300):
        found = BruteForce.build(Matrix.build(np.tile(row, (rows, 1)), metric)).search(query[None], rows)
        assert found.positions[0].tolist() == list(range(rows))
        scores.update(found.scores[0].tolist())
    assert len(scores) == 1


@bounded(30)
@given(problem=problems(masked=False), share=st.sampled_from([0.0, 0.01, 0.12, 0.13, 0.5, 0.99, 1.0]), seed=seeds)
def test_a_mask_is_a_search_among_its_rows_only(problem: Problem, share: float, seed: int) -> None:
    allowed = np.random.default_rng(seed).random(len(problem.vectors)) < share
    kept = np.flatnonzero(allowed)
    masked = BruteForce.build(Matrix.build(problem.vectors, problem.metric)).search(problem.queries, problem.k, allowed)
    alone = BruteForce.build(Matrix.build(problem.vectors[kept], problem.metric)).search(problem.queries, problem.k)
    expected = np.where(alone.positions < 0, -1, kept[alone.positions] if len(kept) else -1)
    assert masked.positions.tolist() == expected.tolist()
    assert masked.scores.tobytes() == alone.scores.tobytes()
    assert masked.compared.tolist() == alone.compared.tolist()


@pytest.mark.parametrize("dimension", [4, 64])
@pytest.mark.parametrize("share", [0.1, 0.9])
def test_the_layout_of_a_mask_makes_no_difference(dimension: int, share: float) -> None:
    rng = np.random.default_rng(0)
    vectors, queries = storable(rng.standard_normal((1000, dimension))), storable(rng.standard_normal((2, dimension)))
    allowed = rng.random(2000) < share
    index = BruteForce.build(Matrix.build(vectors, Metric.COSINE))
    expected = index.search(queries, 9, allowed[::2].copy())
    assert index.search(queries, 9, allowed[::2]).positions.tolist() == expected.positions.tolist()


@pytest.mark.parametrize("metric", Metric)
def test_a_mask_of_no_row_finds_nothing(metric: Metric) -> None:
    index = BruteForce.build(Matrix.build(np.ones((50, 2), np.float32), metric))
    found = index.search(np.ones((2, 2), np.float32), 3, np.zeros(50, np.bool_))
    assert found.positions.tolist() == [[-1] * 3] * 2
    assert found.compared.tolist() == [0, 0]


@pytest.mark.parametrize("metric", Metric)
@pytest.mark.parametrize("row", [0, 31, 49])
def test_a_mask_of_one_row_finds_that_row(metric: Metric, row: int) -> None:
    vectors = np.random.default_rng(row).standard_normal((50, 2)).astype(np.float32)
    allowed = np.arange(50) == row
    found = BruteForce.build(Matrix.build(vectors, metric)).search(-vectors[row : row + 1], 3, allowed)
    assert found.positions.tolist() == [[row, -1, -1]]
    assert found.compared.tolist() == [1]


@pytest.mark.parametrize("metric", Metric)
@pytest.mark.parametrize("dimension", [1, 384])
def test_an_empty_matrix_has_no_neighbours(metric: Metric, dimension: int) -> None:
    index = BruteForce.build(Matrix.build(np.empty((0, dimension), np.float32), metric))
    assert len(index) == 0
    for allowed in (None, np.ones(0, np.bool_)):
        found = index.search(np.ones((2, dimension), np.float32), 3, allowed)
        assert found.positions.tolist() == [[-1] * 3] * 2


@bounded(40)
@given(problems())
def test_nothing_that_the_caller_gives_is_written_to(problem: Problem) -> None:
    given_arrays = [array for array in (problem.vectors, problem.queries, problem.allowed) if array is not None]
    before = [array.copy() for array in given_arrays]
    for array in given_arrays:
        array.flags.writeable = False
    search(problem)
    for array, copy in zip(given_arrays, before, strict=True):
        assert np.array_equal(array, copy)


def _every_second(array: Float32) -> Float32:
    return np.repeat(array, 2, axis=0)[::2]


def _every_second_column(array: Float32) -> Float32:
    return np.repeat(array, 2, axis=1)[:, ::2]


def _backwards(array: Float32) -> Float32:
    return np.ascontiguousarray(array[::-1, ::-1])[::-1, ::-1]


@pytest.mark.parametrize("laid_out", [np.asfortranarray, _every_second, _every_second_column, _backwards])
@bounded(20)
@given(problem=problems())
def test_the_layout_in_memory_makes_no_difference(laid_out: Callable[[Float32], Float32], problem: Problem) -> None:
    expected = search(problem)
    for vectors, queries in (
        (laid_out(problem.vectors), problem.queries),
        (problem.vectors, laid_out(problem.queries)),
    ):
        found = BruteForce.build(Matrix.build(vectors, problem.metric)).search(queries, problem.k, problem.allowed)
        assert found.positions.tolist() == expected.positions.tolist()
        assert found.scores.tobytes() == expected.scores.tobytes()


def test_a_tiny_negative_product_is_no_negative_zero() -> None:
    index = BruteForce.build(Matrix.build(np.array([[1e-30]], np.float32), Metric.DOT))
    [[score]] = index.search(np.array([[-1e-30]], np.float32), 1).scores.tolist()
    assert str(score) == "0.0"


def test_a_batch_is_searched_in_blocks_of_bounded_memory() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((117_000, 4)).astype(np.float32)
    index = BruteForce.build(Matrix.build(vectors, Metric.COSINE))
    assert _peak(index, rng.standard_normal((256, 4)).astype(np.float32)) < 96 * MiB


@pytest.mark.parametrize("metric", Metric)
def test_rows_that_are_all_equal_cost_a_copy_of_the_matrix_at_most(metric: Metric) -> None:
    vectors = np.ones((117_000, 32), np.float32)
    index = BruteForce.build(Matrix.build(vectors, metric))
    assert _peak(index, vectors[:3]) < vectors.nbytes + 80 * MiB


def _peak(index: BruteForce, queries: Float32) -> int:
    tracemalloc.start()
    try:
        index.search(queries, 10)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("metric", Metric)
@pytest.mark.parametrize("shape", [(0, 3), (1, 40), (300, 3), (2000, 40), (600, 200)])
def test_what_was_saved_answers_the_same_when_it_is_loaded(
    metric: Metric, shape: tuple[int, int], tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    vectors, queries = storable(rng.standard_normal(shape)), storable(rng.standard_normal((3, shape[1])))
    index = Matrix.build(vectors, metric)
    index.save(tmp_path)
    loaded = Matrix.load(tmp_path, vectors, metric)
    assert loaded.nbytes == index.nbytes
    for allowed in (None, rng.random(shape[0]) < 0.1, rng.random(shape[0]) < 0.9):
        expected, found = (one.search(queries, 7, allowed) for one in (index, loaded))
        assert found.positions.tolist() == expected.positions.tolist()
        assert found.scores.tobytes() == expected.scores.tobytes()


@pytest.mark.parametrize("rows", [(599, 200), (601, 200), (600, 500), (3, 200)])
def test_what_was_saved_of_other_rows_is_refused(rows: tuple[int, int], tmp_path: Path) -> None:
    Matrix.build(np.ones((600, 200), np.float32), Metric.DOT).save(tmp_path)
    with pytest.raises(ValueError, match="other rows"):
        Matrix.load(tmp_path, np.ones(rows, np.float32), Metric.DOT)


@bounded(30)
@given(
    kind=st.sampled_from(KINDS),
    metric=metrics,
    rows=st.integers(512, 3000),
    dimension=st.sampled_from([32, 100, 128, 129]),
    share=st.sampled_from([None, 0.01, 0.4, 0.6, 0.99]),
    magnitude=st.sampled_from(MAGNITUDES),
    seed=seeds,
)
def test_the_answer_is_the_k_best_of_rows_that_have_a_copy(
    kind: str, metric: Metric, rows: int, dimension: int, share: float | None, magnitude: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    queries = storable(rng.standard_normal((rng.integers(1, 7), dimension)))
    vectors = without_zeros(made(rng, kind, rows, queries[0], magnitude))
    allowed = None if share is None else rng.random(rows) < share
    problem = Problem(vectors, queries, metric, int(rng.integers(1, 40)), allowed)
    assert_k_best(search(problem), problem)


def test_it_says_what_it_holds() -> None:
    small = Matrix.build(np.ones((10, 3), np.float32), Metric.DOT)
    assert len(small) == 10
    assert small.nbytes == 10 * 3 * 4 + 10 * 4
    coded = Matrix.build(np.ones((1000, 384), np.float32), Metric.DOT)
    assert coded.nbytes == 1000 * 384 * 4 + 1000 * (4 + 384 + 16) + 384 * 8 + 8
    assert BruteForce.build(coded).nbytes == 0


def test_it_takes_no_parameters() -> None:
    with pytest.raises(InvalidParameter, match=r"^ef: is no parameter of brute_force; there are none$"):
        BruteForce.build(Matrix.build(np.ones((1, 1), np.float32), Metric.DOT), {"ef": 1})
    with pytest.raises(InvalidParameter, match=r"^probes: is no search parameter of brute_force; there are none$"):
        check_search_params("brute_force", {"probes": 1})
