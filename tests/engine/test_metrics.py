"""Scores and their bounds: exact scores are right to the last bit of float32, quick ones err less than is claimed."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from apps.engine.metrics import Metric, exact_scores, relative_bound, row_norms, underflow_bound
from apps.engine.vectors import MAX_COMPONENT, Float32
from tests.engine.data import bounded, storable

LARGEST = float(np.float32(MAX_COMPONENT))
components = st.one_of(
    st.floats(-LARGEST, LARGEST, width=32),
    st.builds(
        lambda sign, exponent: float(np.float32(sign * 10.0**exponent)), st.sampled_from([-1, 1]), st.floats(-45, 14.9)
    ),
    st.sampled_from([0.0, -0.0, 1.0, -1.0, LARGEST, -LARGEST]),
)


@st.composite
def pairs(draw: st.DrawFn) -> tuple[Float32, Float32]:
    """Two vectors of one dimension."""
    dimension = draw(st.integers(1, 40))
    one, other = (draw(st.lists(components, min_size=dimension, max_size=dimension)) for _ in range(2))
    return np.array(one, np.float32), np.array(other, np.float32)


def score(metric: Metric, row: Float32, query: Float32) -> float:
    return float(exact_scores(metric, row[None], query)[0])


def norm(vector: Float32) -> float:
    return math.sqrt(math.fsum(value * value for value in vector.tolist()))


@bounded(80)
@given(pairs())
def test_a_dot_score_is_the_inner_product(pair: tuple[Float32, Float32]) -> None:
    row, query = pair
    # The products are exact in float64, and fsum rounds their sum once.
    true = math.fsum(a * b for a, b in zip(row.tolist(), query.tolist(), strict=True))
    lost = len(row) * 2.0**-52 * norm(row) * norm(query)
    assert abs(score(Metric.DOT, row, query) - true) <= abs(true) * 2.0**-23 + lost + 2.0**-149


@bounded(80)
@given(pairs())
def test_a_cosine_score_is_the_cosine(pair: tuple[Float32, Float32]) -> None:
    row, query = pair
    assume(row.any() and query.any())
    true = math.fsum(a * b for a, b in zip(row.tolist(), query.tolist(), strict=True)) / norm(row) / norm(query)
    found = score(Metric.COSINE, row, query)
    assert abs(found) <= 1
    assert abs(found - true) <= abs(true) * 2.0**-23 + len(row) * 2.0**-50


@bounded(80)
@given(pairs())
def test_a_euclidean_score_is_minus_the_distance(pair: tuple[Float32, Float32]) -> None:
    row, query = pair
    true = -math.dist(row.tolist(), query.tolist())
    assert abs(score(Metric.EUCLIDEAN, row, query) - true) <= abs(true) * 2.0**-23 + 2.0**-149


@bounded(40)
@given(pairs())
def test_a_vector_is_as_near_to_itself_as_can_be(pair: tuple[Float32, Float32]) -> None:
    row, _ = pair
    assert str(score(Metric.EUCLIDEAN, row, row)) == "0.0"
    assume(row.any())
    assert score(Metric.COSINE, row, row) == 1.0
    assert score(Metric.COSINE, -row, row) == -1.0


@bounded(60)
@given(pairs(), st.sampled_from(Metric), st.integers(1, 70), st.data())
def test_a_row_has_one_score_wherever_it_lies(
    pair: tuple[Float32, Float32], metric: Metric, rows: int, data: st.DataObject
) -> None:
    row, query = pair
    assume(metric is not Metric.COSINE or (row.any() and query.any()))
    matrix = np.ones((rows, len(row)), np.float32)
    place = data.draw(st.integers(0, rows - 1))
    matrix[place] = row
    assert (
        exact_scores(metric, matrix, query)[place : place + 1].tobytes()
        == exact_scores(metric, row[None], query).tobytes()
    )


@pytest.mark.parametrize("dimension", [3, 8192])
def test_a_matrix_of_many_blocks_is_scored_as_row_by_row(dimension: int) -> None:
    rows = (5 << 20) // dimension // 2
    vectors = np.tile(np.random.default_rng(0).standard_normal((rows // 50 + 1, dimension)), (50, 1)).astype(np.float32)
    ends = [0, 1, len(vectors) // 2, len(vectors) - 1]
    norms = row_norms(vectors)
    assert norms[ends].tolist() == pytest.approx([norm(vectors[i]) for i in ends], rel=1e-14)
    assert (norms.reshape(50, -1) == norms[: len(norms) // 50]).all()
    for metric in Metric:
        scores = exact_scores(metric, vectors, vectors[7])
        assert scores[ends].tolist() == [score(metric, vectors[i], vectors[7]) for i in ends]


def _forwards(rows: Float32, query: Float32) -> Float32:
    total = np.zeros(len(rows), np.float32)
    for column in (rows * query).T:
        total = total + column
    return total


def _backwards(rows: Float32, query: Float32) -> Float32:
    return _forwards(rows[:, ::-1], query[::-1])


def _in_sixteen_lanes(rows: Float32, query: Float32) -> Float32:
    products = np.pad(rows * query, ((0, 0), (0, -len(query) % 16))).reshape(len(rows), -1, 16)
    lanes = np.zeros((len(rows), 16), np.float32)
    for part in products.transpose(1, 0, 2):
        lanes = lanes + part
    return _forwards(lanes, np.ones(16, np.float32))


def _by_vector(rows: Float32, query: Float32) -> Float32:
    return rows @ query


def _by_matrix(rows: Float32, query: Float32) -> Float32:
    return (np.tile(query, (2, 1)) @ rows.T)[0]


ORDERS = (_forwards, _backwards, _in_sixteen_lanes, _by_vector, _by_matrix)


@pytest.mark.parametrize("product", ORDERS)
@pytest.mark.parametrize("dimension", [1, 2, 3, 8, 16, 33, 64, 256, 384, 1536])
def test_a_product_in_float32_errs_by_half_of_the_bound_at_most(
    dimension: int, product: Callable[[Float32, Float32], Float32]
) -> None:
    rng = np.random.default_rng(dimension)
    noise = rng.standard_normal((40, dimension))
    # One that is large, and products that are just lost, or just rounded up, when they are added to it.
    chained = np.full(dimension, 2.0**-12)
    chained[0] = 1.0
    lost, gained = chained * 0.98, chained * 1.02
    lost[0] = gained[0] = 1.0
    inputs = [
        (noise, noise[0]),
        (np.abs(noise), np.abs(noise[0])),
        (noise * 1e15, noise[0] * 1e15),
        (noise * 1e-19, noise[0] * 1e-19),
        (noise * 1e-44, noise[0] * 1e15),
        (np.exp(noise * 10), np.exp(noise[1] * 10)),
        (np.stack([lost, gained]), chained),
        (np.stack([lost, gained])[:, ::-1], chained[::-1]),
    ]
    for matrix, vector in inputs:
        rows, query = storable(matrix), storable(vector)
        true = (rows.astype(np.float64) * query.astype(np.float64)).sum(axis=1)
        errors = np.abs(product(rows, query) - true)
        bounds = relative_bound(dimension) * row_norms(rows) * norm(query) + underflow_bound(dimension)
        assert (errors <= bounds / 2).all()


@pytest.mark.parametrize(
    ("metric", "value", "distance"),
    [(Metric.COSINE, 0.25, 0.75), (Metric.DOT, 3.0, -3.0), (Metric.DOT, 0.0, 0.0), (Metric.EUCLIDEAN, -2.0, 2.0)],
)
def test_a_distance_is_lower_for_a_better_row(metric: Metric, value: float, distance: float) -> None:
    assert str(metric.distance(value)) == str(distance)
