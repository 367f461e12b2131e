"""From a body's bytes to a typed input, the vectors first: a kernel reads arrays of numbers and base64 strings some ten
times as fast as a JSON parser that makes an object of each, and the rest of the body is small.

A short string takes the place of each vector that was read, and the type `Vector` knows what it stands for. What was no
vector (a key of metadata may have the same name) is put back, and the rest is parsed again. The rest is counted before
it is parsed, since a parser takes up to some hundred bytes of memory for each byte.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import compress, islice
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
_WORTH_BYTES = 1 << 11
# The shortest number with its comma.
_BYTES_PER_NUMBER = 2
# Leaves lines and columns as they are.
_TO_SPACES = bytes(byte if byte in b"\r\n" else ord(" ") for byte in range(256))


class _Read(NamedTuple):
    """An array of numbers or a base64 string: the places of what opens it and behind what closes it, and its values."""

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
    # Each vector is a value, so it is of no use to read more.
    read: Sequence[_Read] = list(_read_vectors(body, model.vector_key, limit + 1))
    if len(read) > limit:
        raise _too_many_values(limit)
    refusal: Exception | None = None
    while True:
        context = LargeBody([vector.values for vector in read])
        rest = _replace(body, read, context.references)
        if has_more_values(rest, limit):
            raise refusal or _too_many_values(limit)
        try:
            parsed = model.model_validate_json(rest, context=context)
            refusal = None
        except ValidationError as error:
            if _is_no_json(error):
                raise problem_of_characters(rest) or _error_at_its_place(body, read, model) from None
            refusal = error
        if not all(context.taken):
            read = list(compress(read, context.taken))
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


def _read_vectors(body: bytes, key: str, most: int) -> Iterator[_Read]:
    """The first arrays of numbers and base64 strings, at most `most`, that are values of `key` in the JSON `body`, at
    whatever depth; not those that are hard to read, and without a kernel no strings. Some may be in strings."""
    kernel = kernels.get("json_vectors")
    if kernel is None:
        pattern = rb'"%b"\s*:\s*(\[[-+.0-9eE,\s]++\])' % key.encode()
        for found in islice(re.finditer(pattern, body), most):
            # A longer one is no vector, and would take much memory.
            if found[1].count(b",") < settings.LIMITS.dimension:
                with suppress(orjson.JSONDecodeError):
                    yield _Read(*found.span(1), to_float32(orjson.loads(found[1])))
        return
    quoted_key = key.encode()
    values = np.empty(len(body) // _BYTES_PER_NUMBER, np.float32)
    # Room that is not used takes no memory.
    places = np.empty((min(len(body) // len(quoted_key), most), 3), np.int64)
    count = kernel.read_vectors(np.frombuffer(body, np.uint8), np.frombuffer(quoted_key, np.uint8), values, places)
    used = 0
    for start, end, length in places[:count].tolist():
        yield _Read(start, end, values[used : used + length])
        used += length


def _replace(body: bytes, read: Sequence[_Read], substitutes: Sequence[bytes]) -> bytes:
    pieces, end = [], 0
    for vector, substitute in zip(read, substitutes, strict=True):
        pieces += [body[end : vector.start], substitute]
        end = vector.end
    pieces.append(body[end:])
    return b"".join(pieces)


def _error_at_its_place(body: bytes, read: Sequence[_Read], model: type[Input]) -> ValidationError:
    """The error of a body that is no JSON, which names the line and the column; vectors are not parsed for it."""
    blanks = [b"0" + body[vector.start + 1 : vector.end].translate(_TO_SPACES) for vector in read]
    try:
        model.model_validate_json(_replace(body, read, blanks))
    except ValidationError as error:
        return error
    raise AssertionError("a body is JSON with its vectors, and not without them")
