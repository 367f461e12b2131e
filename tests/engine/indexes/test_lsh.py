"""Locality-sensitive hashing: finds most of the nearest rows among few candidates, and the same ones every time."""

import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.engine import kernels
from apps.engine.errors import InvalidParameter
from apps.engine.indexes.brute_force import BruteForce
from apps.engine.indexes.lsh import Lsh
from apps.engine.indexes.matrix import Matrix, Neighbors
from apps.engine.indexes.registry import check_search_params
from apps.engine.metrics import Metric
from apps.engine.vectors import Float32
from tests.engine.approximate import assert_sound, embeddings, recall
from tests.engine.data import Problem, bounded, problems
from tests.engine.indexes import plain_lsh

ROWS, DIMENSION = 12_000, 96


@pytest.fixture(autouse=True, scope="module")
def _compiled() -> None:
    kernels.load()


@cache
def built(metric: Metric) -> tuple[Float32, Float32, Lsh]:
    """More rows than a query's candidates, queries, and their index."""
    vectors, queries = embeddings(30_000, 64), embeddings(40, 64, seed=1)
    vectors.flags.writeable = queries.flags.writeable = False
    return vectors, queries, Lsh.build(Matrix(vectors, metric))


@pytest.fixture(scope="module")
def vectors() -> Float32:
    return embeddings(ROWS, DIMENSION)


@pytest.fixture(scope="module")
def queries() -> Float32:
    return embeddings(100, DIMENSION, seed=1)


def same(one: Neighbors, other: Neighbors) -> bool:
    return one.exact == other.exact and all(
        ours.tobytes() == theirs.tobytes()
        for ours, theirs in (
            (one.positions, other.positions),
            (one.scores, other.scores),
            (one.compared, other.compared),
        )
    )


@pytest.mark.parametrize("metric", Metric)
def test_most_of_the_nearest_rows_are_found_among_few(metric: Metric, vectors: Float32, queries: Float32) -> None:
    found = Lsh.build(Matrix(vectors, metric)).search(queries, 10)
    assert not found.exact
    assert_sound(found, vectors, metric, queries, 10)
    assert recall(found, vectors, metric, queries, 10) >= 0.98
    assert found.compared.mean() < 0.45 * ROWS


@pytest.mark.parametrize("metric", Metric)
def test_rows_without_any_structure_are_found_too(metric: Metric) -> None:
    rng = np.random.default_rng(0)
    vectors, queries = (rng.standard_normal((rows, 64)).astype(np.float32) for rows in (20_000, 100))
    found = Lsh.build(Matrix(vectors, metric)).search(queries, 10)
    assert recall(found, vectors, metric, queries, 10) >= 0.8
    assert found.compared.mean() < 0.4 * len(vectors)


def test_a_mean_far_from_the_origin_costs_nothing(vectors: Float32, queries: Float32) -> None:
    offset = np.float32(3)
    for metric in (Metric.COSINE, Metric.EUCLIDEAN):
        found = Lsh.build(Matrix(vectors + offset, metric)).search(queries + offset, 10)
        assert recall(found, vectors + offset, metric, queries + offset, 10) >= 0.95
        assert found.compared.mean() < 0.5 * ROWS


@pytest.mark.parametrize("metric", [Metric.DOT, Metric.EUCLIDEAN])
def test_rows_of_one_direction_are_told_apart_by_their_length(metric: Metric) -> None:
    rng = np.random.default_rng(0)
    vectors = (rng.random((20_000, 1)) * rng.standard_normal((1, 64))).astype(np.float32)
    found = Lsh.build(Matrix(vectors, metric)).search(vectors[:50], 10)
    assert recall(found, vectors, metric, vectors[:50], 10) >= 0.8


@pytest.mark.parametrize("metric", Metric)
@pytest.mark.parametrize("share", [0.0, 0.0001, 0.01, 0.1, 0.5, 0.99, 1.0])
def test_a_mask_costs_no_recall(share: float, metric: Metric) -> None:
    vectors, queries, index = built(metric)
    allowed = np.random.default_rng(1).random(len(vectors)) < share
    found = index.search(queries, 10, allowed)
    assert_sound(found, vectors, metric, queries, 10, allowed)
    assert recall(found, vectors, metric, queries, 10, allowed) >= 0.98
    assert (found.compared <= np.count_nonzero(allowed)).all()


