"""The flat arrays of a block of rows. A column holds a range of the values, and a value a range of the rows.

names         the names of the columns, ascending; the members of a field's arrays are a column of their own
first_value   [columns + 1] the values of column c are first_value[c] to first_value[c + 1]
values        the keys of the values (`values.py`), ascending in each column
first_row     [columns + 1] the rows of column c are rows[first_row[c] : first_row[c + 1]], those of one value after the
              other, each ascending
rows          uint16, or uint32 where there are more than 65,536 rows
first_start   [columns + 1] the starts of column c are starts[first_start[c] : first_start[c + 1]]: none if each of its
              values has one row, as ids do
starts        where the rows of each value of a column start among the column's, and where the last ones end
created_at    int64 [n], microseconds since the epoch, UTC
expires_at    int64 [n] likewise (`expiry.py`); empty where no row expires

Byte strings lie one after another in an array of bytes, those of values packed (`strings.py`). So the number of arrays
does not depend on the number of columns, and their memory is that of what they hold. In files they are one array of
bytes and a small header that names them; loading maps that, and reads nothing but the header.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self, TypeAlias

import numpy as np
import orjson
from numpy.typing import NDArray

from apps.engine.array_files import map_array, save_array
from apps.engine.strings import PackedStrings, Starts, Strings, lengths_of, ranges
from apps.engine.vectors import Int64, equal_arrays

_HEADER, _BYTES = "columns.json", "columns.npy"
_FORMAT = 4
_ALIGNMENT = 64
_PACKED = ("text", "blocks", "prefixes", "ends")
_DTYPES = {name: np.dtype(name) for name in ("|u1", "<u2", "<u4", "<u8", "<i8")}

RowNumbers: TypeAlias = NDArray[np.unsignedinteger[Any]]


class Column(NamedTuple):
    """The values of a column are those from `first` up to `last`. `rows` are their rows, and `starts` [its values + 1]
    where those of each value start and, last, where they end; None where each value has one row."""

    first: int
    last: int
    rows: RowNumbers
    starts: Starts | None

    def start(self, value: int) -> int:
        """Where the rows of a value start; those of the value behind the last one would at the end."""
        return value - self.first if self.starts is None else int(self.starts[value - self.first])

    @property
    def all_starts(self) -> Starts:
        """[its values + 1]: the starts, whether they are kept or not."""
        return np.arange(self.last - self.first + 1) if self.starts is None else self.starts

    def rows_of(self, values: list[int]) -> RowNumbers:
        """The rows of some values."""
        if len(values) == 1:
            return self.rows[self.start(values[0]) : self.start(values[0] + 1)]
        which = np.array(values, np.int64) - self.first
        if self.starts is None or not len(which):
            return self.rows[which]
        begins = self.starts[which].astype(np.int64)
        return self.rows[ranges(begins, self.starts[which + 1].astype(np.int64) - begins)]


NO_COLUMN = Column(0, 0, np.empty(0, np.uint16), None)


@dataclass(frozen=True)
class Layout:
    """The arrays; see the head of the module."""

    names: Strings
    first_value: Starts
    values: PackedStrings
    first_row: Starts
    rows: RowNumbers
    first_start: Starts
    starts: Starts
    created_at: Int64
    expires_at: Int64

    def column(self, path: str) -> Column:
        """A column; NO_COLUMN if there is none."""
        at = self.names.find(path.encode(), 0, len(self.names))
        if at is None:
            return NO_COLUMN
        bounds = self.first_value, self.first_row, self.first_start
        first, last, row, end, start, stop = (int(array[place]) for array in bounds for place in (at, at + 1))
        return Column(first, last, self.rows[row:end], self.starts[start:stop] if start < stop else None)

    def row_counts(self) -> Int64:
        """int64 [values]: the number of rows of each value."""
        counts, sizes, starts = np.ones(len(self.values), np.int64), lengths_of(self.first_start), self.starts
        is_kept = sizes > 0
        places = ranges(self.first_start[:-1][is_kept].astype(np.int64), sizes[is_kept] - 1)
        counts[np.repeat(is_kept, lengths_of(self.first_value))] = starts[places + 1] - starts[places]
        return counts

    def _arrays(self) -> dict[str, NDArray[Any]]:
        found: dict[str, NDArray[Any]] = {}
        for name, part in vars(self).items():
            if isinstance(part, Strings):
                found |= {name: part.text, f"{name}_starts": part.starts}
            elif isinstance(part, PackedStrings):
                found |= {f"{name}_{one}": getattr(part, one) for one in _PACKED}
            else:
                found[name] = part
        return found

    @property
    def nbytes(self) -> int:
        """Memory or mapped files."""
        return sum(array.nbytes for array in self._arrays().values())

    def equals(self, other: "Layout") -> bool:
        """Whether all arrays are the same."""
        return equal_arrays(self._arrays(), other._arrays())

    def save(self, folder: Path) -> None:
        """Write two files into `folder`, which exists."""
        arrays = self._arrays()
        packed = np.zeros(sum(_align(array.nbytes) for array in arrays.values()), np.uint8)
        start = 0
        for array in arrays.values():
            packed[start : start + array.nbytes] = np.ascontiguousarray(array).view(np.uint8)
            start += _align(array.nbytes)
        held = {name: [array.dtype.str, len(array)] for name, array in arrays.items()}
        save_array(folder / _BYTES, packed)
        (folder / _HEADER).write_bytes(orjson.dumps({"format": _FORMAT, "arrays": held}))

    @classmethod
    def load(cls, folder: Path) -> Self:
        """What `save` wrote, mapped. Raises ValueError or OSError for files that do not fit each other; checksums,
        which are not kept here, tell whether the content is what was written."""
        packed = map_array(folder / _BYTES)
        if packed.dtype != np.uint8 or packed.ndim != 1:
            raise ValueError(f"{_BYTES} holds an array of another type or shape")
        try:
            header = orjson.loads((folder / _HEADER).read_bytes())
            if header["format"] != _FORMAT:
                raise ValueError(f"{_HEADER} is of format {header['format']!r}, not {_FORMAT}")
            found = dict(_unpack(packed, header["arrays"]))
            names = Strings(found.pop("names"), found.pop("names_starts"))
            values = PackedStrings(*(found.pop(f"values_{name}") for name in _PACKED))
            loaded = cls(names=names, values=values, **found)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{_HEADER} does not say what it should: {error!r}") from error
        loaded._check()
        return loaded

    def _check(self) -> None:
        """Raise ValueError where the arrays do not fit each other by their types, lengths and ends."""
        self.values.check()
        for starts, count, end in (
            (self.names.starts, len(self.names), len(self.names.text)),
            (self.first_value, len(self.names), len(self.values)),
            (self.first_row, len(self.names), len(self.rows)),
            (self.first_start, len(self.names), len(self.starts)),
        ):
            if starts.dtype.kind != "u" or len(starts) != count + 1 or starts[0] != 0 or starts[-1] != end:
                raise ValueError(f"the arrays in {_BYTES} do not fit each other")
        times = ((self.created_at, np.int64), (self.expires_at, np.int64))
        rows = (self.rows, row_type(len(self.created_at)))
        text = (self.names.text, np.uint8)
        if self.starts.dtype.kind != "u" or any(array.dtype != dtype for array, dtype in (rows, *times, text)):
            raise ValueError(f"an array in {_BYTES} is of another type")
        if len(self.expires_at) not in (0, len(self.created_at)):
            raise ValueError(f"the arrays in {_BYTES} do not fit each other")


def row_type(count: int) -> type[np.unsignedinteger[Any]]:
    """The type of the numbers of `count` rows."""
    return np.uint16 if count <= 1 << 16 else np.uint32


def _align(size: int) -> int:
    """`size` rounded up to a place where an array may start."""
    return -(-size // _ALIGNMENT) * _ALIGNMENT


def _unpack(packed: NDArray[np.uint8], held: dict[str, tuple[str, int]]) -> Iterator[tuple[str, NDArray[Any]]]:
    """Names and arrays of `packed`; `held` has the type and the length of each."""
    start = 0
    for name, (dtype, length) in held.items():
        size = length * _DTYPES[dtype].itemsize
        if length < 0 or start + size > len(packed):
            break
        yield name, packed[start : start + size].view(_DTYPES[dtype])
        start += _align(size)
    if start != len(packed):
        raise ValueError(f"{_BYTES} is not as long as {_HEADER} says")
