"""What may be stored: float32 rows of one dimension, finite, with components of bounded magnitude.

The bound keeps every float32 sum of squares finite up to dimension 65,536 (1e30 * 65536 < 3.4e38), so that no search
ever meets an infinity of its own making.
"""

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from apps.engine.errors import InvalidVector
from apps.engine.metrics import Metric

Float32: TypeAlias = NDArray[np.float32]
Float64: TypeAlias = NDArray[np.float64]
Int64: TypeAlias = NDArray[np.int64]
Mask: TypeAlias = NDArray[np.bool_]

MAX_COMPONENT = 1e15
# A float32 sum of squares below which no component is too large, however the sum was rounded.
_SURE_SQUARES = 0.9 * MAX_COMPONENT**2
DTYPE = np.dtype("<f4")


def to_float32(vectors: Any) -> Float32:
    """`vectors` as a float32 array of the same shape; a value too large for float32 becomes an infinity, which
    `check` refuses. The caller's array is never written to, and is returned itself where it is float32 already."""
    if type(vectors) is np.ndarray and vectors.dtype == np.float32:
        return vectors
    with np.errstate(over="ignore"):
        return np.asarray(vectors, dtype=np.float32)


def equal_arrays(some: Mapping[str, NDArray[Any]], others: Mapping[str, NDArray[Any]]) -> bool:
    """Whether arrays of the same names hold the same."""
    return all(np.array_equal(array, others[name]) for name, array in some.items())


def usable(vectors: Float32, metric: Metric) -> Mask:
    """Which rows of `vectors` [n, dimension] may be stored and searched under `metric`."""
    # NaN makes a row's maximum NaN, which no comparison holds for.
    largest = np.abs(vectors).max(axis=1, initial=0.0)
    fine: Mask = largest <= MAX_COMPONENT
    if metric is Metric.COSINE:
        fine &= largest > 0.0
    return fine


def check(vectors: Float32, metric: Metric) -> None:
    """Raise InvalidVector for the first row of `vectors` [n, dimension] that is not usable under `metric`."""
    if len(vectors) == 1 and 0.0 < np.vdot(vectors, vectors) <= _SURE_SQUARES:
        # The vector of a query, usually: no component is greater than the length.
        return
    fine = usable(vectors, metric)
    if fine.all():
        return
    row = int(np.argmin(fine))
    largest = np.abs(vectors[row]).max(initial=0.0)
    if largest == 0.0:
        raise InvalidVector(row, "is zero in float32, and a zero vector has no cosine")
    if np.isfinite(largest):
        raise InvalidVector(row, f"has a component beyond {MAX_COMPONENT:g} in magnitude")
    raise InvalidVector(row, "has a component that is NaN, infinite or beyond float32")
