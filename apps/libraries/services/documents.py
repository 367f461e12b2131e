"""Writes of documents with their chunks."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from django.conf import settings
from django.db import transaction

from apps.engine.vectors import Float32
from apps.libraries import selectors
from apps.libraries.errors import Conflict, Fault, Invalid, NotFound
from apps.libraries.ids import INVISIBLE, is_visible
from apps.libraries.inputs import DocumentChunk, DocumentInput, DocumentsWrite, DocumentUpdate, named_models
from apps.libraries.models import Document, KnownModel, Library
from apps.libraries.services import sql
from apps.libraries.services.chunks import check_distinct, new_vectors
from apps.libraries.services.sql import ChunkRow, StoredChunk


@dataclass(frozen=True)
class Replaced:
    """The outcome of a PUT: what happened to each chunk, the chunks' ids in order, and whether the document is new."""

    created: int
    updated: int
    unchanged: int
    deleted: int
    chunk_ids: list[str]
    is_new: bool


@transaction.atomic
def create_document(*, library_id: str, document: DocumentInput, model: KnownModel | None = None) -> dict[str, Any]:
    """Make a document with its chunks; `model` makes their vectors, if any does. Raises NotFound (library),
    Conflict (an id in use), Invalid."""
    library = sql.lock_library(library_id)
    sql.bind_model(library, model, named_models(document))
    return _create(library, [document], pointers=[""])[0]


@transaction.atomic
def create_documents(
    *, library_id: str, write: DocumentsWrite, model: KnownModel | None = None
) -> list[dict[str, Any]]:
    """Make documents with their chunks, all or none. Raises as `create_document`."""
    library = sql.lock_library(library_id)
    sql.bind_model(library, model, named_models(write))
    documents = write.documents
    total, limit = sum(len(document.chunks) for document in documents), settings.LIMITS.chunks_per_write
    if total > limit:
        detail = f"must have at most {limit} chunks in all, not {total} (limit VECTORDB_MAX_CHUNKS_PER_WRITE)"
        raise Invalid.at("/documents", detail)
    return _create(library, documents, pointers=[f"/documents/{i}" for i in range(len(documents))])


@transaction.atomic
def replace_document(
    *,
    library_id: str,
    document_id: str,
    document: DocumentInput,
    if_match: str | None = None,
    model: KnownModel | None = None,
) -> Replaced:
    """Make the document exactly this.

    Chunks match by id, those without an id by equal text, metadata and vector. A matching chunk whose content is equal
    is kept; its position may change. Raises NotFound (library, or a document that cannot be made by this id), Conflict
    (a chunk's id in use elsewhere), Invalid.
    """
    library = sql.lock_library(library_id)
    sql.bind_model(library, model, named_models(document))
    if document.is_set("id") and document.id != document_id:
        raise Invalid.at("/id", f"must be {document_id!r}, as in the path, or be left out")
    _check_match(if_match, library_id, document_id)
    row = Document.objects.filter(library=library, public_id=document_id).first()
    is_new = row is None
    if row is None:
        if not is_visible(document_id):
            raise NotFound(f"There is no document {document_id!r}, and there can be none: an id {INVISIBLE}.")
        row = Document(library=library, public_id=document_id)
    row.title, row.source, row.metadata = document.title, document.source, document.metadata
    row.save()

    pointers = [f"/chunks/{i}" for i in range(len(document.chunks))]
    check_distinct([chunk.id for chunk in document.chunks], [f"{at}/id" for at in pointers])
    before = sql.chunks_of_document(row.pk)
    _check_unused(library, document.chunks, pointers, document_key=row.pk)
    vectors = new_vectors(library, document.chunks, pointers)
    plan = _diff(library, document.chunks, vectors, before)

    sql.delete_chunks([chunk.key for chunk in plan.gone])
    created = [i for i, match in enumerate(plan.matches) if match is None]
    sql.insert_chunks(library, [_row(document.chunks[i], row.pk, i) for i in created], vectors[created])
    updated = [(i, match.key) for i, match in enumerate(plan.matches) if match is not None and not plan.equal[i]]
    sql.update_chunks([(key, _row(document.chunks[i], row.pk, i)) for i, key in updated])
    sql.put_vectors(library, [key for _, key in updated], vectors[[i for i, _ in updated]])
    kept = [(i, match) for i, match in enumerate(plan.matches) if match is not None and plan.equal[i]]
    sql.move_chunks([(match.key, i) for i, match in kept if match.position != i])
    return Replaced(
        created=len(created),
        updated=len(updated),
        unchanged=len(kept),
        deleted=len(plan.gone),
        chunk_ids=[
            chunk.id if match is None else match.public_id
            for chunk, match in zip(document.chunks, plan.matches, strict=True)
        ],
        is_new=is_new,
    )


