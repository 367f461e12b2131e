"""The interface of an index over an immutable matrix.

An index is built once and searched: no insert, no delete. New and dead rows are the view's business
(`storage.view`). Its files are derived: `save` writes what `load` needs besides the matrix, which the segment keeps.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from apps.engine import kernels
from apps.engine.errors import InvalidParameter
from apps.engine.indexes.matrix import Matrix, Neighbors
from apps.engine.vectors import Float32, Mask

Params = Mapping[str, Any]
NO_PARAMS: Params = {}
# Called between the steps of a long build; what it raises ends the build.
Checkpoint = Callable[[], None]


def no_checkpoint() -> None:
    """Let the build continue."""


@dataclass(frozen=True)
class Parameter:
    """A number that a type takes, a whole one unless `whole` is false: its range, both ends included, and what it
    means.

    `default` says in words what stands in for it where it is not given.
    """

    name: str
    low: float
    high: float
    default: str
    meaning: str
    whole: bool = True

    def check(self, value: Any) -> None:
        """Raise InvalidParameter for what is no such number of the range."""
        if isinstance(value, bool) or not isinstance(value, int if self.whole else (int, float)):
            kind = "a whole number" if self.whole else "a number"
            raise InvalidParameter(self.name, f"must be {kind} from {self.low} to {self.high}")
        if not self.low <= value <= self.high:
            raise InvalidParameter(self.name, f"must be from {self.low} to {self.high}, not {value}")


class VectorIndex(ABC):
    """An index over the rows of a matrix, which are named by their position in it."""

    kind: ClassVar[str]
    build_parameters: ClassVar[tuple[Parameter, ...]] = ()
    search_parameters: ClassVar[tuple[Parameter, ...]] = ()
    # Whether building takes minutes where other types take seconds, so that rows are merged into an index less often.
    slow_to_build: ClassVar[bool] = False
    needs_kernels: ClassVar[bool] = True
    # Above this dimension the type does not suit; None where it always does.
    many_dimensions: ClassVar[int | None] = None

    def __init__(self, matrix: Matrix) -> None:
        self.matrix = matrix

    @classmethod
    def check_params(cls, params: Params) -> None:
        """Raise InvalidParameter for the first of the build parameters `params` that this type does not take."""
        check_parameters(params, {one.name: one for one in cls.build_parameters}, f"is no parameter of {cls.kind}")

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
    def build(cls, matrix: Matrix, params: Params = NO_PARAMS, checkpoint: Checkpoint = no_checkpoint) -> Self:
        """Index the rows of `matrix`, which the index keeps for its exact searches.

        Types that are slow to build call `checkpoint` every few seconds. All types but `brute_force` need the kernels.
        Raises InvalidParameter like `check_params`, RuntimeError without the kernels.
        """
        cls.check_params(params)
        if cls.needs_kernels and not kernels.are_loaded():
            raise RuntimeError(f"an index of the type {cls.kind} is built by compiled code, which is not loaded")
        return cls._build(matrix, params, checkpoint)

    @classmethod
    @abstractmethod
    def _build(cls, matrix: Matrix, params: Params, checkpoint: Checkpoint) -> Self:
        """As `build`, of parameters that are checked."""

    def search(
        self,
        queries: Float32,
        k: int,
        allowed: Mask | None = None,
        params: Params = NO_PARAMS,
        sure: int | None = None,
    ) -> Neighbors:
        """The k nearest rows to each of `queries` [m, d].

        `allowed` [n] limits the search to its true rows; all false means no results, None means all rows. At least
        min(k, allowed rows) results are found. `params` holds search parameters that `check_search_params` accepts
        (`registry`).
        The first `sure` ranks (None: all) are found as surely as by a search for that many; an index may spend less on
        the others, and list rows further away in place of some.
        Where an exact search of the matrix costs less, and until the kernels are loaded, that answers.
        """
        count = len(self) if allowed is None else int(np.count_nonzero(allowed))
        allowed = None if allowed is None or count == len(self) else np.ascontiguousarray(allowed)
        found = None
        if count and kernels.are_loaded():
            found = self._search(np.ascontiguousarray(queries), k, allowed, count, params, min(k, sure or k))
        return self.matrix.search(queries, k, allowed) if found is None else found

    @abstractmethod
    def _search(
        self, queries: Float32, k: int, allowed: Mask | None, count: int, params: Params, sure: int
    ) -> Neighbors | None:
        """As `search`, of contiguous arrays; `count` rows are allowed, at least one, and `allowed` is None if all are.
        None where an exact search of the matrix costs less."""

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write what `load` needs besides the matrix into files of `folder`, which exists."""

    @classmethod
    @abstractmethod
    def load(cls, folder: Path, matrix: Matrix) -> Self:
        """The index that was saved in `folder`, built from `matrix`.

        Files are mapped, not read, where that saves memory. The caller has checked their checksums. Raises ValueError
        or OSError for files that do not fit.
        """

    def __len__(self) -> int:
        return len(self.matrix)

    @property
    @abstractmethod
    def nbytes(self) -> int:
        """Memory or mapped files that the index holds besides its matrix."""

    @property
    def resident_bytes(self) -> int:
        """What searches go through, and the system therefore keeps in memory: what the index holds, or, where it holds
        nothing, the 8-bit copy of the matrix or its rows. Of the rows, others read the few that they score exactly."""
        codes = self.matrix.codes
        return self.nbytes or (self.matrix.vectors.nbytes if codes is None else codes.nbytes)


def check_parameters(params: Params, known: Mapping[str, Parameter], otherwise: str) -> None:
    """Raise InvalidParameter for the first of `params` that is not among `known`, or not in its range."""
    for name, value in params.items():
        if name not in known:
            takes = f"; there are: {', '.join(known)}" if known else "; there are none"
            raise InvalidParameter(name, otherwise + takes)
        known[name].check(value)
