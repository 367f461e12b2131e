"""What the approximate indexes share: rows and queries in a range that suits float32 codes, equal rows as one, trials
of a new index on queries made from its rows, and longer lists for queries that a first one is not enough for.

Codes and graphs only propose rows. What is reported is `metrics.exact_scores` of the stored rows, ties by ascending
position, so an approximate index can miss a row and never misjudges one.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import xxhash
from numpy.typing import NDArray

from apps.engine.array_files import map_array, save_array
from apps.engine.indexes.base import Neighbors
from apps.engine.indexes.brute_force import search_matrix
from apps.engine.metrics import Metric, exact_scores
from apps.engine.vectors import Float32, Int64, Mask

_BLOCK_VALUES = 1 << 21
# A list that is not long enough is made longer by this factor.
_LONGER = 4
# So many rows are listed at once, of some 30 bytes.
_LISTED_ROWS = 1 << 20
_TRIALS = 128
_TRIAL_K = 10
_SEED = 20240229
_SEPARABLE = 1e-4
_LARGEST = 2.0**100
# A scaled query beyond this is so far from all rows that its scores tie in float32 (24 bits).
_FAR = 2.0**30


@dataclass(frozen=True)
class Frame:
    """The form in which rows and queries go to codes and graphs: float32 [n, width], width >= dimension, padded with
    zeros.

    Stored components reach from 1e-45 to 1e15, and a float32 square of such a number is no number any more. So under
    cosine rows become unit vectors; under dot and euclidean they are multiplied by `scale`, a power of two that brings
    the longest to a length from 0.5 to 1, which changes no order. Queries likewise; under dot they become unit vectors
    too, which changes no order either.
    """

    metric: Metric
    width: int
    scale: float

    @classmethod
    def fitting(cls, metric: Metric, norms: Float32, width: int) -> Self:
        """The frame for rows of L2 norms `norms` [n]."""
        longest = float(norms.max(initial=0.0))
        _, exponent = np.frexp(longest)
        return cls(metric, width, 1.0 if metric is Metric.COSINE or not longest else 2.0 ** -int(exponent))

    def blocks(self, vectors: Float32, positions: Int64 | None = None) -> Iterator[Float32]:
        """The rows of `vectors` [n, dimension], or those at `positions`, in order, in blocks of bounded memory."""
        count = len(vectors) if positions is None else len(positions)
        step = max(1, _BLOCK_VALUES // self.width)
        for start in range(0, count, step):
            part = slice(start, start + step)
            wide = vectors[part if positions is None else positions[part]].astype(np.float64)
            yield self._padded(_unit(wide) if self.metric is Metric.COSINE else wide * self.scale)

    def queries(self, queries: Float32) -> Float32:
        """`queries` [m, dimension] in this form."""
        wide = queries.astype(np.float64)
        if self.metric is not Metric.EUCLIDEAN:
            return self._padded(_unit(wide))
        wide *= self.scale
        longest = np.sqrt((wide * wide).sum(axis=1, keepdims=True))
        return self._padded(wide * (_FAR / np.maximum(longest, _FAR)))

    def factors(self, queries: Float32) -> NDArray[np.float64]:
        """By what exact scores for each of `queries` [m, dimension] are to be multiplied [m] to be in the unit of
        faiss's scores: a cosine, or an inner product in this form. Under euclidean they are a distance in this form
        then, whose square, negative, is faiss's score."""
        if self.metric is not Metric.DOT:
            return np.full(len(queries), self.scale)
        lengths = np.linalg.norm(queries.astype(np.float64), axis=1)
        return self.scale / np.where(lengths > 0.0, lengths, 1.0)

    def _padded(self, wide: NDArray[np.float64]) -> Float32:
        padded = np.zeros((len(wide), self.width), np.float32)
        padded[:, : wide.shape[1]] = wide
        return padded