def test_the_fewer_rows_are_allowed_the_further_a_query_looks() -> None:
    rng = np.random.default_rng(0)
    vectors, queries = (rng.standard_normal((rows, 64)).astype(np.float32) for rows in (40_000, 100))
    index = Lsh.build(Matrix(vectors, Metric.COSINE))
    shares = [index.search(queries, 10).compared.mean() / len(vectors)]
    for share in (0.9, 0.7, 0.35):
        allowed = rng.random(len(vectors)) < share
        found = index.search(queries, 10, allowed)
        assert not found.exact
        assert recall(found, vectors, Metric.COSINE, queries, 10, allowed) >= 0.9
        shares.append(found.compared.mean() / np.count_nonzero(allowed))
    assert shares == sorted(shares)
    assert shares[0] < 0.3
    assert shares[-1] == 1.0
    few = rng.random(len(vectors)) < 0.15
    assert index.search(queries, 10, few).exact


def test_few_probes_find_as_many_rows_as_there_may_be(vectors: Float32, queries: Float32) -> None:
    # A bucket holds fewer rows than are asked for.
    allowed = np.random.default_rng(1).random(ROWS) < 0.95
    index = Lsh.build(Matrix(vectors, Metric.COSINE), {"tables": 1, "bits": 16})
    for k in (1, 10, 900):
        found = index.search(queries, k, allowed, {"probes": 1, "shortlist": 1})
        assert_sound(found, vectors, Metric.COSINE, queries, k, allowed)


def test_more_probes_and_a_longer_list_find_more() -> None:
    rng = np.random.default_rng(0)
    vectors, queries = (rng.standard_normal((rows, 64)).astype(np.float32) for rows in (20_000, 100))
    index = Lsh.build(Matrix(vectors, Metric.COSINE))
    few, probed, listed = (
        index.search(queries, 10, params={"probes": probes, "shortlist": shortlist})
        for probes, shortlist in ((1, 100), (30, 100), (30, 2000))
    )
    recalls = [recall(found, vectors, Metric.COSINE, queries, 10) for found in (few, probed, listed)]
    assert recalls[0] < recalls[1] < recalls[2]
    assert few.compared.mean() < 0.1 * probed.compared.mean()


def test_it_says_exact_only_where_all_rows_are_scored(vectors: Float32, queries: Float32) -> None:
    index = Lsh.build(Matrix(vectors, Metric.DOT))
    expected = BruteForce.build(Matrix.build(vectors, Metric.DOT))
    few = np.arange(ROWS) < 300
    assert not index.search(queries, 10, params={"probes": 1 << 16}).exact
    assert not index.search(queries, 10, params={"shortlist": ROWS - 1}).exact
    for k, allowed, params in ((10, None, {"shortlist": ROWS}), (ROWS + 1, None, {}), (10, few, {})):
        found = index.search(queries[:5], k, allowed, params)
        assert found.exact
        assert found.positions.tolist() == expected.search(queries[:5], k, allowed).positions.tolist()


@pytest.mark.parametrize("rows", [0, 1, 2, 50])
def test_few_rows_are_searched_exactly(rows: int) -> None:
    vectors, queries = embeddings(rows, 5), embeddings(3, 5, seed=1)
    found = Lsh.build(Matrix(vectors, Metric.EUCLIDEAN)).search(queries, 10)
    assert found.exact
    assert_sound(found, vectors, Metric.EUCLIDEAN, queries, 10)


@pytest.mark.parametrize("metric", Metric)
def test_rows_that_are_all_equal_are_found_in_order(metric: Metric) -> None:
    vectors = np.tile(embeddings(1, 64), (40_000, 1))
    found = Lsh.build(Matrix(vectors, metric)).search(embeddings(2, 64, seed=1), 10)
    assert found.positions.tolist() == [list(range(10))] * 2


class AlwaysHashing(Lsh):
    """Hashes also where a scan would cost less."""

    scan_size = 0


