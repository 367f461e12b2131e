"""Search in a graph: most of the true neighbours at every selectivity, by their exact scores, whatever the data."""

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from apps.engine.errors import InvalidParameter
from apps.engine.indexes.faiss_library import metric_number, read
from apps.engine.indexes.hnsw import Hnsw
from apps.engine.indexes.matrix import Matrix
from apps.engine.indexes.registry import check_search_params
from apps.engine.metrics import Metric
from apps.engine.vectors import Float32
from tests.engine.approximate import assert_sound, embeddings, recall
from tests.engine.data import KINDS, made, storable, without_zeros
from tests.limits import descriptors_left

ROWS = 9000
QUICK = {"ef_construction": 48}


@cache
def built(metric: Metric, dimension: int = 24) -> tuple[Float32, Float32, Hnsw]:
    """Rows, queries and their graph, of float32 below 64 dimensions and of bfloat16 from there."""
    vectors, queries = embeddings(ROWS, dimension), embeddings(40, dimension, seed=1)
    vectors.flags.writeable = queries.flags.writeable = False
    return vectors, queries, Hnsw.build(Matrix(vectors, metric), QUICK)


@pytest.mark.parametrize("metric", Metric)
@pytest.mark.parametrize("dimension", [24, 80])
@pytest.mark.parametrize("k", [1, 10, 60])
def test_most_neighbours_are_found(metric: Metric, dimension: int, k: int) -> None:
    vectors, queries, index = built(metric, dimension)
    found = index.search(queries, k)
    assert not found.exact
    assert (found.compared < ROWS).all()
    assert_sound(found, vectors, metric, queries, k)
    assert recall(found, vectors, metric, queries, k) >= 0.98


@pytest.mark.parametrize("dimension", [24, 80])
def test_no_row_or_query_is_written_to(dimension: int) -> None:
    vectors, queries, index = built(Metric.EUCLIDEAN, dimension)
    index.search(queries, 10)
    assert np.array_equal(vectors, embeddings(ROWS, dimension))
    assert np.array_equal(queries, embeddings(40, dimension, seed=1))


def test_first_ranks_are_as_sure_as_those_of_a_shorter_search() -> None:
    vectors, queries, index = built(Metric.COSINE, 80)
    k = 100
    found, whole = index.search(queries, k, sure=12), index.search(queries, k)
    assert (found.compared < whole.compared).all()
    assert_sound(found, vectors, Metric.COSINE, queries, k)
    first = replace(found, positions=found.positions[:, :12], scores=found.scores[:, :12])
    assert recall(first, vectors, Metric.COSINE, queries, 12) >= 0.98
    assert recall(found, vectors, Metric.COSINE, queries, k) >= 0.9


@pytest.mark.parametrize("metric", [Metric.COSINE, Metric.EUCLIDEAN])
@pytest.mark.parametrize("dimension", [24, 80])
def test_rows_far_from_the_origin_are_told_apart(metric: Metric, dimension: int) -> None:
    vectors, queries = (embeddings(count, dimension, seed=count) + np.float32(100) for count in (ROWS, 40))
    index = Hnsw.build(Matrix(vectors, metric), QUICK)
    found = index.search(queries, 10, params={"ef": 64})
    assert not found.scanned.any()
    assert recall(found, vectors, metric, queries, 10) >= 0.95


@pytest.mark.parametrize("metric", Metric)
@pytest.mark.parametrize("share", [0.0005, 0.01, 0.06, 0.2, 0.5, 0.75, 0.9, 0.99])
def test_a_mask_costs_no_recall(metric: Metric, share: float) -> None:
    vectors, queries, index = built(metric)
    allowed = np.random.default_rng(2).random(ROWS) < share
    for params in ({}, {"ef": 64}):
        found = index.search(queries, 10, allowed, params)
        assert found.exact == (share < (0.7 if params == {} else 0.4)), "an exact search is quicker among few"
        assert_sound(found, vectors, metric, queries, 10, allowed)
        assert recall(found, vectors, metric, queries, 10, allowed) >= 0.95


@pytest.mark.parametrize("metric", Metric)
def test_a_mask_far_from_the_query_is_searched_all_the_same(metric: Metric) -> None:
    vectors, queries, index = built(metric)
    allowed = vectors[:, 0] > np.quantile(vectors[:, 0], 0.4)
    away = queries[queries[:, 0] < 0]
    found = index.search(away, 10, allowed, {"ef": 20})
    assert_sound(found, vectors, metric, away, 10, allowed)
    assert recall(found, vectors, metric, away, 10, allowed) >= 0.9


