"""Approximate search by a scan of all rows in 4-bit product codes, then exact scores of a short-list.

A row is cut into pieces of 4, 2 or 1 dimensions; each piece is replaced by the number of the nearest of 16 centroids
that k-means found for its place (Jegou, Douze, Schmid, Product quantization for nearest neighbor search, 2011). A query
makes one table of 16 one-byte scores per piece, which fits into a register, so that one instruction looks up the pieces
of 32 rows or more (Andre, Kermarrec, Le Scouarnec, Cache locality is not enough, 2015; faiss calls it fast-scan). The
rows that score best by their codes are scored exactly.

How long that short-list must be depends on the data and on the query. A trial at build (`approximate.Trial`) finds a
length that holds 998 of 1,000 true neighbours. At search the list is read as far as `shortlist` finds necessary; where
rows behind its end may still be among the k best, it is made longer, and in the end the search exact. On sentence
embeddings that happens to 1 query in 100; to queries unlike any row, mostly.

Pieces of 4 dimensions need the fewest bytes; where their list would be long, pieces of 2 are tried, and of 1. Rows that
4 bits cannot tell apart at any width are searched exactly (few dimensions, tight clusters, a few rows that dwarf all
others), and so are fewer than 2,000 different rows, where that is faster. Training takes a seeded sample: the same rows
give the same index.

Costs 1/8 to 1/2 byte per dimension and 8 bytes per row, in the memory of each process (faiss does not map such codes),
and one pass over them per query. For 117,659 x 384 sentence embeddings it takes pieces of 4: 6.6 MB. Pieces of 2 find
the same rows with a third of the short-list, in the same time while the codes are in the processor's cache, and in half
as much again when they are not, as is usual between two requests.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np

from apps.engine.indexes import rerank as shortlist
from apps.engine.indexes.approximate import Copies, Frame, Listed, Trial, rounded_up, widened
from apps.engine.indexes.base import NO_PARAMS, Checkpoint, Neighbors, Parameter, Params, VectorIndex, go_on
from apps.engine.indexes.brute_force import BruteForce
from apps.engine.indexes.faiss_library import library, metric_number, read, write
from apps.engine.metrics import Metric
from apps.engine.vectors import Float32, Int64, Mask

_FEWEST = 2000
_PIECES = (4, 2, 1)
_TRAINING_ROWS = 4096
_ITERATIONS = 10
_SEED = 1234

# The short-list: what the trial must find, and the range it may take.
_ENOUGH = 0.998
_SHORTEST = 64
_GOOD_LENGTH = 512
_LONGEST = 2048
# It grows with k more slowly than k does.
_GROWTH = 0.75
# An exact scan of one row in so many costs about what the scan of all codes does.
_SCAN_SHARE = 8
_KIND = "IndexIVFPQFastScan"


class Quantized(VectorIndex):
    """A whole scan of small codes, then exact scores of `rescore` rows.

    `compared` counts the rows whose codes are scanned, which is all of them whatever the mask; where no code is looked
    at, but all rows that the mask allows, it counts these.
    """

    kind = "quantized"
    build_parameters = (
        Parameter(
            "piece",
            1,
            8,
            "the largest of 4, 2 and 1 that a trial on the rows finds good enough",
            "how many dimensions share one 4-bit code: fewer are more exact, and cost more memory and time",
        ),
    )
    search_parameters = (
        Parameter(
            "rescore",
            1,
            1_000_000,
            "what a trial at build found sufficient, more for k above 10 and for queries whose list is not conclusive",
            "how many rows, the best by their codes, are scored exactly; at least k are",
        ),
    )

    def __init__(self, vectors: Float32, metric: Metric, exact: BruteForce, codes: "_Codes | None") -> None:
        self._vectors = vectors
        self._metric = metric
        self._exact = exact
        self._codes = codes

    @classmethod
    def build(
        cls,
        vectors: Float32,
        metric: Metric,
        params: Params = NO_PARAMS,
        exact: BruteForce | None = None,
        checkpoint: Checkpoint = go_on,
    ) -> Self:
        cls.check_params(params)
        exact = exact or BruteForce.without_copy(vectors, metric)
        pieces: Sequence[int] = (params["piece"],) if "piece" in params else _PIECES
        codes = _tried(vectors, exact.norms, metric, pieces) if len(vectors) >= _FEWEST else None
        return cls(vectors, metric, exact, codes)

    def search(self, queries: Float32, k: int, allowed: Mask | None = None, params: Params = NO_PARAMS) -> Neighbors:
        rows = len(self._vectors)
        count = rows if allowed is None else int(np.count_nonzero(allowed))
        if count == rows:
            allowed = None
        codes = self._codes
        if codes is None:
            return self._exact.search(queries, k, allowed)
        whole = "rescore" in params

        def listed(some: Float32, length: int) -> Listed:
            # A list is not full where few different rows are allowed, or all look alike to the query.
            firsts, rough = codes.nearest(some, length, allowed)
            positions, scores, enough = shortlist.read(
                self._metric,
                self._vectors,
                some,
                k,
                firsts,
                copies=codes.copies,
                allowed=allowed,
                rough=None if whole else rough,
                factors=codes.frame.factors(some),
            )
            return Listed(positions, scores, np.full(len(some), rows), enough)

        return widened(
            queries,
            max(k, params["rescore"] if whole else codes.length(k)),
            rows=rows,
            pays=lambda length: count > max(2 * length, rows // _SCAN_SHARE),
            listed=listed,
            exact=lambda some: self._exact.search(some, k, allowed),
        )

    def save(self, folder: Path) -> None:
        about = None if self._codes is None else self._codes.save(folder)
        (folder / "codes.json").write_text(json.dumps(about))

    @classmethod
    def load(cls, folder: Path, vectors: Float32, metric: Metric, exact: BruteForce | None = None) -> Self:
        about = json.loads((folder / "codes.json").read_text())
        codes = None if about is None else _Codes.load(folder, about, vectors, metric)
        return cls(vectors, metric, exact or BruteForce.without_copy(vectors, metric), codes)

    def __len__(self) -> int:
        return len(self._vectors)

    @property
    def nbytes(self) -> int:
        return self._codes.nbytes if self._codes else 0


class _Codes:
    """Product codes of all different rows, and how long a short-list from them must be.

    faiss's scan of a plain code array takes no mask, its scan of an inverted file does; so the codes are an inverted
    file of one list, at some 20 microseconds a query.
    """

    def __init__(self, index: Any, copies: Copies, frame: Frame, piece: int, list_length: int) -> None:
        self._index = index
        self.copies = copies
        self.frame = frame
        self._piece = piece
        self.list_length = list_length

    @classmethod
    def trained(cls, vectors: Float32, norms: Float32, metric: Metric, copies: Copies, piece: int) -> Self:
        """Codes in pieces of `piece` dimensions, with no short-list yet."""
        faiss = library()
        frame = Frame.fitting(metric, norms, rounded_up(vectors.shape[1], piece))
        number = metric_number(metric)
        centre = faiss.IndexFlat(frame.width, number)
        centre.add(np.zeros((1, frame.width), np.float32))
        index = faiss.IndexIVFPQFastScan(centre, frame.width, 1, frame.width // piece, 4, number)
        index.by_residual = False
        index.pq.cp.niter = _ITERATIONS
        firsts = copies.firsts()
        sample = np.sort(np.random.default_rng(_SEED).permutation(firsts)[:_TRAINING_ROWS])
        index.train(np.concatenate(list(frame.blocks(vectors, sample))))
        start = 0
        for block in frame.blocks(vectors, firsts):
            index.add_with_ids(block, firsts[start : start + len(block)])
            start += len(block)
        return cls(index, copies, frame, piece, 0)

    @classmethod
    def load(cls, folder: Path, about: dict[str, Any], vectors: Float32, metric: Metric) -> Self:
        try:
            piece, scale, length = int(about["piece"]), float(about["scale"]), int(about["shortlist"])
        except (KeyError, TypeError) as error:
            raise ValueError(f"{folder} has no description of codes: {error!r}") from None
        copies = Copies.load(folder, len(vectors))
        frame = Frame(metric, rounded_up(vectors.shape[1], piece), scale)
        index = read(folder / "codes.faiss", _KIND, metric_number(metric), frame.width, copies.count)
        return cls(index, copies, frame, piece, length)

    def save(self, folder: Path) -> dict[str, Any]:
        """Write the codes into `folder`; what is returned goes to `load` with it."""
        write(self._index, folder / "codes.faiss")
        self.copies.save(folder)
        return {"piece": self._piece, "scale": self.frame.scale, "shortlist": self.list_length}

    def length(self, k: int) -> int:
        """How many rows to score exactly for the k best."""
        return int(self.list_length * max(1.0, (k / Trial.k) ** _GROWTH))

    def nearest(self, queries: Float32, length: int, allowed: Mask | None = None) -> tuple[Int64, Float32]:
        """The `length` best firsts [m, length] by their codes, -1 where there are fewer that are allowed or have a copy
        that is, and their scores by their codes, in the unit of `Frame.factors`."""
        faiss = library()
        params = None
        if allowed is not None:
            selector = faiss.IDSelectorBitmap(np.packbits(self.copies.having(allowed), bitorder="little"))
            params = faiss.SearchParametersIVF(sel=selector, nprobe=1)
        distances, firsts = self._index.search(self.frame.queries(queries), length, params=params)
        return firsts, -distances if self.frame.metric is Metric.EUCLIDEAN else distances

    @property
    def nbytes(self) -> int:
        # faiss packs rows by 32 and keeps the position of each, of 8 bytes.
        packed = rounded_up(self.copies.count, 32)
        return packed * int(self._index.code_size) + 8 * self.copies.count + self.copies.pairs.nbytes


def _tried(vectors: Float32, norms: Float32, metric: Metric, pieces: Sequence[int]) -> _Codes | None:
    """Codes of the first of `pieces` whose short-list is short, or else of those with the shortest; None where no list
    of a thirty-second of the rows finds enough."""
    copies = Copies.among(Frame.fitting(metric, norms, vectors.shape[1]).blocks(vectors))
    trial = Trial.over(vectors, norms, metric)
    if copies.count < _FEWEST or not trial.separable:
        return None
    longest = min(_LONGEST, copies.count // 32)
    chosen: _Codes | None = None
    for piece in pieces:
        codes = _Codes.trained(vectors, norms, metric, copies, piece)
        ranks = trial.ranks(vectors, metric, copies, codes.nearest(trial.queries, longest)[0])
        needed = int(ranks[int(_ENOUGH * (len(ranks) - 1))]) + 1
        codes.list_length = max(_SHORTEST, needed)
        if needed <= longest and (chosen is None or codes.list_length < chosen.list_length):
            chosen = codes
            if codes.list_length <= _GOOD_LENGTH:
                break
    return chosen
