"""How many values a JSON text has, found before any of them is built."""

import re
from itertools import islice

import numpy as np

# A string, whole (or to the end, where its quote is missing), or what begins a value: each but the first of an array or
# an object follows a comma.
_TOKEN = re.compile(rb'"(?:[^"\\]++|\\.)*+"?|,|\[|\{', re.DOTALL)
_QUOTE = b'"'


def has_more_values(text: bytes, limit: int) -> bool:
    """Whether the JSON `text` has more than `limit` strings, numbers, arrays, objects and so on; keys do not count, and
    empty arrays and objects count twice. `text` need not be valid."""
    # Strings may hold what looks like a value, so this is an upper bound, and nearly always enough.
    if len(text) <= limit:
        return False
    codes = np.frombuffer(text, np.uint8)
    # With that bit set, "[" is "{".
    if np.count_nonzero(codes == ord(",")) + np.count_nonzero((codes | 0x20) == ord("{")) < limit:
        return False
    begins = (token for token in _TOKEN.finditer(text) if token[0][:1] != _QUOTE)
    return next(islice(begins, limit - 1, None), None) is not None
