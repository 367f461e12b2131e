"""The interface of an index over an immutable matrix, and what a search returns.

An index builds once and searches: no insert, no delete. New and dead rows are the view's business (`view.py`).
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from apps.engine.errors import InvalidParameter
from apps.engine.metrics import Metric
from apps.engine.vectors import Float32, Int64, Mask


@dataclass(frozen=True)
class Neighbors:
    """The nearest rows of m queries, best first.

    positions  int64 [m, k], row numbers; -1 where there are fewer than k
    scores     float32 [m, k], exact scores; -inf where the position is -1
    compared   int64 [m], how many vectors each query was compared with
    exact      whether these provably are the k best, ties by row number
    """

    positions: Int64
    scores: Float32
    compared: Int64
    exact: bool


class VectorIndex(ABC):
    """An index over `len(self)` vectors; rows are named by their position in the matrix it was built from."""

    kind: ClassVar[str]

    @classmethod
    def check_params(cls, params: Mapping[str, Any]) -> None:
        """Raise InvalidParameter for the first of the build parameters `params` that this type does not take."""
        for name in params:
            raise InvalidParameter(name, f"{cls.kind} has no such parameter")

    @classmethod
    def check_search_params(cls, params: Mapping[str, Any]) -> None:
        """Raise InvalidParameter for the first of the search parameters `params` that this type does not take."""
        for name in params:
            raise InvalidParameter(name, f"{cls.kind} has no such search parameter")

    @classmethod
    @abstractmethod
    def build(cls, vectors: Float32, metric: Metric, params: Mapping[str, Any] | None = None) -> Self:
        """Index `vectors` [n, dimension]. The array is kept, not copied, and never written to.

        Raises InvalidParameter as `check_params` does.
        """

    @abstractmethod
    def search(self, queries: Float32, k: int, allowed: Mask | None = None) -> Neighbors:
        """The k nearest rows to each of `queries` [m, dimension].

        `allowed` [n] limits the search to its true rows; all false means no results, None means all rows.
        """

    @abstractmethod
    def __len__(self) -> int: ...

    @property
    @abstractmethod
    def nbytes(self) -> int:
        """Memory that the index holds, its vectors included."""
