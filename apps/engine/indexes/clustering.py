"""Lists of rows that lie together: k-means (Lloyd, Least squares quantization in PCM, 1982) of a seeded sample.

faiss has it too, and takes five times as long: the product of a block of rows and all centres is numpy's here.
"""

from collections.abc import Iterable

import numpy as np

from apps.engine.indexes.base import Checkpoint
from apps.engine.vectors import Float32, Int64

_ITERATIONS = 8
_BLOCK_ROWS = 8192
_SEED = 4321


def find_centres(sample: Float32, count: int, *, spherical: bool, checkpoint: Checkpoint) -> Float32:
    """`count` centres [count, width] of the rows of `sample` [n, width], at least as many; unit vectors if `spherical`,
    for rows that are."""
    rng = np.random.default_rng(_SEED)
    centres = sample[np.sort(rng.choice(len(sample), count, replace=False))].copy()
    for _ in range(_ITERATIONS):
        checkpoint()
        nearest = nearest_centres([sample], centres, checkpoint)
        order = np.argsort(nearest, kind="stable")
        sizes = np.bincount(nearest, minlength=count)
        filled = np.flatnonzero(sizes)
        sums = np.add.reduceat(sample[order], (np.cumsum(sizes) - sizes)[filled], axis=0)
        centres[filled] = sums / sizes[filled, None].astype(np.float32)
        # A centre that lost all its rows starts again at one of them.
        empty = np.flatnonzero(sizes == 0)
        centres[empty] = sample[rng.choice(len(sample), len(empty), replace=False)]
        if spherical:
            lengths = np.linalg.norm(centres, axis=1, keepdims=True)
            centres /= np.where(lengths > 0.0, lengths, 1.0).astype(np.float32)
    return centres


def nearest_centres(blocks: Iterable[Float32], centres: Float32, checkpoint: Checkpoint) -> Int64:
    """The number of the nearest centre to each row of `blocks` of rows [n, width]."""
    halves = (centres * centres).sum(axis=1) / 2
    found = [np.empty(0, np.int64)]
    for block in blocks:
        for start in range(0, len(block), _BLOCK_ROWS):
            checkpoint()
            products = block[start : start + _BLOCK_ROWS] @ centres.T
            products -= halves
            found.append(products.argmax(axis=1))
    return np.concatenate(found)
