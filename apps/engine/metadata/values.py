"""A value as a byte string, its *key*: a byte for the type, then the value.

What always holds: equal values, and no others, have equal keys; keys of strings are in the order of their code points,
keys of numbers in the order of the numbers, exactly. So a sorted list of keys answers `$eq`, ranges and prefixes.

type      behind the type's byte
null      nothing; so for false and true
number    the greatest double that is not above it, made sortable as an integer of 8 bytes; then the number minus that
          double in 2 bytes (it is zero but for integers beyond 2**53, and less than 2,048 for those of 64 bits); all
          without the zero bytes at the end
string    UTF-8, which sorts as the code points do
array     for each member the length of its key in 4 bytes and the key
opaque    nothing: arrays that have an object within, and arrays deeper than an operand can be. They equal nothing
object    nothing: objects, which equal nothing either

The types stand in this order, so scalars come first.
"""

import math
import struct
from typing import Any, TypeAlias

import numpy as np

from apps.engine.strings import Strings
from apps.engine.vectors import Float64

Scalar: TypeAlias = bool | int | float | str | None

MAX_DEPTH = 16  # of arrays within each other

NULL, FALSE, TRUE, NUMBER, STRING, ARRAY, OPAQUE, OBJECT = (bytes([i]) for i in range(8))
# Behind all keys, and behind all that begin with a given string: UTF-8 does not use this byte.
LAST = b"\xff"

_DOUBLE, _INTEGER, _NUMBER = struct.Struct(">d"), struct.Struct(">Q"), struct.Struct(">QH")
_SIGN, _ALL = 1 << 63, (1 << 64) - 1


def key_of(value: Any, depth: int = MAX_DEPTH) -> bytes:
    """The key of `value`, parsed JSON with integers of at most 64 bits; arrays may be lists or tuples."""
    if isinstance(value, str):
        return STRING + value.encode()
    if value is None:
        return NULL
    if isinstance(value, bool):
        return TRUE if value else FALSE
    if isinstance(value, int | float):
        return _key_of_number(value)
    if isinstance(value, dict):
        return OBJECT
    members = [key_of(member, depth - 1) for member in value] if depth else [OPAQUE]
    if OPAQUE in members or OBJECT in members:
        return OPAQUE
    return ARRAY + b"".join(len(member).to_bytes(4) + member for member in members)


def _key_of_number(value: int | float) -> bytes:
    # Minus zero plus zero is zero.
    below, rest = float(value) + 0.0, 0
    if isinstance(value, int) and (rest := value - int(below)) < 0:
        below = math.nextafter(below, -math.inf)
        rest = value - int(below)
    (bits,) = _INTEGER.unpack(_DOUBLE.pack(below))
    return NUMBER + _NUMBER.pack(bits ^ (_ALL if bits & _SIGN else _SIGN), rest).rstrip(b"\0")


def scalar_of(key: bytes) -> Scalar:
    """The scalar whose key is `key`. Whole numbers within 64 bits are integers, however they were written."""
    tag = key[:1]
    if tag == STRING:
        return key[1:].decode()
    if tag == NUMBER:
        return _number_of(key)
    return {NULL: None, FALSE: False, TRUE: True}[tag]


def _number_of(key: bytes) -> int | float:
    bits, rest = _NUMBER.unpack(key[len(NUMBER) :].ljust(_NUMBER.size, b"\0"))
    (below,) = _DOUBLE.unpack(_INTEGER.pack(bits ^ (_SIGN if bits & _SIGN else _ALL)))
    if rest or (below.is_integer() and -(2.0**63) <= below < 2.0**64):
        return int(below) + int(rest)
    return float(below)


def numbers_of(keys: Strings) -> Float64:
    """float64 [n]: the nearest doubles of the numbers that have `keys` [n]; NaN for keys of others."""
    starts, ends = keys.starts[:-1].astype(np.int64), keys.starts[1:].astype(np.int64)
    numbers = np.full(len(keys), np.nan)
    which = np.flatnonzero(keys.text[starts] == NUMBER[0])
    at = starts[which, np.newaxis] + np.arange(len(NUMBER), len(NUMBER) + _NUMBER.size)
    is_there = at < ends[which, np.newaxis]
    packed = np.where(is_there, keys.text[np.where(is_there, at, 0)], np.uint8(0))
    bits = np.ascontiguousarray(packed[:, : _DOUBLE.size]).view(">u8")[:, 0].astype(np.uint64)
    # As `_number_of` does, which says what the sign's bit means.
    bits ^= np.where(bits & np.uint64(_SIGN), np.uint64(_SIGN), np.uint64(_ALL))
    numbers[which] = bits.view(np.float64) + np.ascontiguousarray(packed[:, _DOUBLE.size :]).view(">u2")[:, 0]
    return numbers
