"""Arrays in files of the `.npy` format, read by mapping them."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


def save_array(path: Path, array: NDArray[Any]) -> None:
    """Write `array` to `path`; raises OSError where that fails, with the system's reason.

    numpy's own function reports a full disk only by the number of elements written.
    """
    array = np.ascontiguousarray(array)
    with open(path, "wb") as file:
        np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(array))
        file.write(array.reshape(-1).view(np.uint8).data)


def map_array(path: Path) -> NDArray[Any]:
    """The array in `path`, mapped and read-only; raises ValueError or OSError for another file."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except EOFError as error:
        raise ValueError(f"{path.name} is empty") from error
    return np.asarray(array)
