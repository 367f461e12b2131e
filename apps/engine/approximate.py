"""What the approximate indexes share: rows and queries in a range that suits float32 codes, equal rows as one, trials
of a new index on queries made from its rows, and exact scores of a short-list.

Codes and graphs only propose rows. What is reported is `metrics.exact_scores` of the stored rows, ties by ascending
position, so an approximate index can miss a row and never misjudges one.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import xxhash
from numpy.typing import NDArray

from apps.engine.brute_force import search_matrix
from apps.engine.files import map_array, save_array
from apps.engine.metrics import Metric, exact_scores
from apps.engine.selection import best
from apps.engine.vectors import Float32, Int64, Mask

_BLOCK_VALUES = 1 << 21
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


def put_best(candidates: Int64, exact: Float32, positions: Int64, scores: Float32) -> None:
    """Write the best of the rows `candidates` [n], of scores `exact` [n], into one answer's `positions` [k] and
    `scores` [k], best first, ties by ascending position."""
    k = len(positions)
    if len(candidates) > 4 * k:
        listed = np.flatnonzero(exact >= np.partition(exact, len(exact) - k)[len(exact) - k])
        candidates, exact = candidates[listed], exact[listed]
    chosen = best(exact, candidates, k)
    positions[: len(chosen)] = candidates[chosen]
    scores[: len(chosen)] = exact[chosen]


def rounded_up(count: int, step: int) -> int:
    """The least multiple of `step` that is not less than `count`."""
    return -(-count // step) * step


def _unit(wide: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rows of `wide` divided by their L2 norms; a row of zeros stays."""
    norms = np.sqrt((wide * wide).sum(axis=1, keepdims=True))
    return wide / np.where(norms > 0.0, norms, 1.0)
