"""Parts of the bodies that several calls send."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from vectordb_client.errors import InvalidArgument
from vectordb_client.filters import FilterLike, to_dict


def shown(include: Sequence[str] | None, empty: Any = None) -> dict[str, Any]:
    """What is shown of chunks; vectors in base64, which is exact and half as long."""
    if include is None:
        return {}
    if isinstance(include, str):
        raise InvalidArgument(f"include: takes a list such as ['text', 'metadata'], not {include!r}")
    names = list(include)
    body: dict[str, Any] = {"include": names if names or empty is None else empty}
    return {**body, "vectors": "base64"} if "embedding" in names else body


def to_filter(filter: FilterLike | None) -> dict[str, Any] | None:
    """A filter as JSON has it."""
    return None if filter is None else to_dict(filter)


def to_list(values: Sequence[str] | None) -> list[str] | None:
    """Texts as a list; raise InvalidArgument for a text alone."""
    if isinstance(values, str):
        raise InvalidArgument(f"takes a list of texts, not the text {values!r}")
    return None if values is None else list(values)


def parts(items: list[Any], size: int) -> Iterator[list[Any]]:
    """The items in parts of at most `size`."""
    for begin in range(0, len(items), size):
        yield items[begin : begin + size]
