"""The filters that are measured, and how their answers are judged: by rows and distances that are recomputed here, with
filters in plain Python.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.dataset import Dataset, Float32

K = 10
_TOLERANCE = 1e-6
_QUERIES_AT_ONCE = 50


@dataclass(frozen=True, eq=False)
class Case:
    """A filter as the API takes it, and as a function of a row's metadata."""

    name: str
    filter: dict[str, Any]
    matches: Callable[[dict[str, Any]], bool]


UNFILTERED = Case("unfiltered", {}, lambda row: True)
ANIMAL = Case("topic = noun.animal", {"topic": "noun.animal"}, lambda row: row["topic"] == "noun.animal")
NOUN = Case("pos = noun", {"pos": "noun"}, lambda row: row["pos"] == "noun")
MOTIVE = Case("topic = noun.motive", {"topic": "noun.motive"}, lambda row: row["topic"] == "noun.motive")
SYNONYMS = Case("synonyms >= 4", {"synonyms": {"$gte": 4}}, lambda row: row["synonyms"] >= 4)
COMBINED = Case(
    "noun, and synonyms >= 3 or relations >= 5",
    {"pos": "noun", "$or": [{"synonyms": {"$gte": 3}}, {"relations": {"$gte": 5}}]},
    lambda row: row["pos"] == "noun" and (row["synonyms"] >= 3 or row["relations"] >= 5),
)


class Truth:
    """What the exact answers of the first `queries` queries under a filter are."""

    def __init__(self, data: Dataset, case: Case, queries: int) -> None:
        self._data = data
        self.mask = np.array([case.matches(row["metadata"]) for row in data.rows])
        self.count = int(np.count_nonzero(self.mask))
        self.wanted = min(K, self.count)
        self._kth = self._kth_scores(data.vectors[self.mask], data.queries[:queries])

    def _kth_scores(self, rows: Float32, queries: Float32) -> Float32:
        """The score of each query's last row that is wanted."""
        kth = []
        for start in range(0, len(queries), _QUERIES_AT_ONCE):
            scores = queries[start : start + _QUERIES_AT_ONCE] @ rows.T
            kth.append(np.partition(scores, self.count - self.wanted, axis=1)[:, self.count - self.wanted])
        return np.concatenate(kth)

    def recall(self, answers: Sequence[Sequence[int]]) -> float:
        """The share of what is wanted that the first queries' `answers`, positions of rows, have.

        A row counts if it matches and is as near as the last that is wanted, so ties cost nothing.
        """
        right = 0
        for query, answer in enumerate(answers):
            rows = [row for row in sorted(set(answer)) if self.mask[row]]
            scores = self._data.vectors[rows].astype(np.float64) @ self._data.queries[query].astype(np.float64)
            right += min(self.wanted, int(np.count_nonzero(scores >= self._kth[query] - _TOLERANCE)))
        return right / (self.wanted * len(answers))
