"""Vectors as tests write them, and the plain float64 arithmetic that answers are compared with."""

import base64
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

METRICS = ("cosine", "dot", "euclidean")


def base64_of(vector: Sequence[float] | NDArray[np.float32]) -> str:
    """Little-endian float32 in base64."""
    return base64.b64encode(np.asarray(vector, "<f4").tobytes()).decode()


def scores_of(metric: str, rows: NDArray[np.float32], query: NDArray[np.float32]) -> NDArray[np.float64]:
    """The score of each of `rows` [n, d] against `query` [d]: cosine, inner product, or minus the L2 distance."""
    wide, q = rows.astype(np.float64), query.astype(np.float64)
    if metric == "euclidean":
        return -np.linalg.norm(wide - q, axis=1)
    products = wide @ q
    return products / (np.linalg.norm(wide, axis=1) * np.linalg.norm(q)) if metric == "cosine" else products


def distances_of(metric: str, scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """The distances that go with `scores`: 1 - cosine, minus the inner product, or L2."""
    return 1 - scores if metric == "cosine" else -scores
