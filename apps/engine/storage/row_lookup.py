"""Some rows of a view, looked up by their keys: a few hundred of them, and what they have and match.

Each row is found in its part once, however much is asked of it. That costs some bisections in each segment.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from apps.engine.storage.part import Part
from apps.engine.vectors import Float64, Int64, Mask


@dataclass(frozen=True)
class RowLookup:
    """`count` rows. `found` has for some of the parts the positions of its rows among them, and their places in it."""

    parts: Sequence[Part]
    count: int
    found: Sequence[tuple[int, Int64, Int64]]

    @classmethod
    def of(cls, parts: Sequence[Part], keys: Int64) -> Self:
        """The rows `keys` [n], each of which lives in one of `parts`."""
        return cls(parts, len(keys), list(_find(parts, keys)))

    def among(self, masks: Sequence[Mask]) -> Mask:
        """bool [n]: which rows are in `masks`, one for each part."""
        found = np.zeros(self.count, np.bool_)
        for part, which, places in self.found:
            found[which] = masks[part][places]
        return found

    def numbers(self, field: str) -> Float64:
        """float64 [n]: the number that each row has in a field; NaN where there is none."""
        found = np.full(self.count, np.nan)
        for part, which, places in self.found:
            found[which] = self.parts[part].numbers_at(field, places)
        return found

    def times(self, field: str) -> Float64:
        """float64 [n]: the date or time that each row has in a field, in seconds since the epoch; NaN where there is
        none."""
        found = np.full(self.count, np.nan)
        for part, which, places in self.found:
            found[which] = self.parts[part].times_at(field, places)
        return found

    def keys_of_values(self, field: str) -> list[bytes | None]:
        """The key of the value (`metadata/values.py`) that each row has in a field, which is no time of its own;
        None where there is none."""
        found: list[bytes | None] = [None] * self.count
        for part, which, places in self.found:
            for i, key in zip(which.tolist(), self.parts[part].keys_at(field, places), strict=True):
                found[i] = key
        return found


def _find(parts: Sequence[Part], keys: Int64) -> Iterator[tuple[int, Int64, Int64]]:
    left = np.arange(len(keys))
    for number, part in enumerate(parts):
        if len(left) and len(part.keys):
            places = part.places(keys[left])
            is_here = places >= 0
            if is_here.all():
                yield number, left, places
                return
            yield number, left[is_here], places[is_here]
            left = left[~is_here]