@dataclass(frozen=True)
class Copies:
    """Rows that look to an index as an earlier one does, its *first*; the index holds firsts only.

    Otherwise copies of one row would fill a short-list, or link in a graph to each other and to nothing else. `pairs`
    [2, c] holds the first of each copy, ascending, and the copy.
    """

    rows: int
    pairs: Int64

    @classmethod
    def among(cls, codes: Iterable[NDArray[Any]]) -> Self:
        """The copies in all the blocks of `codes` [n, width].

        Rows are told apart by a hash of 64 bits. Two that share one (1 in 10**7 for a million rows) count as equal, and
        are scored both when one is proposed.
        """
        keys = np.fromiter((xxhash.xxh3_64_intdigest(code) for block in codes for code in block), np.uint64)
        _, firsts, group = np.unique(keys, return_index=True, return_inverse=True)
        first = firsts[group]
        copies = np.flatnonzero(first != np.arange(len(keys)))
        copies = copies[np.argsort(first[copies], kind="stable")]
        return cls(len(keys), np.stack([first[copies], copies]))

    @classmethod
    def load(cls, folder: Path, rows: int) -> Self:
        """What was saved in `folder` for a matrix of so many rows; raises ValueError or OSError for anything else."""
        pairs = map_array(folder / "copies.npy")
        if pairs.ndim != 2 or len(pairs) != 2 or pairs.dtype != np.int64 or pairs.max(initial=-1) >= rows:
            raise ValueError(f"{folder} has copies of other rows")
        return cls(rows, pairs)

    def save(self, folder: Path) -> None:
        save_array(folder / "copies.npy", self.pairs)

    @property
    def count(self) -> int:
        """How many firsts there are."""
        return self.rows - len(self.pairs[1])

    def firsts(self) -> Int64:
        """All firsts, ascending."""
        is_first = np.ones(self.rows, np.bool_)
        is_first[self.pairs[1]] = False
        return np.flatnonzero(is_first)

    def added(self, firsts: Int64) -> tuple[Int64, Int64]:
        """The rows `firsts` and their copies, and of which of `firsts` each is one."""
        places = np.arange(len(firsts))
        if not self.pairs.size:
            return firsts, places
        start = np.searchsorted(self.pairs[0], firsts)
        sizes = np.searchsorted(self.pairs[0], firsts, side="right") - start
        if not sizes.any():
            return firsts, places
        ends = np.cumsum(sizes)
        copies = self.pairs[1, np.arange(ends[-1]) + np.repeat(start - ends + sizes, sizes)]
        return np.concatenate([firsts, copies]), np.concatenate([places, np.repeat(places, sizes)])

    def having(self, allowed: Mask) -> Mask:
        """A mask of rows that is true for the firsts that are allowed or have a copy that is."""
        if not self.pairs.size:
            return allowed
        some = allowed.copy()
        some[self.pairs[0, allowed[self.pairs[1]]]] = True
        return some


