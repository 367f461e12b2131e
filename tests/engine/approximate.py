"""Data like real embeddings, and how much of the truth an approximate answer holds."""

import numpy as np

from apps.engine.indexes.matrix import Matrix, Neighbors
from apps.engine.metrics import Metric, exact_scores
from apps.engine.vectors import Float32, Mask


def embeddings(rows: int, dimension: int, seed: int = 0) -> Float32:
    """Rows [rows, dimension] of many overlapping clusters about some twenty directions, of lengths about 1."""
    rng = np.random.default_rng(seed)
    inner = min(dimension, 20)
    centres = np.random.default_rng(99).standard_normal((60, inner))
    latent = centres[rng.integers(0, 60, rows)] + 0.6 * rng.standard_normal((rows, inner))
    directions = np.random.default_rng(98).standard_normal((inner, dimension))
    vectors = latent @ directions + 0.5 * rng.standard_normal((rows, dimension))
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True) / rng.uniform(0.8, 1.25, (rows, 1))
    return (vectors / lengths).astype(np.float32)


def recall(
    found: Neighbors, vectors: Float32, metric: Metric, queries: Float32, k: int, allowed: Mask | None = None
) -> float:
    """The share of the k best rows among the answers, by exact scores, so that ties cost nothing."""
    best = Matrix.build(vectors, metric).search(queries, k, allowed)
    count = np.count_nonzero(best.positions[0] >= 0)
    return float((found.scores[:, :count] >= best.scores[:, count - 1 : count]).mean()) if count else 1.0


def assert_sound(
    found: Neighbors, vectors: Float32, metric: Metric, queries: Float32, k: int, allowed: Mask | None = None
) -> None:
    """Each answer has as many rows as there can be, allowed ones, each once, with its exact score, in order."""
    mask = np.ones(len(vectors), np.bool_) if allowed is None else allowed
    count = min(k, int(np.count_nonzero(mask)))
    assert found.positions.shape == found.scores.shape == (len(queries), k)
    assert (found.positions[:, count:] == -1).all()
    assert (found.scores[:, count:] == -np.inf).all()
    for query, positions, scores in zip(queries, found.positions[:, :count], found.scores[:, :count], strict=True):
        assert mask[positions].all()
        assert len(np.unique(positions)) == count
        assert scores.tobytes() == exact_scores(metric, vectors, query, positions).tobytes()
        assert np.array_equal(np.lexsort((positions, -scores)), np.arange(count))