@bounded(80)
@given(
    problem=problems(),
    tables=st.integers(1, 32),
    bits=st.integers(1, 16),
    seed=st.integers(0, 5),
    given_probes=st.one_of(st.none(), st.integers(1, 100)),
    shortlist=st.integers(1, 60),
)
def test_awkward_data_have_sound_answers_and_those_of_plain_hashing(
    problem: Problem, tables: int, bits: int, seed: int, given_probes: int | None, shortlist: int
) -> None:
    vectors, queries, metric, k = problem.vectors, problem.queries, problem.metric, problem.k
    params = {"tables": tables, "bits": bits, "seed": seed}
    search_params = {"shortlist": shortlist} | ({} if given_probes is None else {"probes": given_probes})
    index = AlwaysHashing.build(Matrix(vectors, metric), params)
    found = index.search(queries, k, problem.allowed, search_params)
    plain = plain_lsh.search(index, queries, k, problem.allowed, search_params)
    assert np.array_equal(index.arrays.signatures, plain_lsh.row_signatures(index))
    assert_sound(found, vectors, metric, queries, k, problem.allowed)
    assert same(found, plain)


@pytest.mark.parametrize("probes", [1, 3, 100])
def test_a_query_that_lies_on_all_planes_gets_one_answer(probes: int) -> None:
    # It is the mean of the rows, and all sets of flipped bits cost the same.
    half = np.random.default_rng(0).choice(np.array([-1, 1], np.float32), (600, 1024))
    vectors, query = np.concatenate([half, -half]), np.zeros((1, 1024), np.float32)
    index = Lsh.build(Matrix(vectors, Metric.EUCLIDEAN))
    found = index.search(query, 10, params={"probes": probes})
    assert same(plain_lsh.search(index, query, 10, params={"probes": probes}), found)
    assert_sound(found, vectors, Metric.EUCLIDEAN, query, 10)


@bounded(40)
@given(problem=problems())
def test_a_query_has_the_same_answer_alone_and_in_a_batch(problem: Problem) -> None:
    index = AlwaysHashing.build(Matrix(problem.vectors, problem.metric))
    together = index.search(problem.queries, problem.k, problem.allowed, {"shortlist": 1})
    for i in range(len(problem.queries)):
        alone = index.search(problem.queries[i : i + 1], problem.k, problem.allowed, {"shortlist": 1})
        assert alone.positions.tolist() == together.positions[i : i + 1].tolist()
        assert alone.scores.tobytes() == together.scores[i : i + 1].tobytes()


def test_the_same_seed_gives_the_same_answers(vectors: Float32, queries: Float32) -> None:
    one, two, other = (
        Lsh.build(Matrix(vectors, Metric.COSINE), {"seed": seed}).search(queries, 10) for seed in (3, 3, 4)
    )
    assert same(one, two)
    assert not same(one, other)


def test_another_process_gives_the_same_answers(vectors: Float32, queries: Float32) -> None:
    code = (
        "from apps.engine import kernels; kernels.load()\n"
        "from apps.engine.indexes.lsh import Lsh; from apps.engine.indexes.matrix import Matrix\n"
        "from apps.engine.metrics import Metric\n"
        "from tests.engine.approximate import embeddings\n"
        f"index = Lsh.build(Matrix(embeddings({ROWS}, {DIMENSION}), Metric.DOT))\n"
        f"print(index.search(embeddings(100, {DIMENSION}, seed=1), 10).positions.tolist())"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=300)
    assert answer.stdout.strip() == str(Lsh.build(Matrix(vectors, Metric.DOT)).search(queries, 10).positions.tolist())


@pytest.mark.parametrize("metric", Metric)
@pytest.mark.parametrize("rows", [0, 1, ROWS])
def test_a_saved_index_answers_as_before_from_mapped_files(
    tmp_path: Path, metric: Metric, rows: int, vectors: Float32, queries: Float32
) -> None:
    np.save(tmp_path / "vectors.npy", vectors[:rows])
    mapped = np.load(tmp_path / "vectors.npy", mmap_mode="r")
    index = Lsh.build(Matrix(mapped, metric), {"tables": 8, "seed": 9})
    index.save(tmp_path)
    again = Lsh.load(tmp_path, Matrix(mapped, metric))
    assert (len(again), again.nbytes) == (len(index), index.nbytes)
    for allowed in (None, np.arange(rows) % 3 > 0):
        assert same(again.search(queries, 10, allowed), index.search(queries, 10, allowed))


