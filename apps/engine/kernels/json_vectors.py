"""Reads the vectors of JSON text straight into float32: arrays of numbers, some ten times as fast as by way of Python's
floats, and base64 strings, some ten times as fast as by way of Python's strings.

A number becomes float32(float64(text)), as every JSON parser and numpy would have it. Up to 19 digits make an integer;
where it is below 2**53 and the power of ten at most 22, one division or product gives the correctly rounded float64
(Clinger, How to read floating point numbers accurately, 1990). Otherwise three roundings, of the integer, the power and
their product, err by less than 2**-50 of the value; if both ends of that interval round to the same float32, so does
the correctly rounded float64 between them. What is neither, or no number by RFC 8259, is not read: the caller takes
another way.
"""

from string import ascii_lowercase, ascii_uppercase, digits

import numpy as np
from numba import types

from apps.engine.kernels import jit

_EXACT_POWER, _LARGEST_POWER = 22, 60
_POWERS = np.array([float(f"1e{power}") for power in range(_LARGEST_POWER + 1)])

_QUOTE, _BACKSLASH, _COLON, _OPEN, _CLOSE, _COMMA = 34, 92, 58, 91, 93, 44
_MINUS, _PLUS, _POINT, _ZERO, _NINE = 45, 43, 46, 48, 57
_SMALL_E, _LARGE_E = 101, 69

# The six bits that each character of base64 stands for; negative for all others.
_PAD = ord("=")
_SIX_BITS = np.full(256, -1, np.int64)
_SIX_BITS[np.frombuffer(f"{ascii_uppercase}{ascii_lowercase}{digits}+/".encode(), np.uint8)] = np.arange(64)


@jit.kernel(types.int64(jit.BYTES, jit.INT))
def _after_space(text, at):
    while at < len(text) and (text[at] == 32 or 9 <= text[at] <= 10 or text[at] == 13):
        at += 1
    return at


@jit.kernel(types.UniTuple(jit.INT, 2)(jit.BYTES, jit.INT, types.float32[::1], jit.INT))
def read_array(text, at, out, start):
    """Read the numbers of the array that opens before `at` into `out` from `start` on.

    Return their number and the place behind the closing bracket; -1 and anything for what is not read.
    """
    count = 0
    end = len(text)
    while True:
        at = _after_space(text, at)
        negative = at < end and text[at] == _MINUS
        if negative:
            at += 1
        mantissa, digits, power = np.uint64(0), 0, 0
        first = at
        while at < end and _ZERO <= text[at] <= _NINE:
            mantissa = mantissa * np.uint64(10) + np.uint64(text[at] - _ZERO)
            digits += mantissa != 0
            at += 1
        if at == first or (at - first > 1 and text[first] == _ZERO):
            return -1, at
        if at < end and text[at] == _POINT:
            at += 1
            first = at
            while at < end and _ZERO <= text[at] <= _NINE:
                mantissa = mantissa * np.uint64(10) + np.uint64(text[at] - _ZERO)
                digits += mantissa != 0
                at += 1
            if at == first:
                return -1, at
            power = first - at
        if digits > 19:
            return -1, at
        if at < end and (text[at] == _SMALL_E or text[at] == _LARGE_E):
            at += 1
            falls = at < end and text[at] == _MINUS
            if falls or (at < end and text[at] == _PLUS):
                at += 1
            first, exponent = at, 0
            while at < end and _ZERO <= text[at] <= _NINE and at - first < 4:
                exponent = exponent * 10 + np.int64(text[at] - _ZERO)
                at += 1
            if at == first:
                return -1, at
            power += -exponent if falls else exponent
        if mantissa == 0:
            power = 0
        if abs(power) > _LARGEST_POWER:
            return -1, at
        value = np.float64(mantissa)
        value = value / _POWERS[-power] if power < 0 else value * _POWERS[power]
        number = np.float32(value)
        is_exact = mantissa >> np.uint64(53) == 0 and abs(power) <= _EXACT_POWER
        if not is_exact and (
            np.float32(value * (1 - 2.0**-49)) != number or np.float32(value * (1 + 2.0**-49)) != number
        ):
            return -1, at
        if start + count >= len(out):
            return -1, at
        out[start + count] = -number if negative else number
        count += 1
        at = _after_space(text, at)
        if at >= end:
            return -1, at
        if text[at] == _CLOSE:
            return count, at + 1
        if text[at] != _COMMA:
            return -1, at
        at += 1


@jit.kernel(types.UniTuple(jit.INT, 2)(jit.BYTES, jit.INT, types.float32[::1], jit.INT))
def read_base64(text, at, out, start):
    """Read the little-endian float32 values of the base64 string that opens before `at` into `out` from `start` on.

    As `read_array`. The string is of the standard alphabet, with padding, and has no escapes.
    """
    data = out.view(np.uint8)
    first, end = 4 * start, len(text)
    last = first
    while at + 4 < end and last + 3 <= len(data):
        bits = (
            _SIX_BITS[text[at]] << 18
            | _SIX_BITS[text[at + 1]] << 12
            | _SIX_BITS[text[at + 2]] << 6
            | _SIX_BITS[text[at + 3]]
        )
        if bits < 0:
            break
        data[last], data[last + 1], data[last + 2] = bits >> 16, bits >> 8 & 255, bits & 255
        last += 3
        at += 4
    if at + 4 < end and text[at + 3] == _PAD:
        # The last characters, three or two, stand for two bytes or one.
        left = 1 if text[at + 2] == _PAD else 2
        bits = _SIX_BITS[text[at]] << 10 | _SIX_BITS[text[at + 1]] << 4
        if left == 2:
            bits |= _SIX_BITS[text[at + 2]] >> 2
        if bits < 0 or last + left > len(data):
            return -1, at
        data[last] = bits >> 8
        if left == 2:
            data[last + 1] = bits & 255
        last += left
        at += 4
    count = last - first
    if at >= end or text[at] != _QUOTE or count % 4:
        return -1, at
    return count // 4, at + 1


@jit.kernel(types.int64(jit.BYTES, jit.BYTES, types.float32[::1], types.int64[:, ::1]))
def read_vectors(text, key, out, found):
    """Read every array of numbers and every base64 string that is the value of `key` in the JSON `text`, at whatever
    depth.

    `out` takes the numbers of all, one vector after the other. `found` [m, 3] takes for each vector the place of its
    opening bracket or quote, the place behind the closing one, and the number of its numbers. Return the number of
    vectors read; those that cannot be read are passed over. `text` need not be valid elsewhere.
    """
    vectors, numbers, at, end, length = 0, 0, 0, len(text), len(key)
    while at < end and vectors < len(found):
        if text[at] != _QUOTE:
            at += 1
            continue
        # A string, from its opening quote; the key's bytes within a string would need an unescaped quote before them.
        at += 1
        first = at
        while at < end and text[at] != _QUOTE:
            at += 2 if text[at] == _BACKSLASH else 1
        if at - first != length:
            at += 1
            continue
        same = True
        for i in range(length):
            if text[first + i] != key[i]:
                same = False
                break
        at += 1
        if not same:
            continue
        after = _after_space(text, at)
        if after >= end or text[after] != _COLON:
            continue
        after = _after_space(text, after + 1)
        count, behind = -1, after
        if after < end and text[after] == _OPEN:
            count, behind = read_array(text, after + 1, out, numbers)
        elif after < end and text[after] == _QUOTE:
            count, behind = read_base64(text, after + 1, out, numbers)
        if count > 0:
            found[vectors, 0], found[vectors, 1], found[vectors, 2] = after, behind, count
            vectors += 1
            numbers += count
            at = behind
    return vectors
