"""The compiled functions give what numpy gives, bit for bit, whatever the data and the processor."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.engine import kernels
from apps.engine.indexes.byte_codes import ByteCodes
from apps.engine.indexes.matrix import Matrix
from apps.engine.metrics import Metric, exact_scores, row_norms
from apps.engine.vectors import MAX_COMPONENT, Float32
from tests.engine.data import Problem, assert_k_best, bounded, metrics, problems, ranking, seeds, storable
from tests.engine.numpy_only import numpy_only

DIMENSIONS = [*range(1, 66), 96, 100, 127, 128, 129, 200, 384, 1000, 1536, 8192]


@pytest.fixture(scope="module", autouse=True)
def _kernels() -> None:
    kernels.load()


@st.composite
def rows_of_any_magnitude(draw: st.DrawFn) -> Float32:
    """A matrix [n, d] whose first row serves as a query; each row, or each component, has a magnitude of its own."""
    dimension, rows = draw(st.one_of(st.integers(1, 200), st.sampled_from([384, 1536]))), draw(st.integers(1, 9))
    rng = np.random.default_rng(draw(seeds))
    magnitudes = 10.0 ** rng.uniform(-45, 15, (rows, dimension if draw(st.booleans()) else 1))
    matrix = storable(rng.standard_normal((rows, dimension)) * magnitudes)
    matrix[~matrix.any(axis=1), 0] = MAX_COMPONENT
    return matrix


@bounded(120)
@given(matrix=rows_of_any_magnitude(), metric=metrics)
def test_exact_scores_are_the_same_bits_with_and_without_kernels(matrix: Float32, metric: Metric) -> None:
    places = np.array([len(matrix) - 1, 0, 0])
    compiled = exact_scores(metric, matrix, matrix[0]), exact_scores(metric, matrix, matrix[0], places)
    with numpy_only():
        plain = exact_scores(metric, matrix, matrix[0]), exact_scores(metric, matrix, matrix[0], places)
    assert [scores.tobytes() for scores in compiled] == [scores.tobytes() for scores in plain]


@pytest.mark.parametrize("dimension", DIMENSIONS)
def test_every_dimension_is_added_up_in_the_same_order(dimension: int) -> None:
    rng = np.random.default_rng(dimension)
    matrix = storable(rng.standard_normal((40, dimension)) * 10.0 ** rng.uniform(-3, 3, (40, dimension)))
    for metric in Metric:
        compiled = exact_scores(metric, matrix, matrix[3])
        with numpy_only():
            assert compiled.tobytes() == exact_scores(metric, matrix, matrix[3]).tobytes()
    norms = row_norms(matrix)
    with numpy_only():
        assert norms.tobytes() == row_norms(matrix).tobytes()


@bounded(60)
@given(problem=problems(), seed=seeds)
def test_rows_without_a_copy_are_ranked_the_same_in_any_order_of_ties(problem: Problem, seed: int) -> None:
    order = np.random.default_rng(seed).permutation(len(problem.vectors))
    matrix = Matrix(problem.vectors, problem.metric)
    compiled = matrix.search(problem.queries, problem.k, problem.allowed, order)
    with numpy_only():
        plain = matrix.search(problem.queries, problem.k, problem.allowed, order)
    assert compiled.positions.tolist() == plain.positions.tolist()
    assert compiled.scores.tobytes() == plain.scores.tobytes()


@bounded(120)
@given(problems())
def test_a_scan_of_the_copy_finds_the_k_best(problem: Problem) -> None:
    codes = ByteCodes.build(problem.vectors, problem.metric)
    matrix = Matrix(problem.vectors, problem.metric, codes=codes)
    assert_k_best(matrix.search(problem.queries, problem.k, problem.allowed), problem)


@pytest.mark.parametrize("plane", ["coarse", "fine"])
@pytest.mark.parametrize("metric", Metric)
def test_what_the_codes_of_a_row_lose_is_covered_by_the_bound(metric: Metric, plane: str) -> None:
    # The query is what the codes lost of a row: its product with the codes lacks all that the bound allows for.
    for seed in range(150):
        rng = np.random.default_rng(seed)
        row = rng.standard_normal(rng.integers(2, 140))
        row /= np.linalg.norm(row)
        step = (16 if plane == "coarse" else 1) * np.abs(row).max() / 119
        lost = row - np.rint(row / step) * step
        assert_found_before_worse(metric, row, lost, float(lost @ lost), rng)


@pytest.mark.parametrize("metric", Metric)
def test_what_the_codes_of_a_query_lose_is_covered_by_the_bound(metric: Metric) -> None:
    for seed in range(150):
        rng = np.random.default_rng(seed)
        query = rng.standard_normal(rng.integers(2, 140))
        step = np.abs(query).max() / 127
        row = query - np.rint(query / step) * step
        lost = float(np.linalg.norm(row))
        assert_found_before_worse(metric, row / lost, query, lost, rng)


def assert_found_before_worse(
    metric: Metric, row: np.ndarray, query: np.ndarray, lost: float, rng: np.random.Generator
) -> None:
    """`row`, of length one, is found before rows whose product with the query is less than its own by parts of `lost`.

    Those lie such that they are scored first, and each row has its opposite, so that they are coded about zero.
    """
    worse = [_worse(metric, row, query, part * lost, rng) for part in (0.01, 0.1, 0.3, 0.5, 0.7, 0.9)]
    rows = storable(np.stack([*worse, row]))
    rows = np.concatenate([rows, -rows])
    query = storable(query)
    best = np.lexsort((np.arange(len(rows)), -exact_scores(metric, rows, query)))[:3]
    codes = ByteCodes.build(rows, metric)
    for count in (1, 3):
        positions, _ = codes.search(rows, metric, np.stack([query] * count), 3)
        assert positions.tolist() == [best.tolist()] * count


def _worse(metric: Metric, row: np.ndarray, query: np.ndarray, by: float, rng: np.random.Generator) -> np.ndarray:
    """A row whose product with the query is by so much less than that of `row`, or whose score is as if it were."""
    length = np.linalg.norm(query)
    if metric is Metric.DOT:
        return query / length * (row @ query - by) / length
    across = rng.standard_normal(len(row))
    across -= across @ query / length * query / length
    across /= np.linalg.norm(across)
    if metric is Metric.EUCLIDEAN:
        return query + across * np.sqrt((row - query) @ (row - query) + 2 * by)
    cosine = np.clip((row @ query - by) / length, -1, 1)
    return cosine * query / length + np.sqrt(1 - cosine * cosine) * across


@pytest.mark.parametrize("metric", Metric)
@pytest.mark.parametrize("rows", [1, 2, 15, 16, 17, 511, 512, 513, 1023, 1025])
def test_the_first_and_the_last_row_are_found_however_many_there_are(metric: Metric, rows: int) -> None:
    rng = np.random.default_rng(rows)
    vectors = storable(rng.standard_normal((rows, 33)))
    index = ByteCodes.build(vectors, metric)
    for count in range(1, 10):
        queries = storable(rng.standard_normal((count, 33)))
        queries[:2] = 3 * vectors[0]
        queries[2:] = 3 * vectors[-1]
        for k in {1, min(2, rows), rows}:
            positions, _ = index.search(vectors, metric, queries, k)
            expected = [ranking(metric, vectors, query)[:k].tolist() for query in queries]
            assert positions.tolist() == expected


@pytest.mark.parametrize("metric", Metric)
@pytest.mark.parametrize("k", [1, 10, 300])
def test_rows_that_get_better_and_better_are_all_tried(metric: Metric, k: int) -> None:
    # Each row is among the best so far; and of equal rows the first ones are the best.
    angles = np.linspace(1, 0, 6000)[:, None]
    one, other = np.linalg.qr(np.random.default_rng(0).standard_normal((40, 2)))[0].T
    better = storable(np.cos(angles) * one + np.sin(angles) * other)
    for vectors in (better, better[::-1].copy(), np.tile(better[:1], (6000, 1))):
        positions, _ = ByteCodes.build(vectors, metric).search(vectors, metric, storable(one)[None], k)
        assert positions[0].tolist() == ranking(metric, vectors, storable(one))[:k].tolist()


@pytest.mark.parametrize("metric", Metric)
def test_data_that_are_far_from_the_origin_are_told_apart_by_their_codes(metric: Metric) -> None:
    # Coded about zero, all rows would have the same codes.
    rng = np.random.default_rng(0)
    vectors = storable(rng.standard_normal(64) * 100 + rng.standard_normal((5000, 64)) * 0.01)
    codes = ByteCodes.build(vectors, metric)
    assert len(np.unique(codes.planes[0], axis=0)) > 4900
    query = vectors[17] + storable(rng.standard_normal(64) * 0.001)
    positions, _ = codes.search(vectors, metric, query[None], 10)
    assert positions[0].tolist() == ranking(metric, vectors, query)[:10].tolist()


def test_they_are_loaded_without_scipy() -> None:
    code = "import sys; from apps.engine import kernels; kernels.load(); sys.exit('scipy.linalg' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], check=True)


PROCESSORS = [("generic", "")]
if platform.machine() in ("x86_64", "AMD64"):
    PROCESSORS.append(("x86-64-v3", "+avx2"))


@pytest.mark.parametrize(("name", "features"), PROCESSORS)
def test_code_for_other_processors_gives_the_same(name: str, features: str, tmp_path: Path) -> None:
    # numba compiles for the processor that it is told of.
    processor = {"NUMBA_CPU_NAME": name, "NUMBA_CPU_FEATURES": features}
    cache = {"NUMBA_CACHE_DIR": str(tmp_path), "NUMBA_CACHE_LOCATOR_CLASSES": "UserProvidedCacheLocator"}
    subprocess.run(
        [sys.executable, "-m", "tests.engine.processor"],
        cwd=Path(__file__).parents[2],
        env={**os.environ, **processor, **cache},
        check=True,
    )