def test_threads_do_not_disturb_each_other() -> None:
    _, queries, index = built(Metric.COSINE)
    efs = [20, 40, 60, 80, 100, 120]
    expected = [index.search(queries, 10, params={"ef": ef}).positions for ef in efs]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(5):
            found = pool.map(lambda ef: index.search(queries, 10, params={"ef": ef}).positions, efs)
            assert all(np.array_equal(one, other) for one, other in zip(found, expected, strict=True))


@pytest.mark.parametrize("metric", Metric)
@pytest.mark.parametrize("dimension", [1, 3, 7, 17, 100])
def test_any_dimension(metric: Metric, dimension: int) -> None:
    vectors, queries = embeddings(7000, dimension), embeddings(30, dimension, seed=1)
    found = Hnsw.build(Matrix(vectors, metric), QUICK).search(queries, 10)
    assert_sound(found, vectors, metric, queries, 10)
    assert recall(found, vectors, metric, queries, 10) >= 0.95


@pytest.mark.parametrize("metric", Metric)
def test_rows_that_are_all_equal_are_found_in_their_order(metric: Metric) -> None:
    vectors = np.tile(embeddings(1, 24), (ROWS, 1))
    queries = embeddings(2, 24, seed=1)
    assert Hnsw.build(Matrix(vectors, metric)).search(queries, 5).positions.tolist() == [list(range(5))] * 2


@pytest.mark.parametrize("metric", Metric)
def test_copies_of_one_row_push_no_other_out(metric: Metric) -> None:
    vectors, queries, _ = built(metric)
    vectors = np.concatenate([vectors, vectors])
    places = np.sort(np.random.default_rng(3).permutation(len(vectors))[:6000])
    vectors[places] = vectors[places[0]]
    index = Hnsw.build(Matrix(vectors, metric), QUICK)
    queries = np.concatenate([vectors[places[:1]], queries, (queries[:5] + 2 * vectors[places[0]]) / 3])
    found = index.search(queries, 10)
    assert not found.exact
    assert_sound(found, vectors, metric, queries, 10)
    assert recall(found, vectors, metric, queries, 10) >= 0.95
    if metric is not Metric.DOT:
        assert np.array_equal(found.positions[0], places[:10])
    # Some copies are allowed and others not.
    allowed = np.random.default_rng(4).random(len(vectors)) < 0.8
    masked = index.search(queries, 10, allowed)
    assert_sound(masked, vectors, metric, queries, 10, allowed)
    assert recall(masked, vectors, metric, queries, 10, allowed) >= 0.95


def test_rows_that_bytes_cannot_tell_apart_are_told_apart() -> None:
    # One dimension of some rows reaches so far that the others fall into few steps of a byte.
    rng = np.random.default_rng(7)
    vectors = embeddings(ROWS, 80)
    vectors[rng.permutation(ROWS)[:50]] *= 300
    queries = embeddings(30, 80, seed=1)
    found = Hnsw.build(Matrix(vectors, Metric.EUCLIDEAN), QUICK).search(queries, 10)
    assert_sound(found, vectors, Metric.EUCLIDEAN, queries, 10)
    assert recall(found, vectors, Metric.EUCLIDEAN, queries, 10) >= 0.9


@pytest.mark.parametrize("magnitude", [1e15, 1e-7, 1e-30, 1e-41])
@pytest.mark.parametrize("metric", Metric)
def test_magnitudes_make_no_difference(metric: Metric, magnitude: float) -> None:
    plain, wide_queries, _ = built(metric)
    vectors = storable(plain.astype(np.float64) * magnitude)
    index = Hnsw.build(Matrix(vectors, metric), QUICK)
    for query_magnitude in (magnitude, magnitude * 100, 1.0, 1e15, 1e-30):
        queries = storable(wide_queries.astype(np.float64) * query_magnitude)
        found = index.search(queries, 10)
        assert query_magnitude != magnitude or not found.exact
        assert_sound(found, vectors, metric, queries, 10)
        # Rows are all about as far from a point that is far away, or from the middle; the walk finds some of the best.
        is_like_rows = metric is not Metric.EUCLIDEAN or magnitude <= query_magnitude <= magnitude * 100
        assert recall(found, vectors, metric, queries, 10) >= (0.95 if is_like_rows else 0.4)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("metric", Metric)
def test_awkward_rows_are_found_or_searched_exactly(metric: Metric, kind: str) -> None:
    rng = np.random.default_rng(5)
    for dimension, magnitude in ((3, 1.0), (12, 1e-30)):
        queries = storable(rng.standard_normal((20, dimension)) * magnitude)
        vectors = without_zeros(made(rng, kind, 7000, queries[0], magnitude))
        found = Hnsw.build(Matrix(vectors, metric), QUICK).search(queries, 10)
        assert_sound(found, vectors, metric, queries, 10)
        assert recall(found, vectors, metric, queries, 10) >= 0.9