def test_files_that_do_not_fit_the_rows_are_refused(tmp_path: Path) -> None:
    vectors = embeddings(40, 4)
    Lsh.build(Matrix(vectors, Metric.DOT)).save(tmp_path)
    for other in (vectors[:39], vectors[:, :3]):
        with pytest.raises(ValueError, match="hashes of other rows"):
            Lsh.load(tmp_path, Matrix(other, Metric.DOT))
    (tmp_path / "starts.npy").unlink()
    with pytest.raises(OSError, match=r"starts\.npy"):
        Lsh.load(tmp_path, Matrix(vectors, Metric.DOT))


def _every_second_column(array: Float32) -> Float32:
    return np.repeat(array, 2, axis=1)[:, ::2]


@pytest.mark.parametrize("laid_out", [np.asfortranarray, _every_second_column])
def test_the_layout_in_memory_makes_no_difference(
    laid_out: Callable[[Float32], Float32], vectors: Float32, queries: Float32
) -> None:
    expected = Lsh.build(Matrix(vectors, Metric.COSINE)).search(queries, 10)
    assert same(Lsh.build(Matrix(laid_out(vectors), Metric.COSINE)).search(laid_out(queries), 10), expected)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"tables": 0}, "tables: must be from 1 to 128, not 0"),
        ({"bits": 17}, "bits: must be from 1 to 16, not 17"),
        ({"seed": -1}, "seed: must be from 0 to 4294967295, not -1"),
        ({"seed": "7"}, "seed: must be a whole number from 0 to 4294967295"),
        ({"tables": 64, "bits": 9}, r"bits: times tables must be at most 512, not 9 \* 64"),
        ({"planes": 3}, "planes: is no parameter of lsh; there are: tables, bits, seed"),
    ],
)
def test_parameters_that_make_no_sense_are_refused(params: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidParameter, match=f"^{message}$"):
        Lsh.check_params(params)
    with pytest.raises(InvalidParameter, match=f"^{message}$"):
        Lsh.build(Matrix(np.ones((1, 1), np.float32), Metric.DOT), params)


@pytest.mark.parametrize("params", [{"tables": 128}, {"bits": 16}, {"tables": 128, "bits": 4}, {"tables": 1}])
def test_one_parameter_goes_without_the_other(params: dict[str, int]) -> None:
    vectors, queries = embeddings(20_000, 64), embeddings(20, 64, seed=1)
    found = Lsh.build(Matrix(vectors, Metric.COSINE), params).search(queries, 10)
    assert_sound(found, vectors, Metric.COSINE, queries, 10)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"probes": 0}, "probes: must be from 1 to 65536, not 0"),
        ({"shortlist": 0}, "shortlist: must be from 1 to 1000000, not 0"),
        ({"ef": 64}, "ef: is no search parameter of lsh; there are: probes, shortlist, recall"),
    ],
)
def test_search_parameters_that_make_no_sense_are_refused(params: dict[str, int], message: str) -> None:
    with pytest.raises(InvalidParameter, match=f"^{message}$"):
        check_search_params("lsh", params)


def test_it_says_what_it_holds(vectors: Float32) -> None:
    index = Lsh.build(Matrix(vectors, Metric.COSINE), {"tables": 16})
    assert len(index) == ROWS
    assert ROWS * (64 + 16 * 4) < index.nbytes < ROWS * (64 + 16 * 4) + 200_000


def test_recall_does_not_fall_with_the_number_of_rows_asked_for() -> None:
    # Without any structure, further rows are as hard to find as can be.
    rng = np.random.default_rng(0)
    vectors, queries = (rng.standard_normal((rows, 64)).astype(np.float32) for rows in (60_000, 40))
    index = Lsh.build(Matrix(vectors, Metric.COSINE))
    for k, floor, most in ((1, 0.9, 0.3), (10, 0.9, 0.3), (100, 0.94, 0.5), (1000, 0.94, 0.95)):
        found = index.search(queries, k)
        assert_sound(found, vectors, Metric.COSINE, queries, k)
        assert recall(found, vectors, Metric.COSINE, queries, k) >= floor
        assert found.compared.mean() < most * len(vectors)
        alone = index.search(queries[:2], k)
        assert same(plain_lsh.search(index, queries[:2], k), alone)
