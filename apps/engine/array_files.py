"""Arrays in files of the `.npy` format, read by mapping them.

Each mapping takes a file descriptor and an entry of the kernel's table, of which a process has some 65,000. Small files
are read instead: a process may have the segments of thousands of small libraries open.
"""

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

# A smaller file would not save memory by being shared.
MAPPED_BYTES = 64 << 10

_HEADER = re.compile(rb"\{'descr': '([^']+)', 'fortran_order': False, 'shape': \(([\d, ]*)\), \} *\n")


def save_array(path: Path, array: NDArray[Any]) -> None:
    """Write `array` to `path`; raises OSError where that fails, with the system's reason.

    numpy's own function reports a full disk only by the number of elements written.
    """
    array = np.ascontiguousarray(array)
    with open(path, "wb") as file:
        np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(array))
        file.write(array.reshape(-1).view(np.uint8).data)


def map_array(path: Path) -> NDArray[Any]:
    """The array in `path`, as `save_array` writes it, mapped and read-only; raises ValueError or OSError for another
    file. A small file is read.

    numpy's own function reads the header by Python's `ast`, which in Python 3.11 fails now and then where two
    threads do so at once <https://github.com/python/cpython/issues/106905>.
    """
    with open(path, "rb") as file:
        start = file.read(10)
        found = _HEADER.fullmatch(file.read(int.from_bytes(start[8:], "little")))
        if start[:8] != b"\x93NUMPY\x01\x00" or not found:
            raise ValueError(f"{path.name} is no array")
        dtype, shape = np.dtype(found[1].decode()), tuple(map(int, found[2].replace(b",", b" ").split()))
        size = dtype.itemsize * math.prod(shape)
        if size < MAPPED_BYTES:
            return np.frombuffer(file.read(size), dtype).reshape(shape)
    return np.asarray(np.memmap(path, dtype, "r", len(start) + len(found[0]), shape))
