"""Writes of documents with their chunks."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import orjson

from apps.access.audit import record_change
from apps.engine.vectors import Float32
from apps.libraries import selectors
from apps.libraries.chunking import split_texts
from apps.libraries.dialects import frees_room
from apps.libraries.errors import Invalid, NotFound, PreconditionFailed
from apps.libraries.fields import AnyVector
from apps.libraries.ids import INVISIBLE, is_visible
from apps.libraries.inputs import (
    DocumentChunk,
    DocumentInput,
    DocumentsWrite,
    DocumentUpdate,
    check_chunk_count,
    named_models,
)
from apps.libraries.models import Document, EmbeddingModel, KnownModel, Library, text_to_embed
from apps.libraries.profile import stage
from apps.libraries.selectors import EmbeddedChunk
from apps.libraries.services import sql
from apps.libraries.services.chunks import check_distinct, check_unused
from apps.libraries.services.embedding import bind_model, check_vectors, embed_missing, model_for, retry_on_change
from apps.libraries.services.sql import ChunkRow, StoredChunk


def create_document(*, library_id: str, document: DocumentInput) -> dict[str, Any]:
    """Create a document with its chunks, and return it as the API shows it. Raises as `create_documents`."""
    return _create(library_id, [document], [""], named_models(document))[0]


def create_documents(*, library_id: str, write: DocumentsWrite) -> list[dict[str, Any]]:
    """Create documents with their chunks, all or none; a text is split into chunks, which get vectors.

    Raises NotFound (library), Conflict (an id in use, or another embedding model), Invalid, and what the embedding
    provider raises.
    """
    return _create(library_id, write.documents, _pointers(write), named_models(write))


@retry_on_change
def _create(
    library_id: str, documents: Sequence[DocumentInput], pointers: Sequence[str], named: Mapping[str, EmbeddingModel]
) -> list[dict[str, Any]]:
    ids = [document.id for document in documents]
    check_distinct(ids, pointers)
    content = _embed_documents(library_id, documents, pointers, named)

    with sql.write_transaction():
        library = sql.lock_library(library_id)
        bind_model(library, content.model, named)
        check_unused("A document", ids, sql.claim_documents(library, ids), pointers)
        _check_chunk_ids(library, content.chunks, content.pointers, document_key=None)
        vectors = check_vectors(library, content.vectors, content.pointers)
        created, rows = [], []
        for document in content.documents:
            row = Document(library=library, public_id=document.id)
            _save(row, document, force_insert=True)
            rows += [ChunkRow.of(chunk, row.pk, position) for position, chunk in enumerate(document.chunks)]
            chunk_ids = [chunk.id for chunk in document.chunks]
            created.append(selectors.document_data(row, chunk_count=len(chunk_ids)) | {"chunk_ids": chunk_ids})
        sql.insert_chunks(library, rows, vectors)
        _record("create_document", library_id, ids)
    return created


def replace_document(
    *,
    library_id: str,
    document_id: str,
    document: DocumentInput,
    if_match: str | None = None,
    creates_only: bool = False,
    before_commit: Callable[[dict[str, Any]], None] = lambda _: None,
) -> tuple[dict[str, Any], bool]:
    """Make the document exactly this; return what became of its chunks, as the API shows it, and whether it is new.
    `before_commit` is called with the former in the transaction, again where that begins again.

    Chunks match by id, those without an id by equal text, metadata and vector. A matching chunk whose content is equal
    is kept; its position may change. Chunks without a vector keep the stored one of their text, or get one. Raises
    NotFound (library, or a document that cannot be made by this id), PreconditionFailed (also where it `creates_only`,
    and there is one), Conflict (a chunk's id in use elsewhere, or another embedding model), Invalid, and what the
    embedding provider raises.
    """
    if document.is_set("id") and document.id != document_id:
        raise Invalid.at("/id", f"must be {document_id!r}, as in the path, or be left out")
    document = document.model_copy(update={"id": document_id})
    named = named_models(document)
    return _replace(library_id, [document], [""], named, if_match, creates_only, before_commit)[0]


def upsert_documents(*, library_id: str, write: DocumentsWrite) -> list[dict[str, Any]]:
    """Make each of the documents exactly this, all or none, in their order. Raises as `replace_document`."""
    return [data for data, _ in _replace(library_id, write.documents, _pointers(write), named_models(write))]


def _pointers(write: DocumentsWrite) -> list[str]:
    """The pointers of the documents. Raises Invalid where they have too many chunks."""
    check_chunk_count(sum(len(document.chunks) for document in write.documents))
    return [f"/documents/{i}" for i in range(len(write.documents))]


@retry_on_change
def _replace(
    library_id: str,
    documents: Sequence[DocumentInput],
    pointers: Sequence[str],
    named: Mapping[str, EmbeddingModel],
    if_match: str | None = None,
    creates_only: bool = False,
    before_commit: Callable[[dict[str, Any]], None] = lambda _: None,
) -> list[tuple[dict[str, Any], bool]]:
    ids = [document.id for document in documents]
    check_distinct(ids, pointers)
    content = _embed_documents(library_id, documents, pointers, named, replaces=True)

    with sql.write_transaction():
        library = sql.lock_library(library_id)
        bind_model(library, content.model, named)
        if if_match is not None:
            _check_match(if_match, library_id, *ids)
        stored = Document.objects.in_bulk(sql.claim_documents(library, ids).values())
        if creates_only and stored:
            raise PreconditionFailed("There is a document with this id already, so nothing was written.")
        stored = {row.public_id: row for row in stored.values()}
        vectors = check_vectors(library, content.vectors, content.pointers)
        replaced = []
        for document, part in zip(content.documents, _parts(content.documents), strict=True):
            row = stored.get(document.id)
            data = _replace_one(library, row, document, content.pointers[part], vectors[part])
            replaced.append((data, row is None))
            before_commit(data)
        _record("replace_document", library_id, ids)
    return replaced


def _replace_one(
    library: Library,
    row: Document | None,
    document: DocumentInput,
    pointers: Sequence[str],
    vectors: Sequence[Float32 | None],
) -> dict[str, Any]:
    """Make a document, stored as `row` if it exists, exactly this, its chunks having `pointers` and `vectors`."""
    chunks = document.chunks
    _check_chunk_ids(library, chunks, pointers, document_key=None if row is None else row.pk)
    before = [] if row is None else sql.claim_chunks_of_document(row.pk)
    if row is None:
        if not is_visible(document.id):
            raise NotFound(f"There is no document {document.id!r}, and there can be none: an id {INVISIBLE}.")
        row = Document(library=library, public_id=document.id)
    _save(row, document)
    diff = _compare(library, chunks, vectors, before)
    rows = [ChunkRow.of(chunk, row.pk, position) for position, chunk in enumerate(chunks)]
    sql.delete_chunks([chunk.key for chunk in diff.gone])
    sql.insert_chunks(library, [rows[i] for i in diff.created], [vectors[i] for i in diff.created])
    sql.update_chunks([(chunk.key, rows[i]) for i, chunk in diff.updated])
    sql.put_vectors(library, [chunk.key for _, chunk in diff.updated], [vectors[i] for i, _ in diff.updated])
    sql.move_chunks([(chunk.key, i) for i, chunk in diff.unchanged if chunk.position != i])
    chunk_ids = [chunk.id for chunk in chunks]
    for i, chunk in [*diff.updated, *diff.unchanged]:
        chunk_ids[i] = chunk.public_id
    counts = {name: len(getattr(diff, name)) for name in ("created", "updated", "unchanged")}
    return {"id": document.id, **counts, "deleted": len(diff.gone), "chunk_ids": chunk_ids}


@sql.write_transaction()
def update_document(
    *, library_id: str, document_id: str, update: DocumentUpdate, if_match: str | None = None
) -> tuple[dict[str, Any], str]:
    """Change the named fields of a document, and return it as the API shows it, and its entity tag; its chunks stay.
    Raises NotFound, PreconditionFailed."""
    sql.lock_library(library_id)
    _check_match(if_match, library_id, document_id)
    row = selectors.document_row(library_id=library_id, document_id=document_id)
    for field in update.model_fields_set:
        setattr(row, field, getattr(update, field))
    row.save()
    _record("update_document", library_id, [document_id])
    return selectors.document_with_etag(row)


@frees_room
@sql.write_transaction()
def delete_document(*, library_id: str, document_id: str, if_match: str | None = None) -> None:
    """Delete a document and its chunks. Raises NotFound, PreconditionFailed."""
    sql.lock_library(library_id)
    _check_match(if_match, library_id, document_id)
    selectors.document_row(library_id=library_id, document_id=document_id).delete()
    _record("delete_document", library_id, [document_id])


def _record(action: str, library_id: str, ids: Sequence[str]) -> None:
    """Add a change of documents to the audit trail; that of one names it."""
    record_change(action, library=library_id, target=ids[0] if len(ids) == 1 else "", count=len(ids))


def _check_match(if_match: str | None, library_id: str, document_id: str) -> None:
    def current() -> str:
        return selectors.document_etag(selectors.document_row(library_id=library_id, document_id=document_id))

    selectors.check_match(if_match, current)


@dataclass(frozen=True)
class _Content:
    """Documents, all their chunks in order, with pointers and vectors, None for none, and the model that made some of
    these."""

    documents: Sequence[DocumentInput]
    chunks: list[DocumentChunk]
    pointers: list[str]
    vectors: list[AnyVector | None]
    model: KnownModel | None


def _embed_documents(
    library_id: str,
    documents: Sequence[DocumentInput],
    pointers: Sequence[str],
    named: Mapping[str, EmbeddingModel],
    *,
    replaces: bool = False,
) -> _Content:
    """Split the texts of documents, and embed the chunks without a vector; if this `replaces` stored documents, unless
    they have it."""
    library = model = None
    all_chunks = [chunk for document in documents for chunk in document.chunks]
    are_given = all(chunk.is_set("embedding") for chunk in all_chunks)
    if named or not are_given or any(document.is_set("text") for document in documents):
        library = selectors.library_row(library_id)
        model = model_for(library, named, brings_vectors=any(chunk.brings_vector for chunk in all_chunks))
        with stage("split"):
            documents = split_texts(documents, pointers, model)
    chunks = [chunk for document in documents for chunk in document.chunks]
    chunk_pointers = [
        f"{pointer}/chunks/{i}"
        for document, pointer in zip(documents, pointers, strict=True)
        for i in range(len(document.chunks))
    ]
    check_distinct([chunk.id for chunk in chunks], chunk_pointers)
    missing = {
        i: text_to_embed(chunk.text, chunk.embed_text)
        for i, chunk in enumerate(chunks)
        if not chunk.is_set("embedding")
    }
    kept: dict[int, Float32] = {}
    if replaces and missing and library is not None and library.embedding is not None:
        for document, part in zip(documents, _parts(documents), strict=True):
            stored = selectors.embedded_chunks(library=library, document_id=document.id)
            matches = _match_texts(document.chunks, stored)
            kept |= {part.start + i: match.embedding for i, match in matches.items()}
        kept = {i: kept[i] for i in missing if i in kept}
    vectors = embed_missing(model, chunks, chunk_pointers, {i: text for i, text in missing.items() if i not in kept})
    for i, vector in kept.items():
        vectors[i] = vector
    return _Content(documents, chunks, chunk_pointers, vectors, model)


def _parts(documents: Sequence[DocumentInput]) -> list[slice]:
    """Where the chunks of each document are among those of all."""
    ends = list(accumulate(len(document.chunks) for document in documents))
    return [slice(start, end) for start, end in zip([0, *ends], ends, strict=False)]


def _match_texts(chunks: Sequence[DocumentChunk], stored: Sequence[EmbeddedChunk]) -> dict[int, EmbeddedChunk]:
    """For chunks of a document, by their numbers, a stored chunk whose vector is that of the same text, where there is
    one.

    A stored chunk is given to one chunk only: to the one of its id, else of its content, else to any. Those that no
    chunk names go first to chunks without an id, as `_compare` matches them.
    """
    ids = {chunk.id for chunk in chunks if chunk.is_set("id")}
    left = {chunk.id: chunk for chunk in sorted(stored, key=lambda chunk: chunk.id in ids)}
    matches: dict[int, EmbeddedChunk] = {}
    for key in (_id_and_text, _content, _text):
        by_key: defaultdict[Any, list[EmbeddedChunk]] = defaultdict(list)
        for candidate in reversed(left.values()):
            by_key[key(candidate)].append(candidate)
        for i in sorted(range(len(chunks)), key=lambda i: chunks[i].is_set("id")):
            if i not in matches and by_key[key(chunks[i])]:
                matches[i] = by_key[key(chunks[i])].pop()
                del left[matches[i].id]
    return matches


def _text(chunk: DocumentChunk | EmbeddedChunk) -> str:
    return text_to_embed(chunk.text, chunk.embed_text)


def _id_and_text(chunk: DocumentChunk | EmbeddedChunk) -> tuple[str, str]:
    return chunk.id, _text(chunk)


def _content(chunk: DocumentChunk | EmbeddedChunk) -> tuple[str, str | None, bytes]:
    return chunk.text, chunk.embed_text, orjson.dumps(chunk.metadata, option=orjson.OPT_SORT_KEYS)


def _save(row: Document, document: DocumentInput, force_insert: bool = False) -> None:
    for field in ("title", "source", "metadata", "expires_at"):
        setattr(row, field, getattr(document, field))
    row.save(force_insert=force_insert)


def _check_chunk_ids(
    library: Library, chunks: Sequence[DocumentChunk], pointers: Sequence[str], document_key: int | None
) -> None:
    """Raise Conflict where a chunk that names its id names one in use outside of the document `document_key`."""
    stored = sql.claim_chunks(library, [chunk.id for chunk in chunks if chunk.is_set("id")])
    used = {chunk.public_id for chunk in stored.values() if document_key is None or chunk.document_key != document_key}
    check_unused("A chunk", [chunk.id for chunk in chunks], used, pointers)


@dataclass(frozen=True)
class _Diff:
    """The chunks of a PUT by what happens to them: their numbers, with the stored chunk that they are, if any."""

    created: list[int]
    updated: list[tuple[int, StoredChunk]]
    unchanged: list[tuple[int, StoredChunk]]
    gone: list[StoredChunk]


def _compare(
    library: Library, chunks: Sequence[DocumentChunk], vectors: Sequence[Float32 | None], before: list[StoredChunk]
) -> _Diff:
    """Match the new chunks of a document, which have `vectors`, with its stored ones."""
    stored_vectors = sql.vectors_of(library, [old.key for old in before])
    contents = {
        old.key: (old.text, old.embed_text, sql.canonical_json(old.metadata), stored_vectors.get(old.key, b""))
        for old in before
    }
    by_id = {old.public_id: old for old in before}
    named = {chunk.id for chunk in chunks if chunk.is_set("id")}
    by_content: defaultdict[tuple[str, str | None, bytes, bytes], list[StoredChunk]] = defaultdict(list)
    for old in reversed(before):
        if old.public_id not in named:
            by_content[contents[old.key]].append(old)
    diff = _Diff([], [], [], [])
    for i, (chunk, vector) in enumerate(zip(chunks, vectors, strict=True)):
        metadata = sql.canonical_json(sql.json_text(chunk.metadata))
        content = chunk.text, chunk.embed_text, metadata, b"" if vector is None else vector.tobytes()
        if chunk.is_set("id"):
            match = by_id.get(chunk.id)
        else:
            match = by_content[content].pop() if by_content[content] else None
        if match is None:
            diff.created.append(i)
        elif contents[match.key] == content and match.expires_at == chunk.expires_at:
            diff.unchanged.append((i, match))
        else:
            diff.updated.append((i, match))
    kept = {chunk.key for _, chunk in [*diff.updated, *diff.unchanged]}
    diff.gone.extend(old for old in before if old.key not in kept)
    return diff