@dataclass(frozen=True)
class Trial:
    """Queries [m, dimension] like those to come, and `floors` [m], the exact score of the `k`-th best row of each.

    The queries lie half-way between two rows drawn at random. Rows themselves would be too easy: each is its own
    nearest neighbour. Over sentence embeddings, half-way points find their neighbours as hard to tell apart in 4-bit
    codes as held-out sentences do, and harder to reach in a graph.

    `separable` says whether rows differ by more than a ten-thousandth of their length. Where they do not, the trial
    proves nothing, for all rows score alike from between them, and float32 cannot tell them apart from elsewhere.
    """

    queries: Float32
    floors: Float32
    separable: bool
    k: int = _TRIAL_K

    @classmethod
    def over(cls, vectors: Float32, norms: Float32, metric: Metric) -> Self:
        """A trial on `vectors` [n, dimension] of L2 norms `norms` [n], n >= k; the same for the same rows."""
        pairs = np.random.default_rng(_SEED).integers(0, len(vectors), (2, _TRIALS))
        one, other = (vectors[rows].astype(np.float64) for rows in pairs)
        if metric is Metric.COSINE:
            one, other = _unit(one), _unit(other)
        gaps, lengths = np.linalg.norm(one - other, axis=1), np.linalg.norm(one, axis=1)
        apart = gaps > 0.0
        separable = (
            bool(np.median(gaps[apart] / np.maximum(lengths, gaps)[apart]) > _SEPARABLE) if apart.any() else False
        )
        middle = (one + other) / 2
        if metric is not Metric.EUCLIDEAN:
            # Unit vectors, but for rows so short that their products with one would vanish in float32.
            middle = _unit(np.where(middle.any(axis=1, keepdims=True), middle, one))
            middle *= 1.0 if metric is Metric.COSINE else min(Frame.fitting(metric, norms, 0).scale, _LARGEST)
        middle = middle.astype(np.float32)
        found = search_matrix(vectors, norms, metric, middle, _TRIAL_K)
        return cls(middle, found.scores[:, -1], separable)

    def recall(self, scores: Float32) -> float:
        """The share of true neighbours among answers of these `scores` [m, k]; one that ties with the last counts."""
        return float((scores >= self.floors[:, None]).mean())

    def ranks(self, vectors: Float32, metric: Metric, copies: Copies, proposed: Int64) -> Int64:
        """Ascending, the place in `proposed` [m, r] (firsts, -1 for none) of each of the m*k true neighbours; r for
        those that are not there."""
        ranks = np.full((len(proposed), self.k), proposed.shape[1], np.int64)
        for query, firsts, floor, found in zip(self.queries, proposed, self.floors, ranks, strict=True):
            rows, places = copies.added(firsts[firsts >= 0])
            there = np.sort(places[exact_scores(metric, vectors, query, rows) >= floor])[: self.k]
            found[: len(there)] = there
        return np.sort(ranks, axis=None)


class Listed(NamedTuple):
    """What m queries find in lists of proposed rows: positions and scores [m, k] as in `Neighbors`, how many rows each
    query was compared with [m], and whether its list was long enough [m]."""

    positions: Int64
    scores: Float32
    compared: Int64
    enough: Mask


def widened(
    queries: Float32,
    length: int,
    *,
    rows: int,
    pays: Callable[[int], bool],
    listed: Callable[[Float32, int], Listed],
    exact: Callable[[Float32], Neighbors],
) -> Neighbors:
    """What `listed` finds for `queries` [m, dimension] in lists of `length`, and of four times the length for those
    which that was not enough for; and so on, as long as a length `pays`, and then what `exact` finds.

    `compared` is the sum of what all attempts compared a query with, but no more than the number of `rows`.
    """
    if not pays(length):
        return exact(queries)
    positions, scores, compared, enough = _in_blocks(listed, queries, length)
    proven, scanned = np.zeros((2, len(queries)), np.bool_)
    left = (~enough).nonzero()[0]
    while len(left):
        length *= _LONGER
        if not pays(length):
            found = exact(queries[left])
            positions[left], scores[left], more = found.positions, found.scores, found.compared
            proven[left], scanned[left], enough = found.proven, found.scanned, np.ones(len(left), np.bool_)
        else:
            positions[left], scores[left], more, enough = _in_blocks(listed, queries[left], length)
        compared[left] = np.minimum(compared[left] + more, rows)
        left = left[~enough]
    return Neighbors(positions, scores, compared, proven=proven, scanned=scanned)


def _in_blocks(listed: Callable[[Float32, int], Listed], queries: Float32, length: int) -> Listed:
    """What `listed` finds, asked for so few queries at a time that the lists of a step take bounded memory."""
    step = max(1, _LISTED_ROWS // length)
    if len(queries) <= step:
        return listed(queries, length)
    steps = [listed(queries[start : start + step], length) for start in range(0, len(queries), step)]
    return Listed(*(np.concatenate(parts) for parts in zip(*steps, strict=True)))


def rounded_up(count: int, step: int) -> int:
    """The least multiple of `step` that is not less than `count`."""
    return -(-count // step) * step


def _unit(wide: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rows of `wide` divided by their L2 norms; a row of zeros stays."""
    norms = np.sqrt((wide * wide).sum(axis=1, keepdims=True))
    return wide / np.where(norms > 0.0, norms, 1.0)
