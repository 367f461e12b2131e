"""Writes of chunks: upsert, insert, update, delete; a request is applied whole or not at all."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from django.db import transaction

from apps.engine.vectors import Float32
from apps.libraries import selectors
from apps.libraries.errors import Conflict, EmbeddingRequired, Fault, Invalid, NotFound, TextChanged
from apps.libraries.inputs import ChunkInput, ChunksWrite, ChunkUpdate, DocumentChunk, named_models
from apps.libraries.models import KnownModel, Library
from apps.libraries.services import sql
from apps.libraries.services.sql import ChunkRow, StoredChunk
from apps.libraries.vector_input import parse_vectors


@dataclass(frozen=True)
class Written:
    """The outcome of a write of chunks: their ids in the order given, and how many were new and how many not."""

    ids: list[str]
    created: int
    updated: int


@transaction.atomic
def write_chunks(*, library_id: str, write: ChunksWrite, model: KnownModel | None = None) -> Written:
    """Upsert, insert or update chunks; `model` makes their vectors, if any does.

    Raises NotFound (library; in mode update also a chunk), Conflict (insert of an id in use), Invalid.
    """
    library = sql.lock_library(library_id)
    sql.bind_model(library, model, named_models(write))
    ids = [chunk.id for chunk in write.chunks]
    check_distinct(ids, [f"/chunks/{i}/id" for i in range(len(ids))])
    stored = sql.stored_chunks(library, ids)
    if write.mode == "insert" and stored:
        faults = [Fault(f"/chunks/{i}/id", "is in use") for i, chunk_id in enumerate(ids) if chunk_id in stored]
        raise Conflict("A chunk has an id that is in use in this library.", faults)
    if write.mode == "update" and len(stored) < len(ids):
        faults = [
            Fault(f"/chunks/{i}/id", "names no chunk of this library")
            for i, chunk_id in enumerate(ids)
            if chunk_id not in stored
        ]
        raise NotFound("A chunk to be updated does not exist.", faults)
    documents = _documents(library, write.chunks)
    if write.mode == "update":
        _update(library, [(stored[chunk.id], chunk, f"/chunks/{i}") for i, chunk in enumerate(write.chunks)], documents)
    else:
        _replace(library, write.chunks, stored, documents)
    return Written(ids, created=len(ids) - len(stored), updated=len(stored))


@transaction.atomic
def update_chunk(
    *,
    library_id: str,
    chunk_id: str,
    update: ChunkUpdate,
    if_match: str | None = None,
    model: KnownModel | None = None,
) -> dict[str, Any]:
    """Change the named fields of one chunk, and show it; `model` makes its vector, if any does. Raises NotFound,
    PreconditionFailed, Invalid."""
    library = sql.lock_library(library_id)
    sql.bind_model(library, model, {})
    selectors.check_match(if_match, lambda: selectors.etag(selectors.chunk(library_id=library_id, chunk_id=chunk_id)))
    stored = sql.stored_chunks(library, [chunk_id])
    if not stored:
        raise selectors.no_chunk(chunk_id)
    documents = _documents(library, [update], pointer="")
    _update(library, [(stored[chunk_id], update, "")], documents)
    return selectors.chunk(library_id=library_id, chunk_id=chunk_id)


@transaction.atomic
def delete_chunk(*, library_id: str, chunk_id: str, if_match: str | None = None) -> None:
    """Delete one chunk. Raises NotFound, PreconditionFailed."""
    library = sql.lock_library(library_id)
    selectors.check_match(if_match, lambda: selectors.etag(selectors.chunk(library_id=library_id, chunk_id=chunk_id)))
    stored = sql.stored_chunks(library, [chunk_id])
    if not stored:
        raise selectors.no_chunk(chunk_id)
    sql.delete_chunks([stored[chunk_id].key])


@transaction.atomic
def delete_chunks(*, library_id: str, ids: Sequence[str]) -> int:
    """Delete those of the chunks that exist; answers how many that were. Raises NotFound for the library."""
    library = sql.lock_library(library_id)
    check_distinct(ids, [f"/ids/{i}" for i in range(len(ids))])
    stored = sql.stored_chunks(library, ids)
    return sql.delete_chunks([chunk.key for chunk in stored.values()])


def check_distinct(ids: Sequence[str], pointers: Sequence[str]) -> None:
    """Raise Invalid with a fault for each of `ids` that came before in the same request."""
    seen: set[str] = set()
    repeated = []
    for item, pointer in zip(ids, pointers, strict=True):
        if item in seen:
            repeated.append(Fault(pointer, f"repeats the id {item!r}"))
        seen.add(item)
    if repeated:
        raise Invalid("An id comes twice in one request.", repeated)


def new_vectors(
    library: Library, chunks: Sequence[ChunkInput | DocumentChunk | ChunkUpdate], pointers: Sequence[str]
) -> Float32:
    """The checked vectors [n, dimension] of chunks that each must bring one; fixes the library's dimension.

    `pointers` are those of the chunks. Raises Invalid, and EmbeddingRequired for a chunk without a vector; TextChanged
    where the library has a model that would have made one.
    """
    missing = [
        f"{pointer}/embedding" for chunk, pointer in zip(chunks, pointers, strict=True) if not chunk.is_set("embedding")
    ]
    if missing and library.embedding is not None:
        raise TextChanged("The library has changed while texts were embedded; send them again.")
    if missing:
        raise EmbeddingRequired(
            "A chunk has no embedding, and this library has no embedding model to make one.",
            [Fault(pointer, "is required: this library has no embedding model; send a vector") for pointer in missing],
        )
    vectors = parse_vectors(
        [chunk.embedding for chunk in chunks],
        [f"{pointer}/embedding" for pointer in pointers],
        dimension=library.dimension,
        metric=sql.metric_of(library),
    )
    sql.fix_dimension(library, vectors)
    return vectors


def _documents(
    library: Library, chunks: Sequence[ChunkInput | ChunkUpdate], pointer: str | None = None
) -> dict[str, int]:
    """Keys of the documents that chunks name; raises Invalid where one does not exist."""
    named = [chunk.document_id for chunk in chunks]
    keys = sql.document_keys(library, [document for document in named if document is not None])
    unknown = [
        Fault(f"/chunks/{i}/document_id" if pointer is None else f"{pointer}/document_id", "names no document")
        for i, document in enumerate(named)
        if document is not None and document not in keys
    ]
    if unknown:
        raise Invalid("A chunk names a document that does not exist in this library.", unknown)
    return keys


class _Places:
    """Hands out positions: a chunk that joins a document comes after its last chunk."""

    def __init__(self, documents: dict[str, int]) -> None:
        self._documents = documents
        self._next: dict[int, int] = {}

    def of(self, chunk: ChunkInput | ChunkUpdate, stored: StoredChunk | None) -> tuple[int | None, int | None]:
        """The document key and position of a chunk after its write."""
        if not chunk.is_set("document_id"):
            return (stored.document_key, stored.position) if stored else (None, None)
        if chunk.document_id is None:
            return None, None
        key = self._documents[chunk.document_id]
        if stored and stored.document_key == key:
            return key, stored.position
        if key not in self._next:
            self._next.update(sql.next_positions([key]))
        self._next[key] += 1
        return key, self._next[key] - 1


def _replace(
    library: Library, chunks: Sequence[ChunkInput], stored: dict[str, StoredChunk], documents: dict[str, int]
) -> None:
    """Write chunks whole: text, metadata and vector; an absent `document_id` keeps the document."""
    vectors = new_vectors(library, chunks, [f"/chunks/{i}" for i in range(len(chunks))])
    places = _Places(documents)
    new: list[ChunkRow] = []
    old: list[tuple[int, ChunkRow]] = []
    is_new = np.zeros(len(chunks), np.bool_)
    for i, chunk in enumerate(chunks):
        before = stored.get(chunk.id)
        document_key, position = places.of(chunk, before)
        row = ChunkRow(chunk.id, document_key, chunk.text, sql.json_text(chunk.metadata), position)
        if before is None:
            is_new[i] = True
            new.append(row)
        else:
            old.append((before.key, row))
    sql.insert_chunks(library, new, vectors[is_new])
    sql.update_chunks(old)
    sql.put_vectors(library, [key for key, _ in old], vectors[~is_new])


def _update(
    library: Library,
    changes: Sequence[tuple[StoredChunk, ChunkInput | ChunkUpdate, str]],
    documents: dict[str, int],
) -> None:
    """Change the named fields of stored chunks; each comes with its pointer."""
    embedded = [
        (before, chunk, pointer)
        for before, chunk, pointer in changes
        if chunk.is_set("embedding") or (chunk.is_set("text") and chunk.text != before.text)
    ]
    vectors = new_vectors(library, [chunk for _, chunk, _ in embedded], [pointer for _, _, pointer in embedded])
    places = _Places(documents)
    changed = []
    for before, chunk, _ in changes:
        document_key, position = places.of(chunk, before)
        text = chunk.text if chunk.is_set("text") else before.text
        metadata = sql.json_text(chunk.metadata) if chunk.is_set("metadata") else before.metadata
        changed.append((before.key, ChunkRow(before.public_id, document_key, text, metadata, position)))
    sql.update_chunks(changed)
    sql.put_vectors(library, [before.key for before, _, _ in embedded], vectors)
