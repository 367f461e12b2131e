"""Vectors on their way: base64 of little-endian float32, made from whatever holds numbers, numpy or not."""

from __future__ import annotations

import sys
from array import array
from binascii import a2b_base64, b2a_base64
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from vectordb_client.errors import InvalidArgument

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Vector = NDArray[np.float32] | array[float]

_BASE64 = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/="

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


def to_base64(vector: VectorLike | None) -> bytes | None:
    """The vector as the server takes it, None for none; a str is base64 already. Raise InvalidArgument."""
    if vector is None:
        return None
    if not isinstance(vector, str):
        return b2a_base64(to_bytes(vector), newline=False)
    encoded = vector.encode(errors="replace")
    if encoded.translate(None, _BASE64):
        raise InvalidArgument(f"a vector is a list of numbers, an array or base64, not {_shortened(vector)}")
    return encoded


def encode(vector: VectorLike) -> str:
    """A vector as the server takes it, as text."""
    encoded = to_base64(vector)
    assert encoded is not None
    return encoded.decode()


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


def rows_of(vectors: Any) -> Matrix | Listed:
    """The vectors in a matrix or list. Raise InvalidArgument for an array of other dimensions."""
    shape = shape_of(vectors)
    # A column of a DataFrame is an array of lists.
    if shape is None or (len(shape) == 1 and getattr(getattr(vectors, "dtype", None), "kind", "O") not in "biuf"):
        return Listed(vectors.to_list() if hasattr(vectors, "to_list") else vectors)
    if len(shape) != 2:
        raise InvalidArgument(
            f"takes a matrix with a vector in each row, not an array of {len(shape)} dimensions; of one vector, a list"
        )
    return Matrix(vectors, *shape)


class Listed(list[VectorLike]):
    """Vectors one by one, each of which may be None."""

    def base64(self, some: slice) -> list[bytes | None]:
        """Some of them, as `to_base64`."""
        return [to_base64(one) for one in self[some]]


class Matrix:
    """The rows of a matrix, which is converted once where its numbers are not float32."""

    def __init__(self, vectors: Any, rows: int, dimension: int) -> None:
        self._raw = memoryview(to_bytes(vectors) if rows else b"").cast("B")
        self._rows, self._size = range(rows), 4 * dimension

    def __len__(self) -> int:
        return len(self._rows)

    def base64(self, some: slice) -> list[bytes]:
        """Some of them, as `to_base64`."""
        size, raw = self._size, self._raw
        return [b2a_base64(raw[row * size : row * size + size], newline=False) for row in self._rows[some]]


def _to_cpu(tensor: Any) -> Any:
    for step in ("detach", "cpu"):
        if hasattr(tensor, step):
            tensor = getattr(tensor, step)()
    return tensor


def _from_numbers(numbers: Iterable[float]) -> bytes:
    try:
        components = array("f", numbers)
    except (TypeError, OverflowError) as error:
        raise InvalidArgument(
            f"a vector is a list of numbers or an array, not {_shortened(numbers)}: {error}"
        ) from None
    if sys.byteorder == "big":
        components.byteswap()
    return components.tobytes()


def _shortened(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
