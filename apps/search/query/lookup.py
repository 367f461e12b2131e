"""What chunks that were found have and match, looked up in the view that they were found in."""

from collections.abc import Callable

import numpy as np

from apps.engine.metadata.filters import Filter
from apps.engine.storage.row_lookup import RowLookup
from apps.engine.vectors import Float64, Mask


class ChunkLookup:
    """Some chunks [n]. `decide` gives a filter that matches the same of them and has no condition on texts."""

    def __init__(self, rows: RowLookup, decide: Callable[[Filter], Filter]) -> None:
        self._rows = rows
        self._decide = decide

    def matches(self, filter: Filter) -> Mask:
        """bool [n]: which chunks match. Raises Invalid where the request's budget is too small."""
        if filter.is_everything:
            return np.ones(self._rows.count, np.bool_)
        return self._rows.matches(self._decide(filter))

    def numbers(self, field: str) -> Float64:
        """float64 [n]: the number that each chunk has in a field; infinity where there is none."""
        return self._rows.numbers(field)

    def times(self, field: str) -> Float64:
        """float64 [n]: the date or time that each chunk has in a field, in seconds since the epoch; infinity where
        there is none."""
        return self._rows.times(field)

    def keys_of_values(self, field: str) -> list[bytes | None]:
        """The value that each chunk has in a field, which is no time of its own, as its key
        (`engine/metadata/values.py`); None where there is none."""
        return self._rows.keys_of_values(field)
