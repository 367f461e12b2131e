"""The short-list holds every row that may be among the k best, and the k best come in the order promised."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from apps.engine.selection import best, candidates, kth_largest_floor
from tests.engine.data import bounded, seeds

sizes = st.one_of(st.integers(1, 60), st.integers(1, 700), st.integers(250, 5000))


def _scores(rng: np.random.Generator, size: int, distinct: int) -> np.ndarray:
    """Float32 scores, few of them distinct, some of them minus infinity."""
    scores = rng.standard_normal(distinct).astype(np.float32)[rng.integers(0, distinct, size)]
    return np.where(rng.random(size) < 0.05, np.float32(-np.inf), scores)


@bounded(200)
@given(size=sizes, k=st.integers(1, 40), distinct=st.sampled_from([1, 3, 100, 100_000]), seed=seeds)
def test_k_values_reach_the_floor(size: int, k: int, distinct: int, seed: int) -> None:
    values = _scores(np.random.default_rng(seed), size, distinct)
    floor = kth_largest_floor(values, k)
    reached = np.count_nonzero(values >= floor)
    assert reached >= min(k, size)
    if size >= k:
        assert floor <= np.sort(values)[-k]


@bounded(200)
@given(
    size=sizes,
    k=st.integers(1, 12),
    distinct=st.sampled_from([1, 3, 100, 100_000]),
    width=st.sampled_from([0.0, 1e-3, 0.1, 10.0]),
    seed=seeds,
)
def test_a_row_is_left_out_only_where_k_others_are_surely_better(
    size: int, k: int, distinct: int, width: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    lower = _scores(rng, size, distinct)
    upper = lower + (rng.random(size) * width).astype(np.float32)
    unknown = rng.random(size) < 0.02
    lower[unknown], upper[unknown] = -np.inf, np.inf
    listed = candidates(lower, upper, k)
    assert len(set(listed.tolist())) == len(listed)
    assert (upper[listed] > -np.inf).all()
    left_out = np.setdiff1d(np.flatnonzero(upper > -np.inf), listed)
    surely_better = len(lower) - np.searchsorted(np.sort(lower), upper[left_out], side="right")
    assert (surely_better >= k).all()


def test_candidates_are_few_where_the_bounds_are_narrow() -> None:
    lower = np.random.default_rng(0).standard_normal(100_000).astype(np.float32)
    assert len(candidates(lower, lower + np.float32(1e-6), 10)) < 20


@bounded(100)
@given(
    rows=st.lists(st.tuples(st.sampled_from([-np.inf, -1.0, 0.0, -0.0, 2.5]), st.integers(-5, 5)), max_size=30),
    k=st.integers(1, 40),
)
def test_the_best_come_by_score_and_then_by_order(rows: list[tuple[float, int]], k: int) -> None:
    scores = np.array([score for score, _ in rows], np.float32)
    order = np.array([number for _, number in rows], np.int64)
    chosen = best(scores, order, k)
    assert len(set(chosen.tolist())) == len(chosen)
    assert [(-scores[i], order[i]) for i in chosen] == sorted((-score, number) for score, number in rows)[:k]
