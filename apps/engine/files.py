"""Arrays in files of the `.npy` format, read by mapping them."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


def save_array(path: Path, array: NDArray[Any]) -> None:
    """Write `array` to `path`."""
    with open(path, "wb") as file:
        np.lib.format.write_array(file, np.ascontiguousarray(array), allow_pickle=False)


def map_array(path: Path) -> NDArray[Any]:
    """The array in `path`, mapped and read-only; raises ValueError or OSError for what is none."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except EOFError as error:
        raise ValueError(f"{path.name} is empty") from error
    return np.asarray(array)
