"""Short-lists are read as far as they must be, and equally far with kernels and without."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.engine import kernels
from apps.engine.indexes import rerank as shortlist
from apps.engine.indexes.approximate import Copies, Frame
from apps.engine.metrics import Metric, exact_scores, row_norms
from apps.engine.vectors import Float32, Int64, Mask
from tests.engine.data import bounded, metrics, seeds
from tests.engine.test_kernels import without_kernels

K = 10


@pytest.fixture(scope="module", autouse=True)
def _kernels() -> None:
    kernels.load()


class Lists:
    """Rows [n, 24], of which some are copies, queries, and a list for each: all firsts, by scores that err by `error`
    of their spread."""

    def __init__(self, metric: Metric, seed: int, *, rows: int = 600, error: float = 0.1) -> None:
        rng = np.random.default_rng(seed)
        self.metric = metric
        self.vectors = rng.standard_normal((rows, 24)).astype(np.float32)
        copies = np.sort(rng.choice(np.arange(1, rows), rows // 10, replace=False))
        for row in copies:
            self.vectors[row] = self.vectors[rng.integers(row)]
        self.queries = rng.standard_normal((3, 24)).astype(np.float32)
        self.copies = Copies.among([self.vectors])
        frame = Frame.fitting(metric, row_norms(self.vectors).astype(np.float32), 24)
        self.factors = frame.factors(self.queries)
        self.exact = np.stack([exact_scores(metric, self.vectors, query) for query in self.queries])
        alike = self.exact.astype(np.float64) * self.factors[:, None]
        if metric is Metric.EUCLIDEAN:
            alike = -alike * alike
        firsts = self.copies.firsts()
        rough = (alike + alike.std() * error * rng.standard_normal(alike.shape))[:, firsts]
        order = np.argsort(-rough, axis=1)
        self.firsts: Int64 = firsts[order]
        self.rough: Float32 = np.take_along_axis(rough, order, axis=1).astype(np.float32)

    def read(self, allowed: Mask | None = None, *, whole: bool = False) -> tuple[Int64, Float32, Mask]:
        return shortlist.read(
            self.metric,
            self.vectors,
            self.queries,
            K,
            self.firsts,
            copies=self.copies,
            allowed=allowed,
            rough=None if whole else self.rough,
            factors=self.factors,
        )

    def best(self, query: int, allowed: Mask | None = None) -> Float32:
        """The scores of the best rows."""
        found = self.exact[query] if allowed is None else self.exact[query][allowed]
        return np.sort(found)[::-1][:K]


@bounded(100)
@given(
    metric=metrics,
    seed=seeds,
    error=st.sampled_from([0.01, 0.1, 1.0]),
    share=st.sampled_from([None, 0.0, 0.01, 0.5]),
    whole=st.booleans(),
    cut=st.booleans(),
)
def test_lists_are_read_equally_far_with_and_without_kernels(
    metric: Metric, seed: int, error: float, share: float | None, whole: bool, cut: bool
) -> None:
    lists = Lists(metric, seed, rows=300, error=error)
    if cut:
        lists.firsts[:, 100:] = -1
    allowed = None if share is None else np.random.default_rng(seed).random(300) < share
    compiled = lists.read(allowed, whole=whole)
    with without_kernels():
        plain = lists.read(allowed, whole=whole)
    for one, other in zip(compiled, plain, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("metric", Metric)
def test_a_whole_list_has_its_best_rows(metric: Metric) -> None:
    lists = Lists(metric, 1, error=10.0)
    _, scores, enough = lists.read(whole=True)
    assert enough.all()
    for query in range(3):
        np.testing.assert_array_equal(scores[query], lists.best(query))


@pytest.mark.parametrize("metric", Metric)
def test_a_list_is_not_read_where_no_row_can_be_among_the_best(metric: Metric) -> None:
    lists = Lists(metric, 2, error=0.02)
    lists.queries, lists.firsts, lists.rough = lists.queries[:1], lists.firsts[:1], lists.rough[:1]
    # Whoever reads so far finds the query itself.
    lists.vectors[lists.firsts[0, 300:]] = lists.queries[0]
    _, scores, enough = lists.read()
    assert enough.all()
    np.testing.assert_array_equal(scores[0], lists.best(0))


@pytest.mark.parametrize("metric", Metric)
def test_a_list_whose_end_is_within_reach_is_not_enough(metric: Metric) -> None:
    lists = Lists(metric, 3, error=10.0)
    lists.firsts, lists.rough = lists.firsts[:, :128], lists.rough[:, :128]
    assert not lists.read()[2].any()
    assert lists.read(whole=True)[2].all()


@pytest.mark.parametrize("whole", [True, False])
def test_a_list_that_is_not_full_is_not_enough(whole: bool) -> None:
    lists = Lists(Metric.COSINE, 4, error=10.0)
    lists.firsts[0, 200:] = -1
    assert lists.read(whole=whole)[2].tolist()[0] is False


def test_only_rows_that_are_allowed_are_found() -> None:
    lists = Lists(Metric.COSINE, 5)
    allowed = np.zeros(600, np.bool_)
    allowed[[7, 8, 100]] = True
    positions, scores, _ = lists.read(allowed, whole=True)
    for query in range(3):
        assert set(positions[query].tolist()) == {7, 8, 100, -1}
        np.testing.assert_array_equal(scores[query, :3], lists.best(query, allowed))