@pytest.mark.parametrize("metric", [Metric.DOT, Metric.EUCLIDEAN])
def test_a_query_of_zeros_has_an_answer(metric: Metric) -> None:
    vectors, queries, index = built(metric)
    queries = np.stack([queries[0], np.zeros(24, np.float32)])
    found = index.search(queries, 10)
    assert_sound(found, vectors, metric, queries, 10)
    assert recall(found, vectors, metric, queries, 10) >= 0.7


def test_rows_without_any_structure_get_a_longer_walk_or_an_exact_search() -> None:
    rng = np.random.default_rng(8)
    vectors, queries = rng.standard_normal((10_000, 128)), rng.standard_normal((30, 128))
    vectors, queries = vectors.astype(np.float32), queries.astype(np.float32)
    index = Hnsw.build(Matrix(vectors, Metric.COSINE), QUICK)
    assert recall(index.search(queries, 10, params={"ef": 40}), vectors, Metric.COSINE, queries, 10) == 1.0
    assert recall(index.search(queries, 10), vectors, Metric.COSINE, queries, 10) >= 0.9


def test_a_longer_walk_finds_more() -> None:
    vectors, queries, index = built(Metric.COSINE)
    shares = [
        recall(index.search(queries, 10, params={"ef": ef}), vectors, Metric.COSINE, queries, 10) for ef in (1, 30, 180)
    ]
    assert shares == sorted(shares)
    assert shares[0] < 0.98
    assert shares[-1] >= 0.995


def test_more_links_find_more() -> None:
    vectors, queries, _ = built(Metric.COSINE)
    few, many = (Hnsw.build(Matrix(vectors, Metric.COSINE), {"m": m, "ef_construction": 32}) for m in (4, 32))
    params = {"ef": 10}
    assert few.nbytes < many.nbytes
    assert recall(few.search(queries, 10, params=params), vectors, Metric.COSINE, queries, 10) < recall(
        many.search(queries, 10, params=params), vectors, Metric.COSINE, queries, 10
    )


def test_the_same_rows_give_the_same_graph(tmp_path: Path) -> None:
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        Hnsw.build(Matrix(embeddings(7000, 20), Metric.DOT), QUICK).save(tmp_path / name)
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "other" / path.name).read_bytes()


@pytest.mark.parametrize("metric", Metric)
def test_saved_and_mapped_it_answers_as_before(metric: Metric, tmp_path: Path) -> None:
    for vectors in (built(metric, 80)[0], np.repeat(built(metric)[0], 2, axis=0), embeddings(5, 24)):
        shutil.rmtree(tmp_path)
        tmp_path.mkdir()
        np.save(tmp_path / "vectors.npy", vectors)
        queries = embeddings(30, vectors.shape[1], seed=1)
        allowed = np.arange(len(vectors)) % 10 > 0
        index = Hnsw.build(Matrix(vectors, metric), QUICK)
        index.save(tmp_path)
        loaded = Hnsw.load(tmp_path, Matrix(np.load(tmp_path / "vectors.npy", mmap_mode="r"), metric))
        assert len(loaded) == len(vectors)
        assert loaded.nbytes == index.nbytes
        for mask in (None, allowed):
            found, expected = loaded.search(queries, 10, mask), index.search(queries, 10, mask)
            assert found.exact == expected.exact == (len(vectors) == 5)
            assert np.array_equal(found.positions, expected.positions)
            assert found.scores.tobytes() == expected.scores.tobytes()


@pytest.mark.parametrize("metric", Metric)
def test_saved_and_mapped_rows_far_from_the_origin_are_found_as_before(metric: Metric, tmp_path: Path) -> None:
    vectors, queries = (embeddings(count, 80, seed=count) + np.float32(2) for count in (ROWS, 40))
    index = Hnsw.build(Matrix(vectors, metric), QUICK)
    assert built(metric, 80)[2].nbytes - index.nbytes > ROWS * 80 / 2, "bytes, where other codes take two each"
    index.save(tmp_path)
    loaded = Hnsw.load(tmp_path, Matrix(vectors, metric))
    assert loaded.nbytes == index.nbytes
    found, expected = loaded.search(queries, 10), index.search(queries, 10)
    assert not found.scanned.any()
    assert_sound(found, vectors, metric, queries, 10)
    assert np.array_equal(found.positions, expected.positions)
    assert np.array_equal(found.compared, expected.compared)


