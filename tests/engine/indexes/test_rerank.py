"""Lists are read as far as they must be, and equally far by a plain loop over arrays."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.engine import kernels
from apps.engine.indexes.duplicates import Duplicates
from apps.engine.indexes.matrix import Matrix
from apps.engine.indexes.normalize import Normalizer
from apps.engine.indexes.rerank import rerank
from apps.engine.metrics import Metric, exact_scores
from apps.engine.vectors import Float32, Int64, Mask
from tests.engine.data import bounded, metrics, seeds
from tests.engine.indexes import plain_rerank

K = 10

Answer = tuple[Int64, Float32, Mask]


@pytest.fixture(scope="module", autouse=True)
def _kernels() -> None:
    kernels.load()


class Lists:
    """Rows [n, 24], some of them duplicates, queries, and a list for each: all representatives, by scores that err by
    `error` of their spread."""

    def __init__(self, metric: Metric, seed: int, *, rows: int = 600, error: float = 0.1) -> None:
        rng = np.random.default_rng(seed)
        self.metric = metric
        self.vectors = rng.standard_normal((rows, 24)).astype(np.float32)
        copies = np.sort(rng.choice(np.arange(1, rows), rows // 10, replace=False))
        for row in copies:
            self.vectors[row] = self.vectors[rng.integers(row)]
        self.queries = rng.standard_normal((3, 24)).astype(np.float32)
        self.duplicates = Duplicates.find([self.vectors])
        self.factors = Normalizer.fit(Matrix(self.vectors, metric), 24).factors(self.queries)
        self.exact = np.stack([exact_scores(metric, self.vectors, query) for query in self.queries])
        alike = self.exact.astype(np.float64) * self.factors[:, None]
        if metric is Metric.EUCLIDEAN:
            alike = -alike * alike
        representatives = self.duplicates.representatives()
        rough = (alike + alike.std() * error * rng.standard_normal(alike.shape))[:, representatives]
        order = np.argsort(-rough, axis=1)
        self.representatives: Int64 = representatives[order]
        self.rough: Float32 = np.take_along_axis(rough, order, axis=1).astype(np.float32)

    def read(
        self, allowed: Mask | None = None, *, whole: bool = False, function: Callable[..., Answer] = rerank
    ) -> Answer:
        return function(
            Matrix(self.vectors, self.metric),
            self.queries,
            K,
            self.representatives,
            duplicates=self.duplicates,
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
def test_lists_are_read_as_far_as_by_numpy(
    metric: Metric, seed: int, error: float, share: float | None, whole: bool, cut: bool
) -> None:
    lists = Lists(metric, seed, rows=300, error=error)
    if cut:
        lists.representatives[:, 100:] = -1
    allowed = None if share is None else np.random.default_rng(seed).random(300) < share
    compiled = lists.read(allowed, whole=whole)
    plain = lists.read(allowed, whole=whole, function=plain_rerank.rerank)
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
    lists.queries, lists.representatives, lists.rough = lists.queries[:1], lists.representatives[:1], lists.rough[:1]
    # Whoever reads so far finds the query itself.
    lists.vectors[lists.representatives[0, 300:]] = lists.queries[0]
    _, scores, enough = lists.read()
    assert enough.all()
    np.testing.assert_array_equal(scores[0], lists.best(0))


@pytest.mark.parametrize("metric", Metric)
def test_a_list_whose_end_is_within_reach_is_not_enough(metric: Metric) -> None:
    lists = Lists(metric, 3, error=10.0)
    lists.representatives, lists.rough = lists.representatives[:, :128], lists.rough[:, :128]
    assert not lists.read()[2].any()
    assert lists.read(whole=True)[2].all()


@pytest.mark.parametrize("whole", [True, False])
def test_a_list_that_is_not_full_is_not_enough(whole: bool) -> None:
    lists = Lists(Metric.COSINE, 4, error=10.0)
    lists.representatives[0, 200:] = -1
    assert lists.read(whole=whole)[2].tolist()[0] is False


def test_only_rows_that_are_allowed_are_found() -> None:
    lists = Lists(Metric.COSINE, 5)
    allowed = np.zeros(600, np.bool_)
    allowed[[7, 8, 100]] = True
    positions, scores, _ = lists.read(allowed, whole=True)
    for query in range(3):
        assert set(positions[query].tolist()) == {7, 8, 100, -1}
        np.testing.assert_array_equal(scores[query, :3], lists.best(query, allowed))


@pytest.mark.parametrize("metric", Metric)
def test_of_many_duplicates_the_first_are_found(metric: Metric) -> None:
    lists = Lists(metric, 6, rows=20)
    vectors = np.tile(lists.vectors[:7], (50, 1))
    matrix, duplicates = Matrix(vectors, metric), Duplicates.find([vectors])
    representatives = np.tile(duplicates.representatives(), (3, 1))
    positions, scores, enough = rerank(matrix, lists.queries, K, representatives, duplicates=duplicates, allowed=None)
    assert enough.all()
    for query in range(3):
        exact = exact_scores(metric, vectors, lists.queries[query])
        best = np.lexsort((np.arange(len(exact)), -exact))[:K]
        np.testing.assert_array_equal(positions[query], best)
        np.testing.assert_array_equal(scores[query], exact[best])
