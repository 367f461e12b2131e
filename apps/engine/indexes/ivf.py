"""Approximate search in inverted lists: rows lie in lists by the nearest of some centres, and a query looks only into
the lists whose centres it is nearest to (Jegou, Douze, Schmid, Product quantization for nearest neighbor search, 2011).
In the lists are 4-bit product codes (`product_codes`); the best rows by their codes are scored exactly.

A calibration at build finds how many lists and how many rows that takes, or that no lists find enough; docs/indexes.md
says how. The centres and the codes are trained on seeded samples: the same rows give the same index.

Costs 1/8 to 1/2 byte per dimension and 8 bytes per row, in files that processes map and share. The build takes one
thread some 30 microseconds per row of 384 dimensions at a million rows.
"""

import json
from math import inf
from pathlib import Path
from typing import Any, Self

import numpy as np

from apps.engine.indexes.base import Checkpoint, Parameter, Params, VectorIndex
from apps.engine.indexes.calibration import Calibration
from apps.engine.indexes.clustering import find_centres, nearest_centres
from apps.engine.indexes.duplicates import Duplicates
from apps.engine.indexes.matrix import Matrix, Neighbors
from apps.engine.indexes.normalize import Normalizer
from apps.engine.indexes.product_codes import PIECE, ProductCodes, pieces_to_try
from apps.engine.indexes.recall import ENOUGH, RECALL, RecallCurve, Trial
from apps.engine.indexes.rerank import Candidates, rerank, search_lists
from apps.engine.metrics import Metric
from apps.engine.vectors import Float32, Int64, Mask

_MOST_LISTS = 65_536
_SAMPLE_ROWS_PER_LIST = 64
_SEED = 77
_QUERIES, _MIXED_ROWS = 256, 4
# What is aimed at where the query does not say.
_RECALL = 0.99
# Of lists scored in a trial; the shortest and the longest of its short-lists.
_SHORTEST, _LONGEST = 32, 2048
# The longest short-list of a trial that leaves it at the first piece.
_GOOD_LENGTH = 600
# An exact score costs what the codes of this many rows do.
_RESCORE_COST = 80
# Both grow with k, more slowly than k does.
_GROWTH = {"probes": 0.2, "rescore": 0.75}
# The least number of rows that are scored exactly for each rank, where not all ranks need be sure.
_LEAST_FOR_OTHERS = 2
# Of n rows with s allowed, the nearest lie in more lists: by this power of n / s.
_MASK_POWER = 0.25
# Fewer than one row in twelve may all lie in lists that are far from the query, and are scanned exactly.
_SCAN_SHARE = 12
_ABOUT = "lists.json"


