"""Vectors on their way: base64 of little-endian float32, made from whatever holds numbers, numpy or not."""

from __future__ import annotations

import sys
from array import array
from binascii import a2b_base64, b2a_base64
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from vectordb_client.errors import InvalidArgument

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Vector = NDArray[np.float32] | array[float]

# A sequence of numbers, or what offers a buffer or an `__array__` of them.
VectorLike = Any


def to_bytes(vector: VectorLike) -> bytes | memoryview:
    """The components as little-endian float32; raise InvalidArgument where they are no numbers."""
    if isinstance(vector, (list, tuple)):
        return _from_numbers(vector)
    if isinstance(vector, (str, bytes, bytearray, dict)):
        raise InvalidArgument(f"a vector is a list of numbers or an array, not {_shortened(vector)}")
    if hasattr(vector, "__array__") and not hasattr(vector, "tobytes"):
        vector = _to_cpu(vector).__array__()  # a tensor, a column of a DataFrame
    try:
        view = memoryview(vector)
    except (TypeError, ValueError, BufferError):
        return _from_numbers(vector)
    if view.format == "f" and view.c_contiguous and view.nbytes and sys.byteorder == "little":
        return view.cast("B")
    if not hasattr(vector, "astype"):
        return _from_numbers(view.tolist())
    if vector.dtype.kind not in "fiu":
        raise InvalidArgument(f"a vector has numbers, not values of type {vector.dtype}")
    return bytes(vector.astype("<f4").tobytes())


def to_base64(vector: VectorLike) -> bytes:
    """The vector as the server takes it; a str is base64 already."""
    return vector.encode() if isinstance(vector, str) else b2a_base64(to_bytes(vector), newline=False)


def encode(vector: VectorLike) -> str:
    """As `to_base64`, as text."""
    return to_base64(vector).decode()


def decode(embedding: str | list[float] | None) -> Vector | None:
    """A vector of an answer: an array of numpy where that is installed, read-only, else of the standard library."""
    if embedding is None:
        return None
    raw = a2b_base64(embedding) if isinstance(embedding, str) else _from_numbers(embedding)
    try:
        import numpy as np
    except ImportError:
        vector = array("f", raw)
        if sys.byteorder == "big":
            vector.byteswap()
        return vector
    return np.frombuffer(raw, "<f4")


def shape_of(vectors: Any) -> tuple[int, ...] | None:
    """The shape of an array or buffer, or None of anything else."""
    shape = getattr(vectors, "shape", None)
    return tuple(shape) if shape is not None else None


def rows_of(vectors: Any) -> Sequence[VectorLike]:
    """The vectors in a matrix or list; those of a matrix in base64, made when they are asked for."""
    shape = shape_of(vectors)
    # A column of a DataFrame is an array of lists.
    if shape is None or (len(shape) == 1 and getattr(getattr(vectors, "dtype", None), "kind", "") == "O"):
        return list(vectors)
    if len(shape) != 2:
        raise InvalidArgument(
            f"vectors: takes a matrix with a row for each chunk, not an array of {len(shape)} dimensions"
        )
    rows, dimension = shape
    raw = memoryview(to_bytes(vectors)).cast("B") if rows else b""
    size = 4 * dimension
    return _Matrix(memoryview(raw), rows, size)


class _Matrix(Sequence[str]):
    """The rows of a matrix, in base64. Each has `size` bytes of `raw`, little-endian float32."""

    def __init__(self, raw: memoryview, rows: int, size: int) -> None:
        self._raw, self._rows, self._size = raw, range(rows), size

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, row: Any) -> Any:
        if isinstance(row, slice):
            return [self[one] for one in self._rows[row]]
        begin = self._rows[row] * self._size
        return b2a_base64(self._raw[begin : begin + self._size], newline=False).decode()


def _to_cpu(tensor: Any) -> Any:
    for step in ("detach", "cpu"):
        if hasattr(tensor, step):
            tensor = getattr(tensor, step)()
    return tensor


def _from_numbers(numbers: Iterable[float]) -> bytes:
    try:
        components = array("f", numbers)
    except TypeError as error:
        raise InvalidArgument(
            f"a vector is a list of numbers or an array, not {_shortened(numbers)}: {error}"
        ) from None
    if sys.byteorder == "big":
        components.byteswap()
    return components.tobytes()


def _shortened(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