@transaction.atomic
def update_document(
    *, library_id: str, document_id: str, update: DocumentUpdate, if_match: str | None = None
) -> Document:
    """Change the named fields of a document; its chunks stay. Raises NotFound, PreconditionFailed."""
    sql.lock_library(library_id)
    _check_match(if_match, library_id, document_id)
    row = selectors.document_row(library_id=library_id, document_id=document_id)
    for field in update.model_fields_set:
        setattr(row, field, getattr(update, field))
    row.save()
    return row


@transaction.atomic
def delete_document(*, library_id: str, document_id: str, if_match: str | None = None) -> None:
    """Delete a document and its chunks. Raises NotFound, PreconditionFailed."""
    sql.lock_library(library_id)
    _check_match(if_match, library_id, document_id)
    selectors.document_row(library_id=library_id, document_id=document_id).delete()


def _check_match(if_match: str | None, library_id: str, document_id: str) -> None:
    def current() -> str:
        return selectors.document_etag(selectors.document_row(library_id=library_id, document_id=document_id))

    selectors.check_match(if_match, current)


def _create(library: Library, documents: Sequence[DocumentInput], pointers: Sequence[str]) -> list[dict[str, Any]]:
    check_distinct([document.id for document in documents], [f"{at}/id" for at in pointers])
    taken = sql.document_keys(library, [document.id for document in documents])
    if taken:
        faults = [
            Fault(f"{at}/id", "is in use")
            for document, at in zip(documents, pointers, strict=True)
            if document.id in taken
        ]
        raise Conflict("A document has an id that is in use in this library.", faults)
    chunks, places = [], []
    for document, at in zip(documents, pointers, strict=True):
        chunks += document.chunks
        places += [f"{at}/chunks/{i}" for i in range(len(document.chunks))]
    check_distinct([chunk.id for chunk in chunks], [f"{at}/id" for at in places])
    _check_unused(library, chunks, places, document_key=None)
    vectors = new_vectors(library, chunks, places)
    created = []
    new = []
    for document in documents:
        row = Document(
            library=library,
            public_id=document.id,
            title=document.title,
            source=document.source,
            metadata=document.metadata,
        )
        row.save(force_insert=True)
        new += [_row(chunk, row.pk, position) for position, chunk in enumerate(document.chunks)]
        chunk_ids = [chunk.id for chunk in document.chunks]
        created.append(selectors.document_data(row, chunk_count=len(chunk_ids)) | {"chunk_ids": chunk_ids})
    sql.insert_chunks(library, new, vectors)
    return created


def _check_unused(
    library: Library, chunks: Sequence[DocumentChunk], pointers: Sequence[str], document_key: int | None
) -> None:
    """Raise Conflict where a chunk that names its id names one in use outside of the document `document_key`."""
    named = [(chunk.id, f"{at}/id") for chunk, at in zip(chunks, pointers, strict=True) if chunk.is_set("id")]
    stored = sql.stored_chunks(library, [item for item, _ in named])
    faults = [
        Fault(pointer, "is in use")
        for item, pointer in named
        if item in stored and (document_key is None or stored[item].document_key != document_key)
    ]
    if faults:
        raise Conflict("A chunk has an id that is in use in this library.", faults)


def _row(chunk: DocumentChunk, document_key: int, position: int) -> ChunkRow:
    return ChunkRow(chunk.id, document_key, chunk.text, sql.json_text(chunk.metadata), position)


@dataclass(frozen=True)
class _Diff:
    """For each chunk of a PUT the stored chunk it is, if any, and whether its content is equal; the rest is gone."""

    matches: list[StoredChunk | None]
    equal: list[bool]
    gone: list[StoredChunk]


def _diff(library: Library, chunks: Sequence[DocumentChunk], vectors: Float32, before: list[StoredChunk]) -> _Diff:
    stored_vectors = sql.vectors_of(library, [old.key for old in before])
    by_id = {old.public_id: old for old in before}
    named = {chunk.id for chunk in chunks if chunk.is_set("id")}
    by_content: defaultdict[tuple[str, bytes, bytes], list[StoredChunk]] = defaultdict(list)

    def stored_content(chunk: StoredChunk) -> tuple[str, bytes, bytes]:
        return chunk.text, sql.canonical_json(chunk.metadata), stored_vectors.get(chunk.key, b"")

    for old in reversed(before):
        if old.public_id not in named:
            by_content[stored_content(old)].append(old)
    matches: list[StoredChunk | None] = []
    equal: list[bool] = []
    for chunk, vector in zip(chunks, vectors, strict=True):
        content = chunk.text, sql.canonical_json(sql.json_text(chunk.metadata)), vector.tobytes()
        if chunk.is_set("id"):
            match = by_id.get(chunk.id)
            equal.append(match is not None and stored_content(match) == content)
        else:
            match = by_content[content].pop() if by_content[content] else None
            equal.append(match is not None)
        matches.append(match)
    kept = {match.key for match in matches if match is not None}
    return _Diff(matches, equal, [old for old in before if old.key not in kept])