class Ivf(VectorIndex):
    """A scan of the small codes in some lists, then exact scores of some rows.

    `compared` counts the rows in these lists, whatever the mask.
    """

    kind = "ivf"
    # Fewer different rows are searched exactly.
    fewest_rows = 4000
    # The share of true neighbours that a trial must find with some effort.
    enough = 0.97
    build_parameters = (
        Parameter("lists", 1, _MOST_LISTS, "the square root of the number of rows", "lists, at most one for each row"),
        PIECE,
    )
    search_parameters = (
        Parameter(
            "probes",
            1,
            _MOST_LISTS,
            f"what a trial at build found sufficient for a recall of {_RECALL}, more for k above 10 and under a filter",
            "how many lists are looked into; more where they hold fewer than k allowed rows",
        ),
        Parameter(
            "rescore",
            1,
            1_000_000,
            f"what a trial at build found sufficient for a recall of {_RECALL}, more for k above 10",
            "how many rows, the best by their codes, are scored exactly; at least k are",
        ),
        RECALL,
    )

    def __init__(self, matrix: Matrix, codes: ProductCodes | None, curve: RecallCurve | None) -> None:
        super().__init__(matrix)
        self._codes = codes
        self._curve = curve

    @classmethod
    def _build(cls, matrix: Matrix, params: Params, checkpoint: Checkpoint) -> Self:
        """Make lists and codes, in the first pieces whose short-list is short, or else the shortest; none where no
        effort finds enough."""
        nothing = cls(matrix, None, None)
        if len(matrix) < cls.fewest_rows:
            return nothing
        normalizer = Normalizer.fit(matrix, matrix.dimension)
        duplicates = Duplicates.find(normalizer.row_blocks(matrix.vectors))
        calibration = Calibration.draw(matrix, _QUERIES, _MIXED_ROWS)
        if duplicates.count < cls.fewest_rows or not calibration.separable:
            return nothing
        count = min(params.get("lists") or round(duplicates.count**0.5), duplicates.count)
        centres, numbers = _make_lists(matrix, duplicates, normalizer, count, checkpoint)
        chosen: tuple[ProductCodes, RecallCurve, int] | None = None
        for piece in pieces_to_try(params):
            codes = ProductCodes.train(
                matrix, duplicates, piece, centres=centres, list_numbers=numbers, checkpoint=checkpoint
            )
            trials = _make_trials(codes, calibration, checkpoint)
            if max(trial.recall for trial in trials) < cls.enough:
                continue
            curve = RecallCurve.fit(trials)
            length = curve.at(_RECALL, 1, _GROWTH)["rescore"]
            if chosen is None or length < chosen[2]:
                chosen = codes, curve, length
            if length <= _GOOD_LENGTH:
                break
        return cls(matrix, chosen[0], chosen[1]) if chosen else nothing

    def _search(
        self, queries: Float32, k: int, allowed: Mask | None, count: int, params: Params, sure: int
    ) -> Neighbors | None:
        codes, rows = self._codes, len(self)
        if codes is None or self._curve is None:
            return None
        effort = self._curve.at(params.get(RECALL.name, _RECALL), sure, _GROWTH)
        lists = len(codes.list_sizes)
        probes = params.get("probes") or min(lists, round(effort["probes"] * (rows / count) ** _MASK_POWER))
        # The rule by which a list is read is about the last rank.
        is_whole = "rescore" in params or sure < k
        usual = effort["rescore"] if sure == k else max(effort["rescore"], _LEAST_FOR_OTHERS * k)
        length = max(k, params.get("rescore", usual))
        if count <= max(2 * length, rows // _SCAN_SHARE):
            return None

        def search(block: Float32, probes: int) -> Candidates:
            representatives, rough, compared = codes.search(block, length, probes, allowed)
            positions, scores, _ = rerank(
                self.matrix,
                block,
                k,
                representatives,
                duplicates=codes.duplicates,
                allowed=allowed,
                rough=None if is_whole else rough,
                factors=codes.normalizer.factors(block),
            )
            return Candidates(positions, scores, compared, positions[:, min(k, count) - 1] >= 0)

        return search_lists(
            queries,
            k,
            allowed,
            matrix=self.matrix,
            length=probes,
            listed=length,
            pays=lambda probes: probes < 4 * lists,
            search=search,
        )

    def save(self, folder: Path) -> None:
        about = None
        if self._codes is not None and self._curve is not None:
            self._codes.save(folder)
            scale = self._codes.normalizer.scale
            about = {"piece": self._codes.piece, "scale": scale, "recall": self._curve.as_dict()}
        (folder / _ABOUT).write_text(json.dumps(about))

    @classmethod
    def load(cls, folder: Path, matrix: Matrix) -> Self:
        about: Any = json.loads((folder / _ABOUT).read_text())
        if about is None:
            return cls(matrix, None, None)
        try:
            piece, scale = int(about["piece"]), float(about["scale"])
            curve = RecallCurve.parse(about["recall"], _GROWTH)
        except (KeyError, TypeError) as error:
            raise ValueError(f"{folder} has no description of lists: {error!r}") from None
        return cls(matrix, ProductCodes.load(folder, matrix, piece, scale), curve)

    @property
    def nbytes(self) -> int:
        return self._codes.nbytes if self._codes else 0


def _make_lists(
    matrix: Matrix, duplicates: Duplicates, normalizer: Normalizer, count: int, checkpoint: Checkpoint
) -> tuple[Float32, Int64]:
    """Centres [count, dimension], and for each representative the number of its list."""
    rows = duplicates.representatives()
    size = min(len(rows), _SAMPLE_ROWS_PER_LIST * count)
    drawn = np.sort(np.random.default_rng(_SEED).choice(rows, size, replace=False))
    sample = np.concatenate(list(normalizer.row_blocks(matrix.vectors, drawn)))
    centres = find_centres(sample, count, spherical=matrix.metric is Metric.COSINE, checkpoint=checkpoint)
    return centres, nearest_centres(normalizer.row_blocks(matrix.vectors, rows), centres, checkpoint)


def _make_trials(codes: ProductCodes, calibration: Calibration, checkpoint: Checkpoint) -> list[Trial]:
    """What more and more lists find, with short-lists of several lengths, until even the shortest costs more than what
    finds enough for any target."""
    lists, rows = len(codes.list_sizes), int(codes.list_sizes.sum())
    longest = min(_LONGEST, max(_SHORTEST, rows // 16))
    steps = np.unique(np.geomspace(1, lists, 3 * int(np.log2(lists)) + 1).round().astype(int)).tolist()
    lengths = np.unique(np.geomspace(_SHORTEST, longest, 13).round().astype(int)).tolist()
    trials = []
    for probes in steps:
        checkpoint()
        proposed, _, compared = codes.search(calibration.queries, longest, probes)
        ranks = calibration.ranks(codes.duplicates, proposed)
        for length in lengths:
            cost = float(compared.mean()) + _RESCORE_COST * length
            recall = float(np.searchsorted(ranks, length)) / len(ranks)
            trials.append(Trial(recall, cost, {"probes": probes, "rescore": length}))
        if compared.mean() >= min((trial.cost for trial in trials if trial.recall >= ENOUGH), default=inf):
            break
    return trials
