"""Awkward matrices for the tests of the engine, and the plain float64 product, which says what is right."""

from dataclasses import dataclass

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from apps.engine.expiry import NEVER
from apps.engine.indexes.matrix import Neighbors
from apps.engine.metadata import Attributes, Columns
from apps.engine.metrics import Metric, exact_scores
from apps.engine.storage.row_data import Row, SealedRows
from apps.engine.text.inverted_index import InvertedIndex
from apps.engine.vectors import MAX_COMPONENT, Float32, Int64, Mask

metrics = st.sampled_from(Metric)
seeds = st.integers(0, 2**32 - 1)

MAGNITUDES = (1e15, 1e7, 1.0, 1e-7, 1e-17, 1e-19, 1e-25, 1e-38, 1e-41, 1e-44)
KINDS = (
    "normal",
    "all equal",
    "few distinct",
    "one ulp apart",
    "about the query",
    "one direction",
    "far from the origin",
    "mixed magnitudes",
    "whole numbers",
    "mostly zero",
)


def bounded(examples: int) -> settings:
    """So many examples, however long each takes."""
    return settings(max_examples=examples, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def made(rng: np.random.Generator, kind: str, rows: int, query: Float32, magnitude: float) -> Float32:
    """A matrix [rows, dimension] of one kind of awkwardness, about as large as `magnitude`."""
    dimension = len(query)
    noise = rng.standard_normal((rows, dimension))
    row = rng.standard_normal(dimension)
    if kind == "normal":
        matrix = noise * magnitude
    elif kind == "all equal":
        matrix = np.tile(row * magnitude, (rows, 1))
    elif kind == "few distinct":
        matrix = (noise * magnitude)[rng.integers(0, min(3, rows), rows)] if rows else noise
    elif kind == "one ulp apart":
        matrix = np.tile((row * magnitude).astype(np.float32), (rows, 1))
        matrix = np.nextafter(matrix, np.float32(1) * rng.choice([-np.inf, 0, np.inf], matrix.shape).astype(np.float32))
    elif kind == "about the query":
        matrix = query * (1 + noise * 2e-7)
    elif kind == "one direction":
        largest = np.abs(query).max(initial=0)
        matrix = query / (largest or 1) * magnitude * (1 + noise * 2e-7)
    elif kind == "far from the origin":
        matrix = magnitude * (1 + noise * 1e-6)
    elif kind == "mixed magnitudes":
        matrix = noise * rng.choice(MAGNITUDES, (rows, 1))
    elif kind == "whole numbers":
        matrix = rng.integers(-2, 3, (rows, dimension)) * magnitude
    else:
        matrix = noise * (rng.random((rows, dimension)) < 0.2) * magnitude
    return storable(matrix)


def storable(vectors: np.ndarray) -> Float32:
    """`vectors` within the bound on components, as float32."""
    return np.clip(vectors, -MAX_COMPONENT, MAX_COMPONENT).astype(np.float32)


def without_zeros(vectors: Float32) -> Float32:
    """`vectors` with a one in each row that is all zero, so that every row has a cosine."""
    vectors = vectors.copy()
    vectors[~vectors.any(axis=1), :1] = 1
    return vectors


def rows_of(keys: Int64) -> list[Row]:
    """What the rows of `keys` hold besides their vectors."""
    return [
        Row(Attributes(f"row-{key}", None, key, f'{{"key": {key}}}', expires_at=expiry_of(key)), f"row {key}")
        for key in keys.tolist()
    ]


def expiry_of(key: int) -> int:
    """When the row of `key` expires: some never do, and some do so at once."""
    return key // 10 if key % 3 == 1 else NEVER


def sealed_rows_of(keys: Int64) -> SealedRows:
    """The same, as a segment has it."""
    rows = rows_of(keys)
    columns = Columns.build([row.attributes for row in rows])
    return SealedRows(columns, InvertedIndex.build([row.text for row in rows]))


@dataclass(frozen=True)
class Problem:
    """A matrix to search for the k nearest to each of the queries."""

    vectors: Float32
    queries: Float32
    metric: Metric
    k: int
    allowed: Mask | None

    def __repr__(self) -> str:
        allowed = "all" if self.allowed is None else f"{np.count_nonzero(self.allowed)} allowed"
        return f"<{self.metric.value} {self.vectors.shape} ({allowed}), queries {self.queries.shape}, k {self.k}>"


dimensions = st.one_of(st.integers(1, 64), st.integers(1, 8), st.sampled_from([384, 1536]))
row_counts = st.one_of(st.integers(0, 40), st.integers(0, 700), st.integers(2000, 5000))


@st.composite
def problems(draw: st.DrawFn, masked: bool = True) -> Problem:
    """Problems of every metric, kind and magnitude; large matrices only of few dimensions."""
    metric, dimension, rows = draw(metrics), draw(dimensions), draw(row_counts)
    rows = min(rows, 400_000 // dimension)
    kind, magnitude, query_magnitude = (draw(st.sampled_from(of)) for of in (KINDS, MAGNITUDES, MAGNITUDES))
    k = draw(st.one_of(st.integers(1, 12), st.sampled_from([max(1, rows - 1), max(1, rows), rows + 1, rows + 50])))
    share = draw(st.sampled_from([None, None, 0.0, 0.01, 0.1, 0.5, 1.0])) if masked else None
    rng = np.random.default_rng(draw(seeds))
    queries = storable(rng.standard_normal((draw(st.integers(1, 3)), dimension)) * query_magnitude)
    vectors = made(rng, kind, rows, queries[0], magnitude)
    if metric is Metric.COSINE:
        vectors, queries = without_zeros(vectors), without_zeros(queries)
    allowed = None if share is None else rng.random(rows) < share
    return Problem(vectors, queries, metric, k, allowed)


def plain_scores(metric: Metric, vectors: Float32, query: Float32) -> np.ndarray:
    """Scores [n] by the definition, in float64."""
    rows, wide = vectors.astype(np.float64), query.astype(np.float64)
    if metric is Metric.EUCLIDEAN:
        return -np.linalg.norm(rows - wide, axis=1)
    products = rows @ wide
    return products if metric is Metric.DOT else products / (np.linalg.norm(rows, axis=1) * np.linalg.norm(wide))


def tolerances(metric: Metric, vectors: Float32, query: Float32) -> np.ndarray:
    """By how much a score [n] may differ from the plain one: a rounding to float32, and those of two float64 sums."""
    rows, wide = vectors.astype(np.float64), query.astype(np.float64)
    plain = np.abs(plain_scores(metric, vectors, query))
    summed = {Metric.COSINE: 1.0, Metric.EUCLIDEAN: plain}.get(
        metric, np.linalg.norm(rows, axis=1) * np.linalg.norm(wide)
    )
    return plain * 2.0**-23 + summed * 2.0**-51 * (len(query) + 8) + 2.0**-149


def ranking(metric: Metric, vectors: Float32, query: Float32, order: np.ndarray | None = None) -> np.ndarray:
    """All positions, best first, ties by `order`: every row is scored exactly."""
    order = np.arange(len(vectors)) if order is None else order
    return np.lexsort((order, -exact_scores(metric, vectors, query)))


def assert_k_best(found: Neighbors, problem: Problem) -> None:
    """`found` is the answer to `problem`, by the plain product and, tie for tie, by the exact scores of all rows."""
    vectors, metric = problem.vectors, problem.metric
    allowed = np.ones(len(vectors), np.bool_) if problem.allowed is None else problem.allowed
    count = min(problem.k, int(np.count_nonzero(allowed)))
    assert found.exact
    assert found.positions.shape == found.scores.shape == (len(problem.queries), problem.k)
    assert (found.compared == np.count_nonzero(allowed)).all()
    assert (found.positions[:, count:] == -1).all()
    assert (found.scores[:, count:] == -np.inf).all()
    for query, positions, scores in zip(
        problem.queries, found.positions[:, :count], found.scores[:, :count], strict=True
    ):
        plain, tolerance = plain_scores(metric, vectors, query), tolerances(metric, vectors, query)
        assert (np.abs(scores - plain[positions]) <= tolerance[positions]).all()
        left = allowed.copy()
        left[positions] = False
        assert np.count_nonzero(left) == np.count_nonzero(allowed) - count, "an answer repeats a row, or has another"
        if count:
            assert (plain[left] <= scores[-1] + tolerance[left]).all()
        by_rank = ranking(metric, vectors, query)
        assert np.array_equal(positions, by_rank[allowed[by_rank]][:count])
