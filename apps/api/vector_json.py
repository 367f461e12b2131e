"""From a body's bytes to a typed input, the vectors first: a kernel reads arrays of numbers some ten times as fast as a
JSON parser that makes an object of each, and what is left of the body is small.

Each array that the kernel has read is replaced by a string that stands for it, which the type `Vector` knows. It may
have been no vector (a key of metadata may have the same name), or the rest may be wrong: then some array is not asked
for, and the whole body is parsed again as it came, in the usual way, which also says what is wrong and where.
"""

from typing import Any, TypeVar

import numpy as np
from pydantic import ValidationError

from apps.engine import kernels
from apps.libraries.fields import Input, ReadVectors

Body = TypeVar("Body", bound=Input)

# Below this the usual way is as quick.
_WORTH_BYTES = 1 << 14
# The shortest number with its comma.
_BYTES_PER_NUMBER = 2


def validate(body: bytes, model: type[Body]) -> Body:
    """The JSON `body` as `model`; raises pydantic's ValidationError."""
    if len(body) >= _WORTH_BYTES and (kernel := kernels.get("json_numbers")):
        read = _read_vectors(kernel, body, model.vector_key)
        if read is not None:
            rest, vectors = read
            try:
                parsed = model.model_validate_json(rest, context=vectors)
            except ValidationError:
                pass
            else:
                if vectors.all_taken():
                    return parsed
    return model.model_validate_json(body)


def _read_vectors(kernel: Any, body: bytes, key: str) -> tuple[bytes, ReadVectors] | None:
    """The body with its vectors replaced, and the vectors; None where it has none that can be read so."""
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
