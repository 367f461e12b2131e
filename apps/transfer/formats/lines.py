"""Lines of JSON as rows, which the formats `jsonl` and `zip` share."""

from collections.abc import Iterator
from typing import IO, Any, Final

import orjson
from django.conf import settings

_LIMITS = settings.LIMITS
# A character of text may take six bytes in JSON, a number of a vector some 25.
LONGEST_LINE: Final = 6 * (2 * _LIMITS.text_bytes + _LIMITS.metadata_bytes) + 25 * _LIMITS.dimension + (64 << 10)


def read_lines(file: IO[bytes]) -> Iterator[bytes | None]:
    """The lines that are left of `file`, with their ends; None for one that is longer than any row."""
    while line := file.readline(LONGEST_LINE + 1):
        if len(line) <= LONGEST_LINE:
            yield line
            continue
        while line and not line.endswith(b"\n"):
            line = file.readline(1 << 20)
        yield None


def parse_object(line: bytes | None) -> dict[str, Any]:
    """The object that a line is. Raises ValueError with what is wrong with it."""
    if line is None:
        raise ValueError(f"is longer than {LONGEST_LINE} bytes, which no row needs")
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise ValueError(f"is no valid JSON at column {error.colno}: {error.msg}") from None
    if not isinstance(value, dict):
        raise ValueError("must be an object")
    return value


def dump_lines(rows: Iterator[dict[str, Any]]) -> bytes:
    """A line of JSON for each row."""
    return b"".join([orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) for row in rows])
