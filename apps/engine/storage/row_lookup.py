"""Some rows of a view, looked up by their keys: a few hundred of them, and what they have and match.

Each row is found in its part once, however much is asked of it. That costs some bisections in each segment.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from apps.engine.metadata.filters import Filter
from apps.engine.storage.part import Part
from apps.engine.vectors import Float64, Int64, Mask


@dataclass(frozen=True)
class RowLookup:
    """`count` rows. `found` has the parts that hold some: the positions of these among the rows, and their places in
    the part."""

    count: int
    found: Sequence[tuple[Part, Int64, Int64]]

    @classmethod
    def of(cls, parts: Sequence[Part], keys: Int64) -> Self:
        """The rows `keys` [n], each of which lives in one of `parts`."""
        return cls(len(keys), list(_find([part for part in parts if len(part.keys)], keys)))

    def matches(self, filter: Filter) -> Mask:
        """bool [n]: which rows match."""
        return self._read(lambda part, places: part.matches_at(filter, places), np.bool_)

    def numbers(self, field: str) -> Float64:
        """float64 [n]: the number that each row has in a field; infinity where there is none."""
        return self._read(lambda part, places: part.numbers_at(field, places), np.float64)

    def times(self, field: str) -> Float64:
        """float64 [n]: the date or time that each row has in a field, in seconds since the epoch; infinity where
        there is none."""
        return self._read(lambda part, places: part.times_at(field, places), np.float64)

    def keys_of_values(self, field: str) -> list[bytes | None]:
        """The key of the value (`metadata/values.py`) that each row has in a field, which is no time of its own;
        None where there is none."""
        found: list[bytes | None] = [None] * self.count
        for part, which, places in self.found:
            for i, key in zip(which.tolist(), part.keys_at(field, places), strict=True):
                found[i] = key
        return found

    def _read(self, read: Callable[[Part, Int64], NDArray[Any]], dtype: type[np.generic]) -> NDArray[Any]:
        """[n]: what `read` gives for the places in each part."""
        if len(self.found) == 1:
            [(part, _, places)] = self.found
            return read(part, places)
        found = np.empty(self.count, dtype)
        for part, which, places in self.found:
            found[which] = read(part, places)
        return found


def _find(parts: Sequence[Part], keys: Int64) -> Iterator[tuple[Part, Int64, Int64]]:
    left = np.arange(len(keys))
    if len(parts) == 1:
        yield parts[0], left, parts[0].places_of_live(keys)
        return
    for part in parts:
        if not len(left):
            return
        places = part.places(keys[left])
        is_here = places >= 0
        if is_here.any():
            yield part, left[is_here], places[is_here]
            left = left[~is_here]
