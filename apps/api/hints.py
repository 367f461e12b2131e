"""What somebody probably meant: the known name beside an unknown field, and the path beside one that leads nowhere."""

import re
from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from functools import lru_cache
from typing import Any, get_args, get_origin
from urllib.parse import quote

from django.urls import Resolver404, resolve

from apps.libraries.fields import Input

# What other servers and their clients call these fields. The first that the place has is meant.
_FIELDS: dict[str, tuple[str, ...]] = {
    "k": ("limit",),
    "top_k": ("k", "limit"),
    "topk": ("k", "limit"),
    "n_results": ("k", "limit"),
    "limit": ("k",),
    "page_size": ("limit",),
    "chunk_id": ("ids",),
    "chunk_ids": ("ids",),
    "id": ("ids", "library"),
    "collection": ("library",),
    "name": ("library",),
    "size": ("k", "max_tokens"),
    "query": ("text",),
    "q": ("text",),
    "query_text": ("text",),
    "content": ("text",),
    "page_content": ("text",),
    "document": ("text",),
    "query_vector": ("vector",),
    "query_embedding": ("vector",),
    "embedding": ("vector",),
    "vector": ("embedding",),
    "values": ("embedding", "vector"),
    "model": ("embedding",),
    "where": ("filter",),
    "filters": ("filter",),
    "payload": ("metadata",),
    "meta": ("metadata",),
    "with_payload": ("include",),
    "with_vectors": ("include",),
    "include_metadata": ("include",),
    "min_score": ("score_threshold",),
    "threshold": ("score_threshold",),
    "search_type": ("mode",),
    "distance": ("metric",),
    "space": ("metric",),
    "dim": ("dimension",),
    "chunk_size": ("max_tokens",),
    "chunk_overlap": ("overlap",),
    "points": ("chunks",),
    "records": ("chunks",),
    "vectors": ("chunks",),
    "items": ("chunks", "documents", "queries"),
    "url": ("source",),
    "sort": ("order_by",),
    "sort_by": ("order_by",),
    "order": ("order_by", "direction"),
    "ttl": ("ttl_seconds", "expires_at"),
    "ttl_seconds": ("expires_at",),
    "expires": ("expires_at",),
    "set": ("metadata",),
    "mode": ("metadata_mode",),
}
_WORDS = {
    "collections": "libraries",
    "collection": "libraries",
    "indexes": "libraries",
    "points": "chunks",
    "vectors": "chunks",
    "records": "chunks",
    "search": "query",
    "upsert": "chunks",
    "add": "chunks",
}
_ROUTES = (
    "libraries",
    "documents",
    "chunks",
    "query",
    "keys",
    "rotate",
    "search-token",
    "stats",
    "reindex",
    "reembed",
    "batch",
    "list",
    "fields",
    "facets",
)
# A word, an id, a word, and the rest, which may be an id with slashes.
_PARTS = re.compile(r"/*(?:api(?:/+|$))?(?:v[12](?:/+|$))?([^/]*)/*([^/]*)/*([^/]*)/?(.*)")
# A longer name is no slip of the pen, and comparing it would take its time.
_LONGEST = 40


def known_fields(model: str, location: Iterable[str | int]) -> list[str]:
    """The fields of the object at `location` in a body of the request model of that name; none where it is no such."""
    return _fields_at(model, tuple(step for step in location if isinstance(step, str)))


@lru_cache
def _fields_at(model: str, location: tuple[str, ...]) -> list[str]:
    kinds = _models_named(model)
    for step in location:
        kinds = [
            inner
            for kind in kinds
            if step in kind.model_fields
            for inner in _models_in(kind.model_fields[step].annotation)
        ]
    return list(dict.fromkeys(field.alias or name for kind in kinds for name, field in kind.model_fields.items()))


def meant_field(name: str, known: list[str]) -> str | None:
    """The one of `known` names that `name` probably stands for."""
    if len(name) > _LONGEST:
        return None
    for other in _FIELDS.get(name.lower(), ()):
        if other in known:
            return other
    return next(iter(get_close_matches(name.lower(), known, n=1)), None)


def wrapping_field(model: str, fields: frozenset[str] = frozenset()) -> str | None:
    """The field of a request model that is a list of objects which may have all these `fields`; None if there is none.
    A body that has them itself is one item of that list."""
    for kind in _models_named(model):
        for name, field in kind.model_fields.items():
            is_list = field.is_required() and get_origin(field.annotation) is list
            if is_list and any(fields <= item.model_fields.keys() for item in _models_in(field.annotation)):
                return name
    return None


def meant_path(path: str) -> str | None:
    """A path that exists beside `path`, which does not: other words, no slash at the end, the API's prefix."""
    if len(path) > 20 * _LONGEST or (match := _PARTS.fullmatch(path)) is None:
        return None
    parts = [part for part in match.groups() if part]
    # Ids stand at the second and the fourth place.
    for i in range(0, len(parts), 2):
        close = get_close_matches(parts[i][:_LONGEST].lower(), _ROUTES, n=1)
        parts[i] = _WORDS.get(parts[i].lower(), close[0] if close else parts[i])
    found = "/".join(["/api/v1", *(quote(part, safe="") for part in parts)])
    try:
        resolve("/".join(["/api/v1", *parts]))
    except Resolver404:
        return None
    return found if parts and found != path else None


def _models_in(annotation: Any) -> Iterator[type[Input]]:
    if isinstance(annotation, type) and issubclass(annotation, Input):
        yield annotation
    for part in get_args(annotation):
        yield from _models_in(part)


def _models_named(name: str) -> list[type[Input]]:
    return [kind for kind in _subclasses(Input) if kind.__name__ == name]


def _subclasses(kind: type[Input]) -> Iterator[type[Input]]:
    for below in kind.__subclasses__():
        yield below
        yield from _subclasses(below)
