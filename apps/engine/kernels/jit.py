"""How kernels are compiled: decorators, and short names for the types of arguments."""

from typing import Any

from numba import njit, types


def kernel(*signatures: Any) -> Any:
    """A function that Python calls, compiled for each of `signatures`. It keeps neither the interpreter's lock nor
    numba's checks for divisions by zero."""
    return njit(list(signatures), cache=True, nogil=True, error_model="numpy")


# A function that becomes part of those that call it.
inline = njit(nogil=True, forceinline=True, error_model="numpy")


def read_only(dtype: types.Type, dimensions: int) -> types.Array:
    """The type of a C-contiguous array that is only read; arrays that may be written pass for it too."""
    return types.Array(dtype, dimensions, "C", readonly=True)


INT, REAL = types.int64, types.float64
VECTORS, FLOATS, REALS = read_only(types.float32, 2), read_only(types.float32, 1), read_only(REAL, 1)
INTS, INTS_32, BYTES, FLAGS = (read_only(dtype, 1) for dtype in (INT, types.int32, types.uint8, types.boolean))
# Arrays that are filled: numbers [m], and positions and scores [m, k].
COUNTS, ANSWERS = INT[::1], (INT[:, ::1], types.float32[:, ::1])
