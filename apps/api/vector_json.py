"""From a body's bytes to a typed input, the vectors first: a kernel reads arrays of numbers some ten times as fast as a
JSON parser that makes an object of each, and the rest of the body is small.

A string takes the place of each array that was read, and the type `Vector` knows what it stands for. An array that was
no vector (a key of metadata may have the same name) is put back, and the rest is parsed again. The rest is counted
before it is parsed, since a parser takes up to some hundred bytes of memory for each byte.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import islice
from typing import NamedTuple, TypeVar

import numpy as np
import orjson
from django.conf import settings
from pydantic import ValidationError

from apps.api.bad_characters import problem_of_characters
from apps.api.json_values import has_more_values
from apps.engine import kernels
from apps.engine.vectors import Float32, to_float32
from apps.libraries.errors import Invalid
from apps.libraries.fields import Input, LargeBody

Body = TypeVar("Body", bound=Input)

# A smaller body is parsed whole. No limit of values is below what it may have.
_WORTH_BYTES = 1 << 14
# The shortest number with its comma.
_BYTES_PER_NUMBER = 2
# Leaves lines and columns as they are.
_TO_SPACES = bytes(byte if byte in b"\r\n" else ord(" ") for byte in range(256))


class _Array(NamedTuple):
    """An array of numbers: the places of its opening bracket and behind its closing one, and its values."""

    start: int
    end: int
    values: Float32


def validate(body: bytes, model: type[Body]) -> Body:
    """The JSON `body` as `model`. Raises pydantic's ValidationError; Problem or Invalid for bad characters, Invalid for
    too many values."""
    if len(body) < _WORTH_BYTES:
        try:
            return model.model_validate_json(body)
        except ValidationError as error:
            raise (_is_no_json(error) and problem_of_characters(body)) or error from None
    limit = settings.LIMITS.body_values
    # Each array is a value, so it is of no use to read more.
    arrays: Sequence[_Array] = list(_read_arrays(body, model.vector_key, limit + 1))
    if len(arrays) > limit:
        raise _too_many_values(limit)
    refusal: Exception | None = None
    while True:
        rest, context = _without(body, arrays), LargeBody([array.values for array in arrays])
        if has_more_values(rest, limit):
            raise refusal or _too_many_values(limit)
        try:
            parsed = model.model_validate_json(rest, context=context)
            refusal = None
        except ValidationError as error:
            if _is_no_json(error):
                raise problem_of_characters(rest) or _error_at_its_place(body, arrays, model) from None
            refusal = error
        if len(context.taken) < len(arrays):
            arrays = [arrays[i] for i in sorted(context.taken)]
        elif refusal is not None:
            raise refusal
        else:
            return parsed


def _too_many_values(limit: int) -> Invalid:
    return Invalid(
        f"The body has more than {limit} JSON values, numbers of vectors aside (limit VECTORDB_MAX_BODY_VALUES): send "
        "it in several requests."
    )


def _is_no_json(error: ValidationError) -> bool:
    return error.error_count() == 1 and error.errors(include_input=False)[0]["type"] == "json_invalid"


def _read_arrays(body: bytes, key: str, most: int) -> Iterator[_Array]:
    """The first arrays of numbers, at most `most`, that are values of `key` in the JSON `body`, at whatever depth; not
    those that are hard to read. Some may be in strings."""
    kernel = kernels.get("json_numbers")
    if kernel is None:
        pattern = rb'"%b"\s*:\s*(\[[-+.0-9eE,\s]++\])' % key.encode()
        for found in islice(re.finditer(pattern, body), most):
            # A longer one is no vector, and would take much memory.
            if found[1].count(b",") < settings.LIMITS.dimension:
                with suppress(orjson.JSONDecodeError):
                    yield _Array(*found.span(1), to_float32(orjson.loads(found[1])))
        return
    quoted_key = key.encode()
    values = np.empty(len(body) // _BYTES_PER_NUMBER, np.float32)
    places = np.empty((min(body.count(quoted_key), most), 3), np.int64)
    count = kernel.read_arrays(np.frombuffer(body, np.uint8), np.frombuffer(quoted_key, np.uint8), values, places)
    used = 0
    for start, end, length in places[:count].tolist():
        yield _Array(start, end, values[used : used + length])
        used += length


def _without(body: bytes, arrays: Sequence[_Array]) -> bytes:
    """The body with references in the place of arrays."""
    return _replace(body, arrays, [LargeBody.reference(i) for i in range(len(arrays))])


def _replace(body: bytes, arrays: Sequence[_Array], substitutes: Sequence[bytes]) -> bytes:
    pieces, end = [], 0
    for array, substitute in zip(arrays, substitutes, strict=True):
        pieces += [body[end : array.start], substitute]
        end = array.end
    pieces.append(body[end:])
    return b"".join(pieces)


def _error_at_its_place(body: bytes, arrays: Sequence[_Array], model: type[Input]) -> ValidationError:
    """The error of a body that is no JSON, which names the line and the column; arrays are not parsed for it."""
    blanks = [b"0" + body[array.start + 1 : array.end].translate(_TO_SPACES) for array in arrays]
    try:
        model.model_validate_json(_replace(body, arrays, blanks))
    except ValidationError as error:
        return error
    raise AssertionError("a body is JSON with its arrays, and not without them")
