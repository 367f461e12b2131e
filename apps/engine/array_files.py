"""Arrays in files of the `.npy` format, read by mapping them.

Each mapping takes a file descriptor and an entry of the kernel's table, of which a process has some 65,000. Small files
are read instead: a process may have the segments of thousands of small libraries open.
"""

import math
import os
import re
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

# A smaller file would not save memory by being shared.
MAPPED_BYTES = 64 << 10
# A smaller array is no burden to memory.
SCRATCH_BYTES = 16 << 20

_HEADER = re.compile(rb"\{'descr': '([^']+)', 'fortran_order': False, 'shape': \(([\d, ]*)\), \} *\n")


def save_array(path: Path, array: NDArray[Any]) -> None:
    """Write `array` to `path`; raises OSError where that fails, with the system's reason.

    numpy's own function reports a full disk only by the number of elements written.
    """
    array = np.ascontiguousarray(array)
    with open(path, "wb") as file:
        np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(array))
        file.write(array.reshape(-1).view(np.uint8).data)


def scratch_array(folder: Path, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
    """An array to be filled, in a file of `folder` that has no name and is gone with it: where memory is short, the
    system writes its pages to the disk. A small one is in memory, and any one where files cannot be allocated (macOS).
    Raises OSError where the disk has no room."""
    size = np.dtype(dtype).itemsize * math.prod(shape)
    # A page without room on the disk would end the process that writes to it.
    if size < SCRATCH_BYTES or not hasattr(os, "posix_fallocate"):
        return np.empty(shape, dtype)
    with tempfile.TemporaryFile(dir=folder) as file:
        os.posix_fallocate(file.fileno(), 0, size)
        return np.asarray(np.memmap(file, dtype, "r+", shape=shape))


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
