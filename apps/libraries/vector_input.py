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
    vectors: Sequence[AnyVector], pointers: Sequence[str], field: str = "", *, dimension: int | None, metric: Metric
) -> Float32:
    """`vectors`, each as a request may bring it, as float32 [n, dimension].

    `dimension` None means that the first one decides. Raises Invalid with a fault at the pointer of each string that is
    no vector, else of each vector of another dimension, else of each that may not be stored under `metric`. `field`
    ends these pointers.
    """
    if not vectors:
        return np.empty((0, dimension or 0), np.float32)
    rows = _decode_all(vectors, pointers, field)
    rule = f"the library's dimension is {dimension}"
    if dimension is None:
        dimension, limit = len(rows[0]), settings.LIMITS.dimension
        rule = f"there must be 1 to {limit} (limit VECTORDB_MAX_DIMENSION)"
        impossible = [
            Fault(pointer + field, f"has {len(row)} components; {rule}")
            for row, pointer in zip(rows, pointers, strict=True)
            if not 1 <= len(row) <= limit
        ]
        if not 1 <= dimension <= limit:
            raise Invalid("A vector has the wrong dimension.", impossible)
        rule = f"the first vector has {dimension}"
    wrong = [
        Fault(pointer + field, f"has {len(row)} components, but {rule}")
        for row, pointer in zip(rows, pointers, strict=True)
        if len(row) != dimension
    ]
    if wrong:
        raise Invalid("A vector has the wrong dimension.", wrong)
    matrix = engine_vectors.to_float32(rows if len(rows) > 1 else rows[0]).reshape(len(rows), dimension)
    try:
        engine_vectors.check(matrix, metric)
    except InvalidVector:
        raise Invalid("A vector cannot be used.", _unusable(matrix, pointers, field, metric)) from None
    return matrix


def _decode_all(vectors: Sequence[AnyVector], pointers: Sequence[str], field: str) -> list[list[float] | Float32]:
    rows, faults = [], []
    for vector, pointer in zip(vectors, pointers, strict=True):
        if not isinstance(vector, str):
            rows.append(vector)
            continue
        try:
            rows.append(_decode(vector))
        except ValueError as error:
            faults.append(Fault(pointer + field, str(error)))
    if faults:
        raise Invalid("A vector cannot be read.", faults)
    return rows


def _decode(vector: str) -> Float32:
    """Raises ValueError for a string that is no vector."""
    try:
        data = base64.b64decode(vector, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("is a string, but not valid base64 (standard alphabet, with padding)") from None
    if len(data) % DTYPE.itemsize:
        raise ValueError(f"is base64 of {len(data)} bytes, which is no whole number of float32 values")
    return np.frombuffer(data, DTYPE)


def _unusable(matrix: Float32, pointers: Sequence[str], field: str, metric: Metric) -> list[Fault]:
    """The faults of the rows of `matrix` that may not be stored under `metric`."""
    faults = []
    for i in range(len(matrix)):
        try:
            engine_vectors.check(matrix[i : i + 1], metric)
        except InvalidVector as error:
            faults.append(Fault(pointers[i] + field, error.reason))
    return faults
