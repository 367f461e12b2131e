"""From rows to their values: what a few hundred rows have in a column.

A column leads from values to rows. The other way takes an array of what each row has. It is made when it is first
needed, in some milliseconds for a million rows, and kept for the last few columns that were asked for.
"""

from bisect import bisect_left
from typing import Any

import numpy as np
from numpy.typing import NDArray

from apps.engine.metadata.layout import Column, Layout
from apps.engine.metadata.values import NUMBER, STRING, numbers_of
from apps.engine.strings import lengths_of
from apps.engine.vectors import Float64, Int64

# Arrays that are kept, of 4 or 8 bytes a row.
_KEPT = 4
_STEP = 1 << 16


class ValuesByRow:
    """The values of a block of rows by row. Many threads may read."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        # By what they hold and of which column; the one that was made last is the last.
        self._kept: dict[tuple[str, str], NDArray[Any]] = {}

    def values(self, path: str) -> NDArray[np.signedinteger[Any]]:
        """[n]: the number of the value that each row has in a column, -1 where there is none; not to be changed."""
        found = self._kept.get(("values", path))
        if found is None:
            column = self._layout.column(path)
            places = np.arange(column.first, column.last, dtype=np.int32 if column.last < 1 << 31 else np.int64)
            found = self._spread("values", path, column, places, missing=-1)
        return found

    def values_if_kept(self, path: str) -> NDArray[np.signedinteger[Any]] | None:
        """`values` if they are kept or can be without another array being dropped; None otherwise."""
        return self.values(path) if ("values", path) in self._kept or len(self._kept) < _KEPT else None

    def keys_at(self, path: str, rows: Int64) -> list[bytes | None]:
        """The key of the value that each of `rows` has in a column; None where there is none."""
        keys = self._layout.values
        return [keys[i] if i >= 0 else None for i in self.values(path)[rows].tolist()]

    def numbers_at(self, path: str, rows: Int64) -> Float64:
        """float64 [n]: the number that each of `rows` [n] has in a column; infinity where there is none."""
        found = self._kept.get(("numbers", path))
        if found is None:
            column, keys = self._layout.column(path), self._layout.values
            first = bisect_left(keys, NUMBER, column.first, column.last)
            last = bisect_left(keys, STRING, first, column.last)
            numbers = np.full(column.last - column.first, np.inf)
            # In steps: the places of the bytes take eight times the memory of the numbers.
            for start in range(first, last, _STEP):
                end = min(start + _STEP, last)
                numbers[start - column.first : end - column.first] = numbers_of(keys.unpack(start, end))
            found = self._spread("numbers", path, column, numbers, missing=np.inf)
        return found[rows]

    def _spread(self, kind: str, path: str, column: Column, of_values: NDArray[Any], missing: float) -> NDArray[Any]:
        """An array by row of what each value of a column has, and keep it."""
        found = np.full(len(self._layout.created_at), missing, of_values.dtype)
        found[column.rows] = of_values if column.starts is None else np.repeat(of_values, lengths_of(column.starts))
        # Of two threads one makes it for nothing. They replace the dict, so nobody sees it change.
        self._kept = dict([*self._kept.items(), ((kind, path), found)][-_KEPT:])
        return found
