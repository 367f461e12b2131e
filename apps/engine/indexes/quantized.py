"""Approximate search by a scan of all rows in 4-bit product codes, then exact scores of a short-list (Jegou, Douze,
Schmid, Product quantization for nearest neighbor search, 2011; the scan is faiss's fast-scan, after Andre, Kermarrec,
Le Scouarnec, Cache locality is not enough, 2015).

A calibration at build chooses the pieces and the length of the short-list, or no codes at all; docs/indexes.md says
how. Training takes a seeded sample: the same rows give the same index.

Costs 1/8 to 1/2 byte per dimension and 8 bytes per row, in the memory of each process (faiss does not map such codes),
and one pass over them per query.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np

from apps.engine.indexes.base import Checkpoint, Parameter, Params, VectorIndex
from apps.engine.indexes.calibration import Calibration
from apps.engine.indexes.duplicates import Duplicates
from apps.engine.indexes.faiss_library import library, metric_number, read, round_up, write
from apps.engine.indexes.matrix import Matrix, Neighbors
from apps.engine.indexes.normalize import Normalizer
from apps.engine.indexes.rerank import Candidates, rerank, search_lists
from apps.engine.metrics import Metric
from apps.engine.vectors import Float32, Int64, Mask

_PIECES = (4, 2, 1)
_TRAINING_ROWS = 4096
_ITERATIONS = 10
_SEED = 1234

# The range of lengths of the short-list.
_SHORTEST = 64
_GOOD_LENGTH = 512
_LONGEST = 2048
# It grows with k more slowly than k does.
_GROWTH = 0.75
# The least number of rows that are scored exactly for each rank, where not all ranks need be sure.
_LEAST_FOR_OTHERS = 2
# An exact scan of one row in eight costs about what the scan of all codes does.
_SCAN_SHARE = 8
_KIND = "IndexIVFPQFastScan"


class Quantized(VectorIndex):
    """A whole scan of small codes, then exact scores of `rescore` rows.

    `compared` counts the rows whose codes are scanned, which is all of them whatever the mask.
    """

    kind = "quantized"
    # Fewer different rows are searched exactly.
    fewest_rows = 2000
    # The share of true neighbours that the short-list of a calibration must hold.
    enough = 0.998
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

    def __init__(self, matrix: Matrix, codes: "_ProductCodes | None") -> None:
        super().__init__(matrix)
        self._codes = codes

    @classmethod
    def _build(cls, matrix: Matrix, params: Params, checkpoint: Checkpoint) -> Self:
        pieces = (params["piece"],) if "piece" in params else _PIECES
        return cls(matrix, cls._choose_codes(matrix, pieces) if len(matrix) >= cls.fewest_rows else None)

    @classmethod
    def _choose_codes(cls, matrix: Matrix, pieces: Sequence[int]) -> "_ProductCodes | None":
        """Codes of the first of `pieces` whose short-list is short, or else of those with the shortest; None where no
        list of a thirty-second of the rows finds enough."""
        duplicates = Duplicates.find(Normalizer.fit(matrix, matrix.dimension).row_blocks(matrix.vectors))
        calibration = Calibration.draw(matrix)
        if duplicates.count < cls.fewest_rows or not calibration.separable:
            return None
        longest = min(_LONGEST, duplicates.count // 32)
        chosen: _ProductCodes | None = None
        for piece in pieces:
            codes = _ProductCodes.train(matrix, duplicates, piece)
            ranks = calibration.ranks(duplicates, codes.search(calibration.queries, longest)[0])
            needed = int(ranks[int(cls.enough * (len(ranks) - 1))]) + 1
            codes.list_length = max(_SHORTEST, needed)
            if needed <= longest and (chosen is None or codes.list_length < chosen.list_length):
                chosen = codes
                if codes.list_length <= _GOOD_LENGTH:
                    break
        return chosen

    def _search(
        self, queries: Float32, k: int, allowed: Mask | None, count: int, params: Params, sure: int
    ) -> Neighbors | None:
        rows, codes = len(self), self._codes
        if codes is None:
            return None
        # The rule by which a list is read and made longer is about the last rank.
        is_whole = "rescore" in params or sure < k
        usual = codes.length(k) if sure == k else max(codes.length(sure), _LEAST_FOR_OTHERS * k)

        def search(block: Float32, length: int) -> Candidates:
            # A list is not full where few different rows are allowed, or all look alike to the query.
            representatives, rough = codes.search(block, length, allowed)
            positions, scores, enough = rerank(
                self.matrix,
                block,
                k,
                representatives,
                duplicates=codes.duplicates,
                allowed=allowed,
                rough=None if is_whole else rough,
                factors=codes.normalizer.factors(block),
            )
            return Candidates(positions, scores, np.full(len(block), rows), enough)

        return search_lists(
            queries,
            k,
            allowed,
            matrix=self.matrix,
            length=max(k, params.get("rescore", usual)),
            pays=lambda length: count > max(2 * length, rows // _SCAN_SHARE),
            search=search,
        )

    def save(self, folder: Path) -> None:
        about = None if self._codes is None else self._codes.save(folder)
        (folder / "codes.json").write_text(json.dumps(about))

    @classmethod
    def load(cls, folder: Path, matrix: Matrix) -> Self:
        about = json.loads((folder / "codes.json").read_text())
        return cls(matrix, None if about is None else _ProductCodes.load(folder, about, matrix))

    @property
    def nbytes(self) -> int:
        return self._codes.nbytes if self._codes else 0


class _ProductCodes:
    """Product codes of all different rows, and how long a short-list from them must be.

    faiss's scan of a plain code array takes no mask, its scan of an inverted file does; so the codes are an inverted
    file of one list, at some 20 microseconds a query.
    """

    def __init__(
        self, index: Any, duplicates: Duplicates, normalizer: Normalizer, piece: int, list_length: int
    ) -> None:
        self._index = index
        self.duplicates = duplicates
        self.normalizer = normalizer
        self._piece = piece
        self.list_length = list_length

    @classmethod
    def train(cls, matrix: Matrix, duplicates: Duplicates, piece: int) -> Self:
        """Codes in pieces of `piece` dimensions, with no short-list yet."""
        faiss = library()
        normalizer = Normalizer.fit(matrix, round_up(matrix.dimension, piece))
        number = metric_number(matrix.metric)
        centre = faiss.IndexFlat(normalizer.width, number)
        centre.add(np.zeros((1, normalizer.width), np.float32))
        index = faiss.IndexIVFPQFastScan(centre, normalizer.width, 1, normalizer.width // piece, 4, number)
        index.by_residual = False
        index.pq.cp.niter = _ITERATIONS
        rows = duplicates.representatives()
        sample = np.sort(np.random.default_rng(_SEED).permutation(rows)[:_TRAINING_ROWS])
        index.train(np.concatenate(list(normalizer.row_blocks(matrix.vectors, sample))))
        start = 0
        for block in normalizer.row_blocks(matrix.vectors, rows):
            index.add_with_ids(block, rows[start : start + len(block)])
            start += len(block)
        return cls(index, duplicates, normalizer, piece, 0)

    @classmethod
    def load(cls, folder: Path, about: dict[str, Any], matrix: Matrix) -> Self:
        try:
            piece, scale, length = int(about["piece"]), float(about["scale"]), int(about["shortlist"])
        except (KeyError, TypeError) as error:
            raise ValueError(f"{folder} has no description of codes: {error!r}") from None
        duplicates = Duplicates.load(folder, len(matrix))
        normalizer = Normalizer(matrix.metric, round_up(matrix.dimension, piece), scale)
        number = metric_number(matrix.metric)
        index = read(folder / "codes.faiss", _KIND, number, normalizer.width, duplicates.count)
        return cls(index, duplicates, normalizer, piece, length)

    def save(self, folder: Path) -> dict[str, Any]:
        """Write the codes into `folder`; what is returned goes to `load` with it."""
        write(self._index, folder / "codes.faiss")
        self.duplicates.save(folder)
        return {"piece": self._piece, "scale": self.normalizer.scale, "shortlist": self.list_length}

    def length(self, k: int) -> int:
        """The number of rows to score exactly for the k best."""
        return int(self.list_length * max(1.0, (k / Calibration.k) ** _GROWTH))

    def search(self, queries: Float32, length: int, allowed: Mask | None = None) -> tuple[Int64, Float32]:
        """The `length` best representatives [m, length] by their codes, -1 where fewer are allowed or have an allowed
        duplicate, and their scores by their codes, in the unit of `Normalizer.factors`."""
        faiss = library()
        params = None
        if allowed is not None:
            bits = np.packbits(self.duplicates.representatives_of(allowed), bitorder="little")
            params = faiss.SearchParametersIVF(sel=faiss.IDSelectorBitmap(bits), nprobe=1)
        distances, rows = self._index.search(self.normalizer.queries(queries), length, params=params)
        return rows, -distances if self.normalizer.metric is Metric.EUCLIDEAN else distances

    @property
    def nbytes(self) -> int:
        # faiss packs rows by 32 and keeps the position of each, of 8 bytes.
        packed = round_up(self.duplicates.count, 32)
        return packed * int(self._index.code_size) + 8 * self.duplicates.count + self.duplicates.pairs.nbytes
