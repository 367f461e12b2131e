"""How large an answer may be: counted while it is made, so that what is refused for its size was never held."""

from typing import Any

import orjson
from django.conf import settings

from apps.libraries.errors import Invalid


class AnswerSize:
    """The bytes of one answer so far."""

    def __init__(self) -> None:
        self._left: int = settings.LIMITS.answer_bytes

    def add(self, size: int) -> None:
        """Raise Invalid if `size` bytes more are too many."""
        self._left -= size
        if self._left < 0:
            raise Invalid(
                f"The answer would have more than {settings.LIMITS.answer_bytes} bytes (limit "
                "VECTORDB_MAX_ANSWER_BYTES): ask for less at once, or for fewer fields in include."
            )

    def counted(self, item: dict[str, Any]) -> dict[str, Any]:
        """An item of a list, whose JSON is added; raises Invalid."""
        self.add(len(orjson.dumps(item, option=orjson.OPT_SERIALIZE_NUMPY)))
        return item
