"""Dates and times as texts have them (RFC 3339), read to nanoseconds since the epoch, UTC.

A date alone is its midnight, UTC, as is a time without offset; seconds may be missing, and a space may stand for the T.
Digits past the ninth after the second are cut off. A leap second is no time here. Instants are within 2**68, so they
have exact keys (`values.py`).
"""

import re
from datetime import date

NANOSECONDS = 10**9
_DATE = r"([0-9]{4})-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])"
_TIME = r"([01][0-9]|2[0-3]):([0-5][0-9])(?::([0-5][0-9])(?:\.([0-9]+))?)?"
_OFFSET = r"[Zz]|([+-])([01][0-9]|2[0-3]):([0-5][0-9])"
_INSTANT = re.compile(f"{_DATE}(?:[Tt ]{_TIME}(?:{_OFFSET})?)?")
_EPOCH = date(1970, 1, 1).toordinal()


def instant_of(text: str) -> int | None:
    """The instant that `text` names; None where it is no date or time."""
    # Most strings are told by this alone.
    if len(text) < 10 or text[4] != "-" or text[7] != "-":
        return None
    found = _INSTANT.fullmatch(text)
    if found is None:
        return None
    year, month, day, hours, minutes, seconds, fraction, sign, offset_hours, offset_minutes = found.groups("")
    try:
        days = date(int(year), int(month), int(day)).toordinal() - _EPOCH
    except ValueError:
        return None
    offset = int(offset_hours or 0) * 60 + int(offset_minutes or 0)
    whole = (days * 24 + int(hours or 0)) * 60 + int(minutes or 0) - (-offset if sign == "-" else offset)
    return (whole * 60 + int(seconds or 0)) * NANOSECONDS + int(fraction[:9].ljust(9, "0"))