def test_its_file_is_mapped(tmp_path: Path) -> None:
    vectors, queries, index = built(Metric.COSINE)
    index.save(tmp_path)
    loaded = Hnsw.load(tmp_path, Matrix(vectors, Metric.COSINE))
    assert str(tmp_path / "graph.faiss") in Path("/proc/self/maps").read_text()
    # Maintenance deletes the files of old segments while they are searched.
    shutil.rmtree(tmp_path)
    assert np.array_equal(loaded.search(queries, 10).positions, index.search(queries, 10).positions)


def test_files_that_hold_something_else_are_refused(tmp_path: Path) -> None:
    vectors, _, index = built(Metric.COSINE)
    index.save(tmp_path)
    graph, about = (tmp_path / "graph.faiss").read_bytes(), (tmp_path / "graph.json").read_text()
    damages = [
        ("graph.faiss", b""),
        ("graph.faiss", b"\0" * 5000),
        ("graph.faiss", graph[:-1]),
        ("graph.faiss", graph[: len(graph) // 2]),
        ("graph.faiss", graph[:50]),
        ("graph.json", b""),
        ("graph.json", b"[1]"),
        ("graph.json", b"{}"),
        ("graph.json", json.dumps(json.loads(about) | {"ef": None}).encode()),
        ("copies.npy", b"\0" * 200),
    ]
    for name, content in damages:
        before = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(content)
        with pytest.raises((ValueError, OSError)):
            Hnsw.load(tmp_path, Matrix(vectors, Metric.COSINE))
        (tmp_path / name).write_bytes(before)
    for others, metric in (
        (vectors[:-1], Metric.COSINE),
        (vectors[:, :10], Metric.COSINE),
        (embeddings(ROWS, 80), Metric.COSINE),
        (vectors, Metric.EUCLIDEAN),
    ):
        with pytest.raises(ValueError, match="holds"):
            Hnsw.load(tmp_path, Matrix(others, metric))
    for name in ("graph.faiss", "graph.json", "copies.npy"):
        (tmp_path / name).rename(tmp_path / "away")
        with pytest.raises(FileNotFoundError):
            Hnsw.load(tmp_path, Matrix(vectors, Metric.COSINE))
        (tmp_path / "away").rename(tmp_path / name)
    Hnsw.load(tmp_path, Matrix(vectors, Metric.COSINE))


def test_a_full_disk_is_told(tmp_path: Path) -> None:
    (tmp_path / "graph.faiss").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left"):
        built(Metric.COSINE)[2].save(tmp_path)


def test_a_process_without_descriptors_does_not_call_a_graph_wrong(tmp_path: Path) -> None:
    built(Metric.COSINE)[2].save(tmp_path)
    with descriptors_left(0), pytest.raises(OSError, match="Too many open files"):
        read(tmp_path / "graph.faiss", "IndexHNSWFlat", metric_number(Metric.COSINE), 0, 0)


def test_it_says_what_it_holds() -> None:
    vectors, _, index = built(Metric.COSINE, 80)
    assert len(index) == ROWS
    # Two bytes per dimension, 32 links and more, three numbers.
    assert ROWS * (2 * 80 + 32 * 4 + 12) <= index.nbytes <= ROWS * (2 * 80 + 40 * 4 + 20)
    assert index.nbytes < vectors.nbytes


def test_parameters_it_does_not_take_are_refused() -> None:
    vectors = embeddings(10, 3)
    with pytest.raises(InvalidParameter, match=r"^ef: is no parameter of hnsw; there are: m, ef_construction$"):
        Hnsw.build(Matrix(vectors, Metric.DOT), {"ef": 1})
    with pytest.raises(InvalidParameter, match=r"^m: must be from 4 to 64, not 3$"):
        Hnsw.build(Matrix(vectors, Metric.DOT), {"m": 3})
    with pytest.raises(InvalidParameter, match=r"^ef: must be a whole number from 1 to 4096$"):
        check_search_params("hnsw", {"ef": True})
    with pytest.raises(InvalidParameter, match=r"^probes: is no search parameter of hnsw; there are: ef, recall$"):
        check_search_params("hnsw", {"probes": 1})


def test_a_build_is_broken_off_at_a_checkpoint_and_they_are_close() -> None:
    vectors, _, _ = built(Metric.COSINE)
    asked: list[int] = []
    Hnsw.build(Matrix(vectors, Metric.COSINE), QUICK, checkpoint=lambda: asked.append(1))
    assert len(asked) > ROWS / 1000

    class Enough(Exception):
        pass

    def checkpoint() -> None:
        asked.append(1)
        if len(asked) == 3:
            raise Enough

    asked.clear()
    with pytest.raises(Enough):
        Hnsw.build(Matrix(vectors, Metric.COSINE), QUICK, checkpoint=checkpoint)
    assert len(asked) == 3
