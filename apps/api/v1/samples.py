"""Bodies that work on a fresh server, where they stand alone; shown in the schema as they are.

A page of the browsable API shows them `fitted` to what is there: vectors of the library's dimension, ids that exist
where something is read, and the present values where something is changed.
"""

import base64
from collections.abc import Sequence
from typing import Any

import numpy as np
from django.db.models import OuterRef, Subquery

from apps.engine.vectors import DTYPE
from apps.libraries.models import Chunk, Document, Embedding, Library
from apps.libraries.selectors import vector_array

LIBRARY = {"id": "notes", "name": "Notes", "dimension": 3, "metric": "cosine"}
LIBRARY_UPDATE = {"name": "My notes", "description": "Things worth finding again"}
CHUNKS = {
    "chunks": [
        {"id": "apple", "text": "An apple a day", "embedding": [0.9, 0.1, 0.0], "metadata": {"kind": "fruit"}},
        {"id": "rose", "text": "A rose is a rose", "embedding": [0.1, 0.9, 0.2], "metadata": {"kind": "flower"}},
    ],
    "mode": "upsert",
}
CHUNK_UPDATE = {"metadata": {"kind": "fruit", "colour": "red"}}
CHUNKS_GET = {"ids": ["apple", "rose"], "include": ["embedding"]}
CHUNKS_DELETE = {"ids": ["rose"]}
DOCUMENT = {
    "id": "proverbs",
    "title": "Proverbs",
    "chunks": [
        {"id": "early-bird", "text": "The early bird catches the worm", "embedding": [0.2, 0.3, 0.9]},
        {"id": "rolling-stone", "text": "A rolling stone gathers no moss", "embedding": [0.5, 0.1, 0.7]},
    ],
}
DOCUMENTS = {"documents": [DOCUMENT]}
DOCUMENT_UPDATE = {"title": "English proverbs"}
QUERY = {"vector": [1.0, 0.0, 0.0], "k": 3, "include": ["text", "metadata"]}
QUERIES = {"queries": [{"vector": [1.0, 0.0, 0.0], "k": 1}, {"chunk_id": "apple", "k": 2}]}

# A longer vector is shown in base64.
_LONGEST_ARRAY = 16
# A document with more chunks is not put into the editor of PUT.
_MOST_CHUNKS = 10


def has_library(library_id: str | None) -> bool:
    """Whether there is such a library."""
    return library_id is not None and Library.objects.filter(public_id=library_id).exists()


def fitted(
    example: dict[str, Any],
    *,
    method: str,
    data: Any,
    library_id: str | None = None,
    document_id: str | None = None,
    chunk_id: str | None = None,
) -> dict[str, Any]:
    """`example`, a body for `method` on the page that shows `data`, so that it works there."""
    if method == "PATCH":
        return {name: data.get(name, value) for name, value in example.items()}
    if library_id is None:
        return _without_ids(example) if has_library(example.get("id")) else example
    library = Library.objects.filter(public_id=library_id).first()
    if library is None:
        return example
    if method == "PUT":
        return _as_it_is(library, document_id, data)
    if "vector" in example or "queries" in example:
        return _query(library, example)
    if example is CHUNKS_GET:
        return example | {"ids": _first_ids(library) or example["ids"]}
    if "chunks" in example or "documents" in example:
        return _write(library, example)
    return example


def _query(library: Library, example: dict[str, Any]) -> dict[str, Any]:
    """A query, or several, for chunks like the library's first ones; by vector where it has none."""
    ids = _first_ids(library)
    if not ids:
        vectors = [{"vector": _vector(library, place, query.get("vector", []))} for place, query in enumerate(queries)]
    return example


def _first_ids(library: Library) -> list[str]:
    return list(Chunk.objects.filter(library=library).order_by("id").values_list("public_id", flat=True)[:2])
