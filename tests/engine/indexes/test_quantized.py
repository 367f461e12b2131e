"""Search by 4-bit codes: nearly all of the true neighbours, by their exact scores, whatever the data."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from apps.engine.errors import InvalidParameter
from apps.engine.indexes.matrix import Matrix
from apps.engine.indexes.quantized import Quantized
from apps.engine.indexes.registry import check_search_params
from apps.engine.metrics import Metric
from apps.engine.vectors import Float32
from tests.engine.approximate import assert_sound, embeddings, recall
from tests.engine.data import KINDS, made, storable, without_zeros

ROWS, DIMENSION = 12_000, 48
QUERIES = embeddings(40, DIMENSION, seed=1)


@cache
def built(metric: Metric) -> tuple[Float32, Quantized]:
    vectors = embeddings(ROWS, DIMENSION)
    vectors.flags.writeable = False
    return vectors, Quantized.build(Matrix(vectors, metric))


@pytest.mark.parametrize("metric", Metric)
@pytest.mark.parametrize("k", [1, 10, 100])
def test_nearly_all_neighbours_are_found(metric: Metric, k: int) -> None:
    vectors, index = built(metric)
    found = index.search(QUERIES, k)
    assert not found.exact
    assert (found.compared == ROWS).all()
    assert_sound(found, vectors, metric, QUERIES, k)
    assert recall(found, vectors, metric, QUERIES, k) >= 0.99


@pytest.mark.parametrize("metric", Metric)
def test_first_ranks_are_as_sure_as_those_of_a_shorter_search(metric: Metric) -> None:
    vectors, index = built(metric)
    found = index.search(QUERIES, 200, sure=25)
    assert_sound(found, vectors, metric, QUERIES, 200)
    first = replace(found, positions=found.positions[:, :25], scores=found.scores[:, :25])
    assert recall(first, vectors, metric, QUERIES, 25) >= 0.99
    assert recall(found, vectors, metric, QUERIES, 200) >= 0.9


@pytest.mark.parametrize("metric", Metric)
@pytest.mark.parametrize("share", [0.0005, 0.01, 0.05, 0.5, 0.99])
def test_a_mask_costs_no_recall(metric: Metric, share: float) -> None:
    vectors, index = built(metric)
    allowed = np.random.default_rng(2).random(ROWS) < share
    found = index.search(QUERIES, 10, allowed)
    assert found.exact == (share < 0.1), "only few rows are searched one by one"
    assert_sound(found, vectors, metric, QUERIES, 10, allowed)
    assert recall(found, vectors, metric, QUERIES, 10, allowed) >= 0.98


@pytest.mark.parametrize("metric", Metric)
def test_a_mask_far_from_the_query_costs_little_recall(metric: Metric) -> None:
    vectors, index = built(metric)
    allowed = vectors[:, 0] > np.quantile(vectors[:, 0], 0.7)
    away = QUERIES[QUERIES[:, 0] < 0]
    found = index.search(away, 10, allowed)
    assert not found.exact
    assert_sound(found, vectors, metric, away, 10, allowed)
    assert recall(found, vectors, metric, away, 10, allowed) >= 0.95


def test_threads_do_not_disturb_each_other() -> None:
    _, index = built(Metric.COSINE)
    masks = [np.random.default_rng(seed).random(ROWS) < 0.6 for seed in range(8)]
    expected = [index.search(QUERIES, 10, mask).positions for mask in masks]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(3):
            found = pool.map(lambda mask: index.search(QUERIES, 10, mask).positions, masks)
            assert all(np.array_equal(one, other) for one, other in zip(found, expected, strict=True))


@pytest.mark.parametrize("metric", Metric)
@pytest.mark.parametrize("dimension", [1, 3, 7, 17, 100])
def test_any_dimension(metric: Metric, dimension: int) -> None:
    vectors, queries = embeddings(5000, dimension), embeddings(40, dimension, seed=1)
    found = Quantized.build(Matrix(vectors, metric)).search(queries, 10)
    assert_sound(found, vectors, metric, queries, 10)
    assert recall(found, vectors, metric, queries, 10) >= 0.97


@pytest.mark.parametrize("piece", range(1, 9))
def test_any_piece(piece: int) -> None:
    vectors, queries = embeddings(20_000, 30), embeddings(40, 30, seed=1)
    found = Quantized.build(Matrix(vectors, Metric.COSINE), {"piece": piece}).search(queries, 10)
    assert found.exact == (piece > 3), "larger pieces are too coarse for so few dimensions, and the index knows"
    assert recall(found, vectors, Metric.COSINE, queries, 10) >= 0.98


@pytest.mark.parametrize("rows", [0, 1, 2, 40, 700])
def test_few_rows_are_searched_exactly(rows: int) -> None:
    vectors = embeddings(rows, 5)
    found = Quantized.build(Matrix(vectors, Metric.COSINE)).search(QUERIES[:3, :5], 4)
    assert found.exact
    assert_sound(found, vectors, Metric.COSINE, QUERIES[:3, :5], 4)
    assert (found.compared == rows).all()


@pytest.mark.parametrize("metric", Metric)
def test_rows_that_are_all_equal_are_found_in_their_order(metric: Metric) -> None:
    vectors = np.tile(QUERIES[0], (3000, 1))
    assert Quantized.build(Matrix(vectors, metric)).search(QUERIES[:2], 5).positions.tolist() == [list(range(5))] * 2


@pytest.mark.parametrize("metric", Metric)
def test_copies_of_one_row_push_no_other_out(metric: Metric) -> None:
    vectors = embeddings(2 * ROWS, DIMENSION)
    places = np.sort(np.random.default_rng(3).permutation(2 * ROWS)[:5000])
    vectors[places] = vectors[places[0]]
    queries = np.concatenate([vectors[places[:1]], QUERIES, (QUERIES[:5] + 2 * vectors[places[0]]) / 3])
    index = Quantized.build(Matrix(vectors, metric))
    found = index.search(queries, 10)
    assert not found.exact
    assert_sound(found, vectors, metric, queries, 10)
    assert recall(found, vectors, metric, queries, 10) >= 0.98
    if metric is not Metric.DOT:
        assert np.array_equal(found.positions[0], places[:10])
    # Some copies are allowed and others not.
    allowed = np.random.default_rng(4).random(2 * ROWS) < 0.5
    masked = index.search(queries, 10, allowed)
    assert_sound(masked, vectors, metric, queries, 10, allowed)
    assert recall(masked, vectors, metric, queries, 10, allowed) >= 0.98


@pytest.mark.parametrize("magnitude", [1e15, 1e7, 1e-7, 1e-30, 1e-41])
@pytest.mark.parametrize("metric", Metric)
def test_magnitudes_make_no_difference(metric: Metric, magnitude: float) -> None:
    vectors = storable(embeddings(6000, DIMENSION).astype(np.float64) * magnitude)
    index = Quantized.build(Matrix(vectors, metric))
    for query_magnitude in (magnitude, magnitude * 100, 1.0, 1e15, 1e-30):
        queries = storable(QUERIES.astype(np.float64) * query_magnitude)
        found = index.search(queries, 10)
        # Products of such short vectors are all zero in float32.
        all_tie = metric is Metric.DOT and magnitude * query_magnitude < 1e-40
        assert query_magnitude != magnitude or found.exact == all_tie
        assert_sound(found, vectors, metric, queries, 10)
        # From far away, rows score alike but for the last bits of float32.
        is_far = query_magnitude > magnitude * 1000
        assert recall(found, vectors, metric, queries, 10) >= (0.9 if is_far else 0.98)


def test_queries_unlike_any_row_get_longer_lists() -> None:
    vectors, index = built(Metric.COSINE)
    queries = np.random.default_rng(6).standard_normal((60, DIMENSION)).astype(np.float32)
    fixed = index.search(queries, 10, params={"rescore": 200})
    assert recall(fixed, vectors, Metric.COSINE, queries, 10) < 0.97
    assert recall(index.search(queries, 10), vectors, Metric.COSINE, queries, 10) >= 0.98


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("metric", Metric)
def test_awkward_rows_are_found_or_searched_exactly(metric: Metric, kind: str) -> None:
    rng = np.random.default_rng(5)
    for dimension, magnitude in ((3, 1.0), (24, 1e15), (24, 1e-30)):
        queries = storable(rng.standard_normal((20, dimension)) * magnitude)
        vectors = without_zeros(made(rng, kind, 3000, queries[0], magnitude))
        found = Quantized.build(Matrix(vectors, metric)).search(queries, 10)
        assert_sound(found, vectors, metric, queries, 10)
        assert recall(found, vectors, metric, queries, 10) >= 0.95


@pytest.mark.parametrize("metric", [Metric.DOT, Metric.EUCLIDEAN])
def test_a_query_of_zeros_has_an_answer(metric: Metric) -> None:
    vectors, index = built(metric)
    queries = np.stack([QUERIES[0], np.zeros(DIMENSION, np.float32)])
    found = index.search(queries, 10)
    assert_sound(found, vectors, metric, queries, 10)
    assert recall(found, vectors, metric, queries, 10) >= 0.95


def test_more_rows_scored_find_more() -> None:
    vectors, index = built(Metric.COSINE)
    shares = [
        recall(index.search(QUERIES, 10, params={"rescore": count}), vectors, Metric.COSINE, QUERIES, 10)
        for count in (1, 30, 1000)
    ]
    assert shares == sorted(shares)
    assert shares[0] < 0.9
    assert shares[-1] == 1.0


@pytest.mark.parametrize("metric", Metric)
def test_saved_and_mapped_it_answers_as_before(metric: Metric, tmp_path: Path) -> None:
    for vectors in (embeddings(9000, 48), np.repeat(embeddings(9000, 48), 2, axis=0), embeddings(5, 48)):
        shutil.rmtree(tmp_path)
        tmp_path.mkdir()
        np.save(tmp_path / "vectors.npy", vectors)
        allowed = np.arange(len(vectors)) % 3 > 0
        index = Quantized.build(Matrix(vectors, metric))
        index.save(tmp_path)
        loaded = Quantized.load(tmp_path, Matrix(np.load(tmp_path / "vectors.npy", mmap_mode="r"), metric))
        assert len(loaded) == len(vectors)
        assert loaded.nbytes == index.nbytes
        for mask in (None, allowed):
            found, expected = loaded.search(QUERIES, 10, mask), index.search(QUERIES, 10, mask)
            assert found.exact == expected.exact == (len(vectors) == 5)
            assert np.array_equal(found.positions, expected.positions)
            assert found.scores.tobytes() == expected.scores.tobytes()


def test_it_says_what_it_holds() -> None:
    _, index = built(Metric.COSINE)
    assert len(index) == ROWS
    assert ROWS * (DIMENSION // 8 + 8 + 4) <= index.nbytes <= ROWS * (DIMENSION // 2 + 8 + 4)


def test_parameters_it_does_not_take_are_refused() -> None:
    vectors = embeddings(10, 3)
    with pytest.raises(InvalidParameter, match=r"^ef: is no parameter of quantized; there are: piece$"):
        Quantized.build(Matrix(vectors, Metric.DOT), {"ef": 1})
    with pytest.raises(InvalidParameter, match=r"^piece: must be from 1 to 8, not 9$"):
        Quantized.build(Matrix(vectors, Metric.DOT), {"piece": 9})
    with pytest.raises(InvalidParameter, match=r"^rescore: must be a whole number from 1 to 1000000$"):
        check_search_params("quantized", {"rescore": 1.5})
    with pytest.raises(
        InvalidParameter, match=r"^probes: is no search parameter of quantized; there are: rescore, recall$"
    ):
        check_search_params("quantized", {"probes": 1})
