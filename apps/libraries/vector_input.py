"""Vectors on their way in: from what a request holds to checked float32 rows."""

import base64
import binascii
from collections.abc import Sequence

import numpy as np
from django.conf import settings

from apps.engine import vectors as engine_vectors
from apps.engine.errors import InvalidVector
from apps.engine.metrics import Metric
from apps.engine.vectors import DTYPE, Float32
from apps.libraries.errors import Fault, Invalid
from apps.libraries.fields import AnyVector


def parse_vectors(
    vectors: Sequence[AnyVector], pointers: Sequence[str], *, dimension: int | None, metric: Metric
) -> Float32:
    """`vectors`, each as a request may bring it, as float32 [n, dimension].

    `dimension` None means that the first one decides. Raises Invalid with a fault at the pointer of each vector of
    another dimension, or at that of the first one that may not be stored under `metric`.
    """
    rows = [_decode(vector, pointer) for vector, pointer in zip(vectors, pointers, strict=True)]
    if not rows:
        return np.empty((0, dimension or 0), np.float32)
    rule = f"the library's dimension is {dimension}"
    if dimension is None:
        dimension, limit = len(rows[0]), settings.LIMITS.dimension
        if not 1 <= dimension <= limit:
            detail = f"has {dimension} components; there must be 1 to {limit} (limit VECTORDB_MAX_DIMENSION)"
            raise Invalid.at(pointers[0], detail)
        rule = f"the first vector has {dimension}"
    wrong = [
        Fault(pointer, f"has {len(row)} components, but {rule}")
        for row, pointer in zip(rows, pointers, strict=True)
        if len(row) != dimension
    ]
    if wrong:
        raise Invalid("A vector has the wrong dimension.", wrong)
    matrix = engine_vectors.to_float32(rows if len(rows) > 1 else rows[0]).reshape(len(rows), dimension)
    try:
        engine_vectors.check(matrix, metric)
    except InvalidVector as error:
        raise Invalid.at(pointers[error.row], error.reason) from None
    return matrix


def _decode(vector: AnyVector, pointer: str) -> list[float] | Float32:
    if not isinstance(vector, str):
        return vector
    try:
        data = base64.b64decode(vector, validate=True)
    except (binascii.Error, ValueError):
        raise Invalid.at(pointer, "is a string, but not valid base64 (standard alphabet, with padding)") from None
    if len(data) % DTYPE.itemsize:
        raise Invalid.at(pointer, f"is base64 of {len(data)} bytes, which is no whole number of float32 values")
    return np.frombuffer(data, DTYPE)
