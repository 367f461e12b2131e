"""The flat arrays of a block of rows. A column holds a range of the values, and a value a range of the rows.

names         the names of the columns, ascending; the members of a field's arrays are a column of their own
first_value   [columns + 1] the values of column c are first_value[c] to first_value[c + 1]
values        the keys of the values (`values.py`), ascending in each column
first_row     [values + 1] the rows that have value v are rows[first_row[v] : first_row[v + 1]], ascending
rows          uint16, or uint32 where there are more than 65,536 rows
created_at    int64 [n], microseconds since the epoch, UTC
expires_at    int64 [n] likewise (`expiry.py`); empty where no row expires

Byte strings lie one after another in an array of bytes, beside the places where they start. So the number of arrays
does not depend on the number of columns, and their memory is that of what they hold. In files they are one array of
bytes and a small header that names them; loading maps that, and reads nothing but the header.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeAlias

import numpy as np
import orjson
from numpy.typing import NDArray

from apps.engine.array_files import map_array, save_array
from apps.engine.strings import Starts, Strings
from apps.engine.vectors import Int64, equal_arrays

_HEADER, _BYTES = "columns.json", "columns.npy"
_FORMAT = 3
_ALIGNMENT = 64
_DTYPES = {name: np.dtype(name) for name in ("|u1", "<u2", "<u4", "<u8", "<i8")}

RowNumbers: TypeAlias = NDArray[np.unsignedinteger[Any]]


# The range of a column that is not there.
NO_COLUMN = (0, 0)


@dataclass(frozen=True)
class Layout:
    """The arrays; see the head of the module."""

    names: Strings
    first_value: Starts
    values: Strings
    first_row: Starts
    rows: RowNumbers
    created_at: Int64
    expires_at: Int64

    def column(self, path: str) -> tuple[int, int]:
        """The range of the values of a column; empty if there is none."""
        at = self.names.find(path.encode(), 0, len(self.names))
        return NO_COLUMN if at is None else (int(self.first_value[at]), int(self.first_value[at + 1]))

    def _arrays(self) -> dict[str, NDArray[Any]]:
        found: dict[str, NDArray[Any]] = {}
        for name, part in vars(self).items():
            if isinstance(part, Strings):
                found |= {name: part.text, f"{name}_starts": part.starts}
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
            names, values = (Strings(found.pop(name), found.pop(f"{name}_starts")) for name in ("names", "values"))
            loaded = cls(names=names, values=values, **found)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{_HEADER} does not say what it should: {error!r}") from error
        loaded._check()
        return loaded

    def _check(self) -> None:
        """Raise ValueError where the arrays do not fit each other by their types, lengths and ends."""
        ranges = (
            (self.names.starts, len(self.names), len(self.names.text)),
            (self.first_value, len(self.names), len(self.values)),
            (self.values.starts, len(self.values), len(self.values.text)),
            (self.first_row, len(self.values), len(self.rows)),
        )
        for starts, count, end in ranges:
            if starts.dtype.kind != "u" or len(starts) != count + 1 or starts[0] != 0 or starts[-1] != end:
                raise ValueError(f"the arrays in {_BYTES} do not fit each other")
        times = ((self.created_at, np.int64), (self.expires_at, np.int64))
        rows = (self.rows, row_type(len(self.created_at)))
        texts = ((self.names.text, np.uint8), (self.values.text, np.uint8))
        if any(array.dtype != dtype for array, dtype in (rows, *times, *texts)):
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
