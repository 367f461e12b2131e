"""The interface of an index over an immutable matrix, and what a search returns.

An index builds once and searches: no insert, no delete. New and dead rows are the view's business (`view.py`). Its
files are derived: `save` writes what `load` needs besides the matrix itself, which the segment keeps.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from apps.engine.errors import InvalidParameter
from apps.engine.metrics import Metric
from apps.engine.vectors import Float32, Int64, Mask

if TYPE_CHECKING:
    from apps.engine.indexes.brute_force import BruteForce

Params = Mapping[str, Any]
NO_PARAMS: Params = {}
# Asked between the steps of a long build; what it raises ends the build.
Checkpoint = Callable[[], None]


def go_on() -> None:
    """The checkpoint of a build that nobody breaks off."""


@dataclass(frozen=True)
class Neighbors:
    """The nearest rows of m queries, best first.

    positions  int64 [m, k], row numbers; -1 where there are fewer than k
    scores     float32 [m, k], exact scores; -inf where the position is -1
    compared   int64 [m], how many vectors each query was compared with, by themselves or by their codes
    proven     bool [m], whether these provably are the k best, ties by row number
    scanned    bool [m], whether an exact scan of all allowed rows found them, as `brute_force` does
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


@dataclass(frozen=True)
class Parameter:
    """A whole number that a type takes: its range, both ends included, and what it means.

    `default` says in words what stands in for it where it is not given.
    """

    name: str
    low: int
    high: int
    default: str
    meaning: str

    def check(self, value: Any) -> None:
        """Raise InvalidParameter for what is no whole number of the range."""
        if isinstance(value, bool) or not isinstance(value, int):
            raise InvalidParameter(self.name, f"must be a whole number from {self.low} to {self.high}")
        if not self.low <= value <= self.high:
            raise InvalidParameter(self.name, f"must be from {self.low} to {self.high}, not {value}")


class VectorIndex(ABC):
    """An index over `len(self)` vectors; rows are named by their position in the matrix it was built from."""

    kind: ClassVar[str]
    build_parameters: ClassVar[tuple[Parameter, ...]] = ()
    search_parameters: ClassVar[tuple[Parameter, ...]] = ()
    # Whether building takes minutes where other types take seconds, so that rows are merged into an index less often.
    slow_to_build: ClassVar[bool] = False
    # Past so many dimensions the type does not suit; None where it always does.
    many_dimensions: ClassVar[int | None] = None

    @classmethod
    def check_params(cls, params: Params) -> None:
        """Raise InvalidParameter for the first of the build parameters `params` that this type does not take."""
        check_parameters(params, {one.name: one for one in cls.build_parameters}, f"{cls.kind} has no such parameter")

    @classmethod
    def check_search_params(cls, params: Params) -> None:
        """Raise InvalidParameter for the first of the search parameters `params` that this type does not take."""
        known = {one.name: one for one in cls.search_parameters}
        check_parameters(params, known, f"{cls.kind} has no such search parameter")

    @classmethod
    def warning(cls, dimension: int) -> str | None:
        """Why this type does not suit vectors of `dimension`; None where it does."""
        if cls.many_dimensions is None or dimension <= cls.many_dimensions:
            return None
        return (
            f"{cls.kind} is made for {cls.many_dimensions} dimensions and fewer; in {dimension} it compares nearly all "
            "rows, and other index types are faster."
        )

    @classmethod
    @abstractmethod
    def build(
        cls,
        vectors: Float32,
        metric: Metric,
        params: Params = NO_PARAMS,
        exact: "BruteForce | None" = None,
        checkpoint: Checkpoint = go_on,
    ) -> Self:
        """Index `vectors` [n, dimension]. The array is kept, not copied, and never written to.

        `exact`, an index of the same rows, answers what is left to a scan, quicker than the rows alone would. Types
        that are slow to build call `checkpoint` every few seconds. Raises InvalidParameter as `check_params` does.
        """

    @abstractmethod
    def search(self, queries: Float32, k: int, allowed: Mask | None = None, params: Params = NO_PARAMS) -> Neighbors:
        """The k nearest rows to each of `queries` [m, dimension].

        `allowed` [n] limits the search to its true rows; all false means no results, None means all rows. At least
        min(k, allowed rows) results are found. `params` holds search parameters that `check_search_params` accepts.
        """

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write what `load` needs into files of `folder`, which exists; the vectors are not among them."""

    @classmethod
    @abstractmethod
    def load(cls, folder: Path, vectors: Float32, metric: Metric, exact: "BruteForce | None" = None) -> Self:
        """The index that was saved in `folder`, built from `vectors` [n, dimension] under `metric`; `exact` as in
        `build`.

        Files are mapped, not read, where that saves memory. Who calls has checked their checksums.
        """

    @abstractmethod
    def __len__(self) -> int: ...

    @property
    @abstractmethod
    def nbytes(self) -> int:
        """Memory or mapped file that the index holds besides its vectors."""


def check_parameters(params: Params, known: Mapping[str, Parameter], otherwise: str) -> None:
    """Raise InvalidParameter for the first of `params` that is not among `known`, or not in its range."""
    for name, value in params.items():
        if name not in known:
            takes = f"; there are: {', '.join(known)}" if known else "; there are none"
            raise InvalidParameter(name, otherwise + takes)
        known[name].check(value)
