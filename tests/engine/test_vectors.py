"""What may be stored and searched, and what is refused, with the row that is to blame."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.engine.errors import EngineError, InvalidParameter, InvalidVector
from apps.engine.indexes.registry import AUTO, INDEX_TYPES, chosen_kind, index_type
from apps.engine.metrics import Metric
from apps.engine.vectors import MAX_COMPONENT, Float32, check, to_float32, usable
from tests.engine.data import bounded, metrics


def test_float32_is_not_copied_and_other_types_are_not_written_to() -> None:
    narrow, wide = np.ones((2, 2), np.float32), np.full((2, 2), 0.1)
    assert to_float32(narrow) is narrow
    assert to_float32(wide).tolist() == [[float(np.float32(0.1))] * 2] * 2
    assert wide.tolist() == [[0.1, 0.1], [0.1, 0.1]]
    assert to_float32([[1, 2.5]]).dtype == np.float32


@pytest.mark.parametrize("metric", Metric)
@pytest.mark.parametrize("row", [[1e15, -1e15], [1e-45, 0], [1, 0], [3.4e-39, -1.0]])
def test_finite_rows_of_bounded_components_are_taken(metric: Metric, row: list[float]) -> None:
    check(to_float32([row, row]), metric)


def test_no_rows_are_taken() -> None:
    check(np.empty((0, 3), np.float32), Metric.COSINE)


@pytest.mark.parametrize("metric", Metric)
@pytest.mark.parametrize("component", [np.nan, np.inf, -np.inf, 1e39, -1e300])
def test_what_is_no_finite_float32_is_refused(metric: Metric, component: float) -> None:
    vectors = to_float32([[1, 1], [1, 1], [1, component], [component, 1]])
    with pytest.raises(InvalidVector, match="NaN, infinite or beyond float32") as refused:
        check(vectors, metric)
    assert refused.value.row == 2


@pytest.mark.parametrize("metric", Metric)
@pytest.mark.parametrize("component", [1.0001e15, -1e16, 3e38])
def test_a_component_beyond_the_bound_is_refused(metric: Metric, component: float) -> None:
    with pytest.raises(InvalidVector, match="beyond 1e\\+15 in magnitude") as refused:
        check(to_float32([[1, 1], [component, 1]]), metric)
    assert refused.value.row == 1


@pytest.mark.parametrize("zero", [0.0, -0.0, 1e-46])
def test_a_zero_vector_is_refused_under_cosine_only(zero: float) -> None:
    vectors = to_float32([[1, 0], [zero, zero]])
    check(vectors, Metric.DOT)
    check(vectors, Metric.EUCLIDEAN)
    with pytest.raises(InvalidVector, match="a zero vector has no cosine") as refused:
        check(vectors, Metric.COSINE)
    assert refused.value.row == 1


# Beside what may be stored and at its edges, what may not.
_ABOVE = float(np.nextafter(np.float32(MAX_COMPONENT), np.float32(np.inf)))
_BELOW = float(np.nextafter(np.float32(MAX_COMPONENT), np.float32(0)))
components = (
    st.sampled_from([0.0, -0.0])
    | st.sampled_from([1.0, 1e-45, _BELOW, -_BELOW, MAX_COMPONENT, -MAX_COMPONENT])
    | st.sampled_from([_ABOVE, -_ABOVE, 3e38, np.inf, -np.inf, np.nan])
    | st.floats(width=32)
)


def refusal(vectors: Float32, metric: Metric) -> tuple[int, str] | None:
    """Which row `check` refuses, counted from the end, and why; None where it takes all."""
    try:
        check(vectors, metric)
    except InvalidVector as refused:
        return len(vectors) - refused.row, refused.reason
    return None


@bounded(500)
@given(metric=metrics, row=st.lists(components, min_size=1, max_size=4))
def test_a_vector_is_taken_or_refused_alone_as_it_is_beside_another(metric: Metric, row: list[float]) -> None:
    """The vector of a query is checked in a shorter way than the rows of a write."""
    alone = to_float32([row])
    both = np.concatenate([np.ones_like(alone), alone])
    assert refusal(alone, metric) == refusal(both, metric)
    is_fine = all(abs(value) <= MAX_COMPONENT for value in alone[0].tolist())
    if metric is Metric.COSINE:
        is_fine &= any(alone[0].tolist())
    assert usable(alone, metric).tolist() == [is_fine]
    assert (refusal(alone, metric) is None) == is_fine


def test_index_types_have_names() -> None:
    chosen = {chosen_kind(AUTO, rows, dimension) for rows in (0, 1000, 10**5, 10**7) for dimension in (1, 8, 9, 384)}
    assert chosen == {"brute_force", "kd_tree", "quantized", "ivf"}
    assert chosen < set(INDEX_TYPES)
    assert all(index_type(name).kind == name for name in INDEX_TYPES)
    with pytest.raises(InvalidParameter, match="'annoy' is not an index type; there are: auto, brute_force") as refused:
        index_type("annoy")
    assert refused.value.name == "index_type"
    assert isinstance(refused.value, EngineError)
