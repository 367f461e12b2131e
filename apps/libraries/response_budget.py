"""The largest size of an answer, checked while the answer is made: one that is too large is never held whole."""

from typing import Any

import orjson
from django.conf import settings

from apps.libraries.errors import Invalid


class ResponseBudget:
    """The bytes that one answer may still have."""

    def __init__(self) -> None:
        self._left: int = settings.LIMITS.answer_bytes

    def spend(self, size: int) -> None:
        """Take `size` bytes; raise Invalid if fewer are left."""
        self._left -= size
        if self._left < 0:
            raise Invalid(
                f"The answer would have more than {settings.LIMITS.answer_bytes} bytes (limit "
                "VECTORDB_MAX_ANSWER_BYTES): ask for less at once, or for fewer fields in include."
            )

    def charge(self, item: dict[str, Any]) -> dict[str, Any]:
        """Take the bytes that `item` has as JSON, and return `item`; raise Invalid if fewer are left."""
        self.spend(len(orjson.dumps(item, option=orjson.OPT_SERIALIZE_NUMPY)))
        return item
