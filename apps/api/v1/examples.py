"""Bodies that work on a fresh server, where they stand alone; shown in the schema as they are.

A page of the browsable API shows them `fitted` to what is there: vectors of the library's dimension, ids that exist
where something is read, and the present values where something is changed.
"""

import base64
from typing import Any, TypeAlias

import numpy as np

from apps.engine.vectors import DTYPE, Float32
from apps.libraries import selectors
from apps.libraries.models import Chunk, Document, Library

Body: TypeAlias = dict[str, Any]

LIBRARY: Body = {"id": "notes", "name": "Notes", "dimension": 3, "metric": "cosine"}
LIBRARY_UPDATE: Body = {"name": "My notes", "description": "Things worth finding again"}
REINDEX: Body = {"index_type": "auto"}
REEMBED: Body = {"embedding": {"provider": "hashing", "model": "hashing-1024"}}
CHUNKS: Body = {
    "chunks": [
        {"id": "apple", "text": "An apple a day", "embedding": [0.9, 0.1, 0.0], "metadata": {"kind": "fruit"}},
        {"id": "rose", "text": "A rose is a rose", "embedding": [0.1, 0.9, 0.2], "metadata": {"kind": "flower"}},
    ],
    "mode": "upsert",
}
CHUNK_UPDATE: Body = {"metadata": {"kind": "fruit", "colour": "red"}}
CHUNKS_GET: Body = {"ids": ["apple", "rose"], "include": ["embedding"]}
CHUNKS_DELETE: Body = {"ids": ["rose"]}
CHUNKS_FACETS: Body = {"field": "topic"}
DOCUMENT: Body = {
    "id": "proverbs",
    "title": "Proverbs",
    "chunks": [
        {"id": "early-bird", "text": "The early bird catches the worm", "embedding": [0.2, 0.3, 0.9]},
        {"id": "rolling-stone", "text": "A rolling stone gathers no moss", "embedding": [0.5, 0.1, 0.7]},
    ],
}
TEXT_DOCUMENT: Body = {
    "title": "Sayings",
    "text": "A watched pot never boils. Many hands make light work.\n\nTime and tide wait for no man.",
    "chunking": {"max_tokens": 16, "overlap": 0},
}
DOCUMENTS: Body = {"documents": [DOCUMENT]}
DOCUMENT_UPDATE: Body = {"title": "English proverbs"}
QUERY: Body = {"vector": [1.0, 0.0, 0.0], "k": 3, "include": ["text", "metadata"]}
QUERIES: Body = {"queries": [{"vector": [1.0, 0.0, 0.0], "k": 1}, {"chunk_id": "apple", "k": 2}]}

# A longer vector is shown in base64.
_LONGEST_ARRAY = 16
# A document with more chunks is not put into the editor of PUT.
_MOST_CHUNKS = 10


def has_library(library_id: str | None) -> bool:
    """Whether there is such a library."""
    return library_id is not None and Library.objects.filter(public_id=library_id).exists()


def fitted(
    example: Body,
    *,
    method: str,
    data: Any,
    library_id: str | None = None,
    document_id: str | None = None,
    **others: str,
) -> Body:
    """`example`, a body for `method`, as it works on the page that shows `data`; the rest names what the path does."""
    if method == "PATCH":
        return {name: data.get(name, value) for name, value in example.items()}
    if library_id is None:
        return _without_ids(example) if has_library(example.get("id")) else example
    library = Library.objects.filter(public_id=library_id).first()
    if library is None:
        return example
    if method == "PUT":
        return _as_it_is(library_id, str(document_id), data)
    if example is QUERY or example is QUERIES:
        return _query(library, example)
    if example is CHUNKS_GET:
        return {**example, "ids": _first_ids(library) or example["ids"]}
    if example is CHUNKS or example is DOCUMENT or example is DOCUMENTS:
        return _write(library, example)
    return example


def _query(library: Library, example: Body) -> Body:
    """A query, or two, for chunks like the library's first ones; by vector where it has none."""
    spec: list[Body] = [{"chunk_id": chunk_id, "k": 5} for chunk_id in _first_ids(library)]
    if not spec:
        spec = [{"vector": _vector(library, [1.0, 0.0, 0.0], place), "k": 5} for place in range(2)]
    return {"queries": spec} if example is QUERIES else spec[0]


def _write(library: Library, example: Body) -> Body:
    """Chunks or documents with vectors of the library's dimension, and with ids unless documents have taken them."""
    if example is not CHUNKS:
        chunks = Chunk.objects.filter(library=library, public_id__in=[chunk["id"] for chunk in DOCUMENT["chunks"]])
        documents = Document.objects.filter(library=library, public_id=DOCUMENT["id"])
        if chunks.exists() or documents.exists():
            example = _without_ids(example)
    body: Body = _with_vectors(library, example)
    return body


def _with_vectors(library: Library, body: Any, place: int = 0) -> Any:
    if isinstance(body, list):
        return [_with_vectors(library, item, place) for place, item in enumerate(body)]
    if isinstance(body, dict):
        return {
            name: _vector(library, value, place) if name == "embedding" else _with_vectors(library, value, place)
            for name, value in body.items()
        }
    return body


def _vector(library: Library, vector: list[float], place: int) -> list[float] | str:
    """`vector` where the library takes it; otherwise one of the library's dimension, another for each place."""
    if library.dimension in (None, len(vector)):
        return vector
    made = [1.0 if i % 2 == place % 2 else 0.1 for i in range(library.dimension or 0)]
    return made if len(made) <= _LONGEST_ARRAY else _base64(np.array(made, DTYPE))


def _without_ids(body: Any) -> Any:
    if isinstance(body, list):
        return [_without_ids(item) for item in body]
    if isinstance(body, dict):
        return {name: _without_ids(value) for name, value in body.items() if name != "id"}
    return body


def _as_it_is(library_id: str, document_id: str, data: Any) -> Body:
    """The body of a PUT that would change nothing; without chunks, which is refused, where they are many."""
    page = selectors.chunks(library_id=library_id, limit=_MOST_CHUNKS, after=0, document_id=document_id, embedding=True)
    items = page.items if page.next_key is None else []
    chunks = [
        {"id": item["id"], "text": item["text"], "embedding": _shown(item["embedding"]), "metadata": item["metadata"]}
        for item in sorted(items, key=lambda item: item["position"] or 0)
    ]
    return {name: data[name] for name in ("title", "source", "metadata")} | {"chunks": chunks}


def _shown(vector: Float32 | None) -> Float32 | str | None:
    return _base64(vector) if vector is not None and len(vector) > _LONGEST_ARRAY else vector


def _base64(vector: Float32) -> str:
    return base64.b64encode(vector.tobytes()).decode()


def _first_ids(library: Library) -> list[str]:
    return list(Chunk.objects.filter(library=library).order_by("id").values_list("public_id", flat=True)[:2])
