"""The rows that an index is built over, with what an exact search needs; and that search.

It runs in one of three ways, which give the same answers to the last bit:

- A large matrix has an 8-bit copy. Compiled code scans the copy and scores exactly the rows that its bound does not
  decide (`byte_codes`, `kernels.byte_scan`).
- Rows without a copy, as those of a view's tail, are read once by compiled code that decides by a float32 product
  (`kernels.exact_scan`).
- Until the kernels are loaded, numpy multiplies all rows in float32, and rows that the bound of `metrics` does not
  decide are scored exactly. Whatever the type of its index, a matrix is searched this way then.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from apps.engine import kernels, selection
from apps.engine.array_files import map_array, save_array
from apps.engine.indexes.byte_codes import ByteCodes
from apps.engine.metrics import Metric, exact_scores, product_bounds, row_norms
from apps.engine.vectors import Float32, Int64, Mask

# Below this share of allowed rows, gathering them costs less than scanning the whole copy, where the mask is looked at
# only if a row may be among the best.
_GATHER_SHARE = 2
# Below this dimension a row of the copy would be longer than the row; below this number of rows it saves nothing.
_CODED_DIMENSION, _CODED_ROWS = 32, 512
_NO_ROWS, _ALL = np.empty(0, np.int64), np.empty(0, np.bool_)


@dataclass(frozen=True)
class Neighbors:
    """The nearest rows of m queries, best first.

    positions  int64 [m, k], row numbers; -1 where there are fewer than k
    scores     float32 [m, k], exact scores; -inf where the position is -1
    compared   int64 [m], the number of vectors that each query was compared with, by themselves or by their codes
    proven     bool [m], whether these provably are the k best, ties by row number
    scanned    bool [m], whether an exact scan of all allowed rows found them, as `Matrix.search` does
    """

    positions: Int64
    scores: Float32
    compared: Int64
    proven: Mask
    scanned: Mask

    @property
    def exact(self) -> bool:
        """Whether all answers are proven."""
        return bool(self.proven.all())


class Matrix:
    """Rows to search.

    vectors  float32 [n, d], C-contiguous, never written to
    norms    float32 [n], L2 norms
    codes    the 8-bit copy; None where it would save nothing, or was not asked for
    """

    def __init__(
        self, vectors: Float32, metric: Metric, norms: Float32 | None = None, codes: ByteCodes | None = None
    ) -> None:
        """Rows without a copy, unless `codes` is given; an array that is contiguous is kept, not copied."""
        self.vectors = np.ascontiguousarray(vectors, np.float32)
        self.metric = metric
        self.norms = row_norms(self.vectors).astype(np.float32) if norms is None else norms
        self.codes = codes

    @classmethod
    def build(cls, vectors: Float32, metric: Metric) -> Self:
        """The rows `vectors` [n, d], with an 8-bit copy where that pays."""
        matrix = cls(vectors, metric)
        if matrix._is_worth_coding():
            matrix.codes = ByteCodes.build(matrix.vectors, metric)
        return matrix

    @classmethod
    def load(cls, folder: Path, vectors: Float32, metric: Metric) -> Self:
        """The matrix that was saved in `folder`; maps its files. Raises ValueError or OSError for other files."""
        norms = map_array(folder / "norms.npy")
        if vectors.ndim != 2 or norms.shape != (len(vectors),) or norms.dtype != np.float32:
            raise ValueError(f"{folder.name} holds norms of other rows")
        matrix = cls(vectors, metric, norms)
        if matrix._is_worth_coding():
            matrix.codes = ByteCodes.load(folder, *vectors.shape)
        return matrix

    def save(self, folder: Path) -> None:
        """Write norms and codes into files of `folder`, which exists; the vectors are not among them."""
        save_array(folder / "norms.npy", self.norms)
        if self.codes is not None:
            self.codes.save(folder)

    def _is_worth_coding(self) -> bool:
        return len(self) >= _CODED_ROWS and self.dimension >= _CODED_DIMENSION

    def __len__(self) -> int:
        return len(self.vectors)

    @property
    def dimension(self) -> int:
        return int(self.vectors.shape[1])

    @property
    def nbytes(self) -> int:
        """Memory or mapped files, the vectors included."""
        return self.vectors.nbytes + self.norms.nbytes + (0 if self.codes is None else self.codes.nbytes)

    def search(self, queries: Float32, k: int, allowed: Mask | None = None, order: Int64 | None = None) -> Neighbors:
        """The k best rows for each of `queries` [m, d] among those that `allowed` [n] names, or all.

        Ties are broken by ascending `order` [n], by default the position. Exact for every metric.
        """
        m, compared = len(queries), len(self)
        if allowed is not None:
            compared = int(np.count_nonzero(allowed))
            allowed = None if compared == len(self) else np.ascontiguousarray(allowed)
        count = min(k, compared)
        queries = np.ascontiguousarray(queries, np.float32)
        if not count:
            positions, scores = np.empty((m, 0), np.int64), np.empty((m, 0), np.float32)
        elif not kernels.are_loaded():
            positions, scores = self._search_by_product(queries, count, allowed, order)
        elif self.codes is None or order is not None:
            positions, scores = self._search_vectors(queries, count, allowed, order)
        else:
            positions, scores = self._search_codes(queries, count, allowed)
        if count < k:
            few = positions, scores
            positions, scores = np.full((m, k), -1, np.int64), np.full((m, k), -np.inf, np.float32)
            positions[:, :count], scores[:, :count] = few
        true = np.ones(m, np.bool_)
        return Neighbors(positions, scores, np.full(m, compared, np.int64), proven=true, scanned=true)

    def _search_codes(self, queries: Float32, k: int, allowed: Mask | None) -> tuple[Int64, Float32]:
        """Positions and scores [m, k] of the k best rows; at least k rows are allowed."""
        assert self.codes is not None
        if allowed is not None and np.count_nonzero(allowed) * _GATHER_SHARE < len(self):
            return self.codes.search(self.vectors, self.metric, queries, k, rows=np.flatnonzero(allowed))
        return self.codes.search(self.vectors, self.metric, queries, k, allowed=_ALL if allowed is None else allowed)

    def _search_vectors(
        self, queries: Float32, k: int, allowed: Mask | None, order: Int64 | None
    ) -> tuple[Int64, Float32]:
        """The same, by a compiled scan of the vectors, with ties by `order`."""
        positions, scores = np.empty((len(queries), k), np.int64), np.empty((len(queries), k), np.float32)
        rows = _NO_ROWS if allowed is None else np.flatnonzero(allowed)
        order = _NO_ROWS if order is None else np.ascontiguousarray(order, np.int64)
        kernel = kernels.get("exact_scan")
        kernel.search(self.metric.number, self.vectors, self.norms, queries, rows, order, positions, scores)
        return positions, scores

    def _search_by_product(
        self, queries: Float32, k: int, allowed: Mask | None, order: Int64 | None
    ) -> tuple[Int64, Float32]:
        """The same, by numpy."""
        positions, scores = np.empty((len(queries), k), np.int64), np.empty((len(queries), k), np.float32)
        rows = None if allowed is None else np.flatnonzero(allowed)
        vectors, norms = (self.vectors, self.norms) if rows is None else (self.vectors[rows], self.norms[rows])
        for i, query in enumerate(queries):
            lower, upper = product_bounds(self.metric, vectors @ query, norms, query)
            undecided = selection.candidates(lower, upper, k)
            exact = exact_scores(self.metric, vectors, query, undecided)
            undecided = undecided if rows is None else rows[undecided]
            chosen = selection.best(exact, undecided if order is None else order[undecided], k)
            positions[i], scores[i] = undecided[chosen], exact[chosen]
        return positions, scores
