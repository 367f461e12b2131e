"""From a body's bytes to a typed input, the vectors first: a kernel reads arrays of numbers some ten times as fast as a
JSON parser that makes an object of each, and the rest of the body is small.

A string takes the place of each array that the kernel has read, and the type `Vector` knows what it stands for. If some
array was no vector (a key of metadata may have the same name), or the rest is not valid, the whole body is parsed again
in the usual way, which also says what is wrong and where.
"""

import contextlib
from typing import Any, TypeVar

import numpy as np
from pydantic import ValidationError

from apps.api.bad_characters import problem_of_characters
from apps.engine import kernels
from apps.libraries.fields import Input, ReadVectors

Body = TypeVar("Body", bound=Input)

# For a smaller body the usual way is as quick.
_WORTH_BYTES = 1 << 14
# The shortest number with its comma.
_BYTES_PER_NUMBER = 2


def validate(body: bytes, model: type[Body]) -> Body:
    """The JSON `body` as `model`. Raises pydantic's ValidationError; Problem or Invalid for bad characters."""
    rest = body
    kernel = kernels.get("json_numbers") if len(body) >= _WORTH_BYTES else None
    if kernel and (read := _read_vectors(kernel, body, model.vector_key)):
        rest, vectors = read
        with contextlib.suppress(ValidationError):
            parsed = model.model_validate_json(rest, context=vectors)
            if vectors.all_taken():
                return parsed
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        if error.error_count() == 1 and error.errors(include_input=False)[0]["type"] == "json_invalid":
            raise problem_of_characters(rest) or error from None
        raise


def _read_vectors(kernel: Any, body: bytes, key: str) -> tuple[bytes, ReadVectors] | None:
    """The body with its vectors replaced, and the vectors; None where the kernel can read none."""
    text = np.frombuffer(body, np.uint8)
    values = np.empty(len(body) // _BYTES_PER_NUMBER, np.float32)
    quoted_key = key.encode()
    places = np.empty((body.count(quoted_key), 3), np.int64)
    count = kernel.read_arrays(text, np.frombuffer(quoted_key, np.uint8), values, places)
    if not count:
        return None
    pieces, rows, end, used = [], [], 0, 0
    for i, (start, behind, length) in enumerate(places[:count].tolist()):
        pieces += [body[end:start], ReadVectors.reference(i)]
        rows.append(values[used : used + length])
        end, used = behind, used + length
    pieces.append(body[end:])
    return b"".join(pieces), ReadVectors(rows)
