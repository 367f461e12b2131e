"""Approximate search by a scan of all rows in 4-bit product codes (`product_codes`), then exact scores of a short-list.

A calibration at build chooses the pieces and the length of the short-list, or no codes at all; docs/indexes.md says
how. Training takes a seeded sample: the same rows give the same index.

Costs 1/8 to 1/2 byte per dimension and 8 bytes per row, in files that processes map and share, and one pass over them
per query.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from apps.engine.indexes.base import Checkpoint, Parameter, Params, VectorIndex
from apps.engine.indexes.calibration import Calibration
from apps.engine.indexes.duplicates import Duplicates
from apps.engine.indexes.matrix import Matrix, Neighbors
from apps.engine.indexes.normalize import Normalizer
from apps.engine.indexes.product_codes import PIECE, ProductCodes, pieces_to_try
from apps.engine.indexes.recall import RECALL, RecallCurve, Trial
from apps.engine.indexes.rerank import Candidates, rerank, search_lists
from apps.engine.vectors import Float32, Mask

# The range of lengths of the short-list.
_SHORTEST = 64
_GOOD_LENGTH = 512
_LONGEST = 2048
# It grows with k more slowly than k does.
_GROWTH = {"rescore": 0.75}
# The least number of rows that are scored exactly for each rank, where not all ranks need be sure.
_LEAST_FOR_OTHERS = 2
# An exact scan of one row in eight costs about what the scan of all codes does.
_SCAN_SHARE = 8
_ABOUT = "codes.json"


@dataclass(frozen=True)
class _Trained:
    """The codes, how long a short-list from them must be for k = 10, and shorter ones that find less."""

    codes: ProductCodes
    list_length: int
    curve: RecallCurve

    def length(self, k: int, target: float | None) -> int:
        """The number of rows to score exactly for the k best, or for a recall of `target` among them."""
        if target is not None:
            return self.curve.at(target, k, _GROWTH)["rescore"]
        return int(self.list_length * max(1.0, (k / Calibration.k) ** _GROWTH["rescore"]))


class Quantized(VectorIndex):
    """A whole scan of small codes, then exact scores of `rescore` rows.

    `compared` counts the rows whose codes are scanned, which is all of them whatever the mask.
    """

    kind = "quantized"
    # Fewer different rows are searched exactly.
    fewest_rows = 2000
    # The share of true neighbours that the short-list of a calibration must hold.
    enough = 0.998
    build_parameters = (PIECE,)
    search_parameters = (
        Parameter(
            "rescore",
            1,
            1_000_000,
            "what a trial at build found sufficient, more for k above 10 and for queries whose list is not conclusive",
            "how many rows, the best by their codes, are scored exactly; at least k are",
        ),
        RECALL,
    )

    def __init__(self, matrix: Matrix, trained: _Trained | None) -> None:
        super().__init__(matrix)
        self._trained = trained

    @classmethod
    def _build(cls, matrix: Matrix, params: Params, checkpoint: Checkpoint) -> Self:
        trained = cls._train(matrix, pieces_to_try(params), checkpoint) if len(matrix) >= cls.fewest_rows else None
        return cls(matrix, trained)

    @classmethod
    def _train(cls, matrix: Matrix, pieces: Sequence[int], checkpoint: Checkpoint) -> _Trained | None:
        """Codes of the first of `pieces` whose short-list is short, or else of those with the shortest; None where no
        list of a thirty-second of the rows finds enough."""
        duplicates = Duplicates.find(Normalizer.fit(matrix, matrix.dimension).row_blocks(matrix.vectors))
        calibration = Calibration.draw(matrix)
        if duplicates.count < cls.fewest_rows or not calibration.separable:
            return None
        longest = min(_LONGEST, duplicates.count // 32)
        chosen: _Trained | None = None
        for piece in pieces:
            codes = ProductCodes.train(matrix, duplicates, piece, checkpoint=checkpoint)
            ranks = calibration.ranks(duplicates, codes.search(calibration.queries, longest)[0])
            needed = int(ranks[int(cls.enough * (len(ranks) - 1))]) + 1
            if needed > longest:
                continue
            length = max(_SHORTEST, needed)
            if chosen is None or length < chosen.list_length:
                lengths = np.unique(np.geomspace(Calibration.k, length, 16).round().astype(int)).tolist()
                trials = [Trial(float(np.mean(ranks < one)), one, {"rescore": one}) for one in lengths]
                chosen = _Trained(codes, length, RecallCurve.fit(trials))
                if length <= _GOOD_LENGTH:
                    break
        return chosen

    def _search(
        self, queries: Float32, k: int, allowed: Mask | None, count: int, params: Params, sure: int
    ) -> Neighbors | None:
        trained = self._trained
        if trained is None:
            return None
        rows, codes, target = len(self), trained.codes, params.get(RECALL.name)
        # The rule by which a list is read and made longer is about the last rank.
        is_whole = "rescore" in params or sure < k
        usual = trained.length(sure, target)
        if sure < k:
            usual = max(usual, _LEAST_FOR_OTHERS * k)

        def search(block: Float32, length: int) -> Candidates:
            # A list is not full where few different rows are allowed, or all look alike to the query.
            representatives, rough, compared = codes.search(block, length, allowed=allowed)
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
            if target is not None and not is_whole:
                enough = positions[:, min(k, count) - 1] >= 0
            return Candidates(positions, scores, compared, enough)

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
        about = None
        if self._trained is not None:
            codes = self._trained.codes
            codes.save(folder)
            about = {
                "piece": codes.piece,
                "scale": codes.normalizer.scale,
                "shortlist": self._trained.list_length,
                "recall": self._trained.curve.as_dict(),
            }
        (folder / _ABOUT).write_text(json.dumps(about))

    @classmethod
    def load(cls, folder: Path, matrix: Matrix) -> Self:
        about: Any = json.loads((folder / _ABOUT).read_text())
        if about is None:
            return cls(matrix, None)
        try:
            piece, scale, length = int(about["piece"]), float(about["scale"]), int(about["shortlist"])
            curve = RecallCurve.parse(about["recall"], _GROWTH)
        except (KeyError, TypeError) as error:
            raise ValueError(f"{folder} has no description of codes: {error!r}") from None
        return cls(matrix, _Trained(ProductCodes.load(folder, matrix, piece, scale), length, curve))

    @property
    def nbytes(self) -> int:
        return self._trained.codes.nbytes if self._trained else 0
