"""A k-d tree: exact search that looks at few rows where there are few dimensions (Friedman, Bentley and Finkel, An
algorithm for finding best matches in logarithmic expected time, 1977).

Each node halves its rows at the median of the dimension in which they are spread widest. The halves differ by one row
at most, so the tree is complete whatever the data: n rows make 2**levels leaves of 16 to 32, node i, counted from 1,
has the children 2i and 2i + 1, and leaf i holds the rows i*n >> levels to (i+1)*n >> levels of an order.

The points of the tree are the rows themselves or, under cosine, their unit vectors. A node has the box of its own rows,
not of its cell. `kernels/kd_tree.py` shows that what is left out scores below the k-th best.

Costs 1.3 to 1.6 copies of the rows. It is built by a partition of all rows per level: 0.06 s for 100,000 x 3.
"""

from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from apps.engine import kernels
from apps.engine.array_files import map_array, save_array
from apps.engine.indexes.base import Checkpoint, Parameter, Params, VectorIndex
from apps.engine.indexes.matrix import Matrix, Neighbors
from apps.engine.indexes.normalize import Normalizer
from apps.engine.metrics import Metric
from apps.engine.vectors import Float32, Int64, Mask

_LEAF_SIZE = 32
_ALL = np.empty(0, np.bool_)
# Of n rows with s allowed, the tree compares some k * n / s, a scan s. Where s * s is below 2 * k * n, a scan costs
# less; past the dimensions that the type is made for, it always does.
_SCAN_COST = 2
# Leaves are as wide as a multiple of the float64 lanes of a processor.
_LANES = 8


class Tree(NamedTuple):
    """What an index holds.

    points  [leaves, d, width] float32, the rows of a leaf side by side in each dimension, zeros after the last
    order   [n] int32, the positions of rows, leaf by leaf
    boxes   [2 * leaves, 2, d] float32, the smallest and the largest value in each dimension below each node
    """

    points: Float32
    order: NDArray[np.int32]
    boxes: Float32


class KdTree(VectorIndex):
    """Compares a query with the rows near it. Exact for every metric."""

    kind = "kd_tree"
    many_dimensions = 20
    build_parameters = (
        Parameter("leaf_size", 8, 512, str(_LEAF_SIZE), "the most rows in a leaf; leaves have half of it or more"),
    )

    def __init__(self, matrix: Matrix, tree: Tree) -> None:
        super().__init__(matrix)
        self._tree = tree

    @classmethod
    def _build(cls, matrix: Matrix, params: Params, checkpoint: Checkpoint) -> Self:
        rows = matrix.vectors
        if matrix.metric is Metric.COSINE and len(rows):
            rows = np.concatenate(list(Normalizer.fit(matrix, matrix.dimension).row_blocks(rows)))
        levels = 0
        while -(-len(rows) >> levels) > params.get("leaf_size", _LEAF_SIZE):
            levels += 1
        order = _halve(rows, levels)
        points, boxes = _build_leaves(rows[order], levels)
        return cls(matrix, Tree(points, order.astype(np.int32), boxes))

    def _search(
        self, queries: Float32, k: int, allowed: Mask | None, count: int, params: Params, sure: int
    ) -> Neighbors | None:
        if allowed is not None and (
            count * count < _SCAN_COST * k * len(self) or self.matrix.dimension > self.many_dimensions
        ):
            return None
        m = len(queries)
        positions, scores, compared = np.empty((m, k), np.int64), np.empty((m, k), np.float32), np.empty(m, np.int64)
        given = self.matrix.vectors, *self._tree, queries, _ALL if allowed is None else allowed
        kernels.get("kd_tree").search(self.matrix.metric.number, *given, positions, scores, compared)
        return Neighbors(positions, scores, compared, proven=np.ones(m, np.bool_), scanned=np.zeros(m, np.bool_))

    def save(self, folder: Path) -> None:
        for name, array in self._tree._asdict().items():
            save_array(folder / f"{name}.npy", array)

    @classmethod
    def load(cls, folder: Path, matrix: Matrix) -> Self:
        tree = Tree(*(map_array(folder / f"{name}.npy") for name in Tree._fields))
        n, d = matrix.vectors.shape
        if tree.order.shape != (n,) or tree.boxes.shape != (2 * len(tree.points), 2, d) or tree.points.shape[1] != d:
            raise ValueError(f"{folder} has a tree of other rows")
        return cls(matrix, tree)

    @property
    def nbytes(self) -> int:
        return sum(array.nbytes for array in self._tree)


def _halve(rows: Float32, levels: int) -> Int64:
    """The order [n] of `rows` [n, d] after they are halved `levels` times."""
    n = len(rows)
    order = np.arange(n)
    for level in range(levels):
        halves = np.arange(2 << level) * n >> (level + 1)
        starts, middles = halves[::2], halves[1::2]
        counts = np.diff(starts, append=n)
        widest = np.argmax(np.maximum.reduceat(rows, starts) - np.minimum.reduceat(rows, starts), axis=1)
        # One line for each node; those with a row less have an infinity, which no partition puts into the left half.
        lines = np.full((len(starts), counts.max()), np.inf, np.float32)
        lines[np.arange(lines.shape[1]) < counts[:, None]] = rows[np.arange(n), np.repeat(widest, counts)]
        parted = np.argpartition(lines, np.unique(middles - starts), axis=1)
        chosen = (starts[:, None] + parted)[parted < counts[:, None]]
        order, rows = order[chosen], rows[chosen]
    return order


def _build_leaves(rows: Float32, levels: int) -> tuple[Float32, Float32]:
    """The points and boxes of a tree of `rows` [n, d], which lie in its order."""
    n, d = rows.shape
    leaves = 1 << levels
    starts = np.arange(leaves) * n >> levels
    counts = np.diff(starts, append=n)
    width = -(-int(counts.max()) // _LANES) * _LANES
    points = np.zeros((leaves, d, width), np.float32)
    points[np.repeat(np.arange(leaves), counts), :, np.arange(n) - np.repeat(starts, counts)] = rows
    boxes = np.zeros((2 * leaves, 2, d), np.float32)
    if n:
        boxes[leaves:, 0], boxes[leaves:, 1] = np.minimum.reduceat(rows, starts), np.maximum.reduceat(rows, starts)
    for level in reversed(range(levels)):
        children = boxes[2 << level : 4 << level].reshape(1 << level, 2, 2, d)
        boxes[1 << level : 2 << level] = np.stack(
            [children[:, :, 0].min(axis=1), children[:, :, 1].max(axis=1)], axis=1
        )
    return points, boxes
