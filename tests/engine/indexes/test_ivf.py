"""Search in inverted lists: nearly all of the true neighbours, by their exact scores, whatever data and mask."""

from functools import cache

import numpy as np
import pytest

from apps.engine.errors import InvalidParameter
from apps.engine.indexes.ivf import Ivf
from apps.engine.indexes.matrix import Matrix
from apps.engine.indexes.registry import check_search_params
from apps.engine.metrics import Metric
from apps.engine.vectors import Float32
from tests.engine.approximate import assert_sound, embeddings, recall
from tests.engine.data import storable

ROWS, DIMENSION = 12_000, 48
QUERIES = embeddings(40, DIMENSION, seed=1)
every_metric = pytest.mark.parametrize("metric", Metric)


@cache
def built(metric: Metric) -> tuple[Float32, Ivf]:
    vectors = embeddings(ROWS, DIMENSION)
    vectors.flags.writeable = False
    return vectors, Ivf.build(Matrix(vectors, metric))


@every_metric
@pytest.mark.parametrize("k", [1, 10, 100])
def test_nearly_all_neighbours_are_found_in_some_of_the_lists(metric: Metric, k: int) -> None:
    vectors, index = built(metric)
    found = index.search(QUERIES, k)
    assert not found.proven.any()
    assert (found.compared < ROWS).all()
    assert_sound(found, vectors, metric, QUERIES, k)
    assert recall(found, vectors, metric, QUERIES, k) >= 0.98


@every_metric
def test_a_mask_that_leaves_lists_empty_costs_little_recall(metric: Metric) -> None:
    vectors, index = built(metric)
    # All allowed rows lie on one side, away from half of the queries.
    allowed = vectors[:, 0] > np.quantile(vectors[:, 0], 0.7)
    found = index.search(QUERIES, 10, allowed)
    assert not found.exact
    assert_sound(found, vectors, metric, QUERIES, 10, allowed)
    assert recall(found, vectors, metric, QUERIES, 10, allowed) >= 0.95


@every_metric
def test_lists_without_an_allowed_row_are_looked_beyond(metric: Metric) -> None:
    vectors, index = built(metric)
    away = vectors @ QUERIES[0] < np.quantile(vectors @ QUERIES[0], 0.4)
    found = index.search(QUERIES[:1], 10, away, {"probes": 1})
    assert_sound(found, vectors, metric, QUERIES[:1], 10, away)
    assert (found.compared <= ROWS).all()


@every_metric
def test_a_higher_recall_is_found_in_more_lists(metric: Metric) -> None:
    vectors, index = built(metric)
    found = [index.search(QUERIES, 10, params={"recall": share}) for share in (0.5, 0.8, 0.95, 0.99, 0.999)]
    shares = [recall(one, vectors, metric, QUERIES, 10) for one in found]
    compared = [float(one.compared.mean()) for one in found]
    assert compared[0] < compared[-1]
    assert compared[1:] == sorted(compared[1:])
    assert shares[1] >= 0.8
    assert shares[3] >= 0.98


def test_lists_and_rows_may_be_named() -> None:
    vectors, index = built(Metric.COSINE)
    few, many = (index.search(QUERIES, 10, params={"probes": probes}) for probes in (1, 10**4))
    assert few.compared.mean() < ROWS / 10
    assert (many.compared == ROWS).all()
    shortest = index.search(QUERIES, 10, params={"rescore": 1, "recall": 0.99})
    assert recall(shortest, vectors, Metric.COSINE, QUERIES, 10) < recall(many, vectors, Metric.COSINE, QUERIES, 10)


# The most are cut down to as many as there are rows.
@pytest.mark.parametrize("lists", [1, 2, 65_536])
def test_any_number_of_lists(lists: int) -> None:
    vectors = embeddings(Ivf.fewest_rows, 32)
    index = Ivf.build(Matrix(vectors, Metric.COSINE), {"lists": lists})
    queries = embeddings(20, 32, seed=1)
    found = index.search(queries, 50)
    assert_sound(found, vectors, Metric.COSINE, queries, 50)
    assert recall(found, vectors, Metric.COSINE, queries, 50) >= 0.95


@every_metric
def test_copies_of_one_row_push_no_other_out(metric: Metric) -> None:
    vectors = embeddings(ROWS, DIMENSION)
    places = np.sort(np.random.default_rng(3).permutation(ROWS)[:3000])
    vectors[places] = vectors[places[0]]
    queries = np.concatenate([vectors[places[:1]], QUERIES, (QUERIES[:5] + 2 * vectors[places[0]]) / 3])
    index = Ivf.build(Matrix(vectors, metric))
    for allowed in (None, np.random.default_rng(4).random(ROWS) < 0.5):
        found = index.search(queries, 10, allowed)
        assert not found.exact
        assert_sound(found, vectors, metric, queries, 10, allowed)
        assert recall(found, vectors, metric, queries, 10, allowed) >= 0.97


@every_metric
@pytest.mark.parametrize("magnitude", [1e15, 1e-7, 1e-41])
def test_magnitudes_make_no_difference(metric: Metric, magnitude: float) -> None:
    vectors = storable(embeddings(Ivf.fewest_rows, DIMENSION).astype(np.float64) * magnitude)
    index = Ivf.build(Matrix(vectors, metric))
    # To a query at the origin no row is near: the nearest are short rows of any list.
    for query_magnitude in (magnitude,) if metric is Metric.EUCLIDEAN else (magnitude, 1.0, 1e15):
        queries = storable(QUERIES.astype(np.float64) * query_magnitude)
        found = index.search(queries, 10)
        assert_sound(found, vectors, metric, queries, 10)
        assert recall(found, vectors, metric, queries, 10) >= 0.9


def test_parameters_it_does_not_take_are_refused() -> None:
    with pytest.raises(InvalidParameter, match=r"^m: is no parameter of ivf; there are: lists, piece$"):
        Ivf.check_params({"m": 1})
    with pytest.raises(InvalidParameter, match=r"^lists: must be from 1 to 65536, not 0$"):
        Ivf.check_params({"lists": 0})
    with pytest.raises(InvalidParameter, match=r"^recall: must be from 0.5 to 0.999, not 1$"):
        check_search_params("ivf", {"recall": 1})
    with pytest.raises(InvalidParameter, match=r"^recall: must be a number from 0.5 to 0.999$"):
        check_search_params("ivf", {"recall": "0.9"})
    check_search_params("ivf", {"recall": 0.5, "probes": 1, "rescore": 1})
