"""Metadata that a library stores and returns, but keeps out of its index: no filter, facet or boost looks at it.

It is taken out of a row's metadata when the row is read for a view. So views and index files of different settings are
different ones, and their identities say so.
"""

from collections.abc import Sequence
from functools import lru_cache

import orjson

from apps.engine.metadata.filters import Filter, conditions
from apps.engine.metadata.paths import DOCUMENT, field_of, split_path
from apps.libraries.errors import Invalid, pointer

Paths = tuple[str, ...]


def check_filter(unindexed: Paths, filter: Filter, at: str = "/filter") -> None:
    """Raise Invalid where a filter, whose pointer is `at`, looks at what is not indexed."""
    for condition in conditions(filter) if unindexed else ():
        check_field(unindexed, field_of(condition.path), at + pointer(condition.at))


def check_field(unindexed: Paths, field: str, at: str) -> None:
    """Raise Invalid at the pointer `at` where a field, by its name, is not indexed."""
    for path in unindexed:
        if field == path or field.startswith(f"{path}."):
            raise Invalid.at(
                at,
                f"looks at {field}, and this library does not index {path}: PATCH the library with an `unindexed` "
                "that leaves it out, and its index is made again with it",
            )


def indexed_metadata(text: str, unindexed: Paths) -> str:
    """The metadata of a chunk, as JSON text, without what is not indexed."""
    return _without(text, _keys(unindexed, False)) if unindexed else text


def indexed_document(text: str, unindexed: Paths) -> str:
    """The same of a document."""
    return _without(text, _keys(unindexed, True)) if unindexed else text


@lru_cache
def _keys(unindexed: Paths, of_document: bool) -> list[list[str]]:
    """The keys of those paths that lead into the metadata of documents, or of chunks."""
    paths = [path for path in unindexed if path.startswith(DOCUMENT) == of_document]
    return [split_path(path.removeprefix(DOCUMENT) if of_document else path) for path in paths]


def _without(text: str, paths: Sequence[Sequence[str]]) -> str:
    # A key that is written with an escape has a backslash.
    if "\\" not in text and not any(f'"{keys[0]}"' in text for keys in paths):
        return text
    try:
        metadata = orjson.loads(text)
    except orjson.JSONDecodeError:
        return text
    for *above, last in paths:
        found = metadata
        for key in above:
            found = found.get(key) if isinstance(found, dict) else None
        if isinstance(found, dict):
            found.pop(last, None)
    return orjson.dumps(metadata).decode()
