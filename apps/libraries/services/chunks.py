"""Writes of chunks: upsert, insert, update, delete; a request is applied whole or not at all."""

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from apps.access.audit import record_change
from apps.libraries import selectors
from apps.libraries.dialects import frees_room
from apps.libraries.errors import Conflict, Fault, Invalid, NotFound, TextChanged
from apps.libraries.fields import AnyVector
from apps.libraries.ids import INVISIBLE, is_visible
from apps.libraries.inputs import ChunkInput, ChunksWrite, ChunkUpdate, named_models
from apps.libraries.models import Document, EmbeddingModel, KnownModel, Library, text_to_embed
from apps.libraries.services import sql
from apps.libraries.services.embedding import bind_model, check_vectors, embed_missing, model_for, retry_on_change
from apps.libraries.services.sql import ChunkRow, StoredChunk

_NAMELESS = "is required to update a chunk"

# What is wrong with chunks that were left out, by their numbers in the request.
Skipped: TypeAlias = Mapping[int, Sequence[Fault]]


@dataclass(frozen=True)
class WriteResult:
    """The ids of the chunks in the order given, and how many of them were new and how many were not; and what was
    skipped, if anything may be."""

    ids: list[str]
    created: int
    updated: int
    skipped: Skipped | None = None


@retry_on_change
def upsert_chunks(*, library_id: str, write: ChunksWrite, skipped: Skipped | None = None) -> WriteResult:
    """Write chunks whole: text, metadata and vector; an absent `document_id` keeps the document.

    Chunks without a vector get one of their text. In mode insert all chunks must be new. `skipped` goes into the
    result. Raises NotFound (library), Conflict (insert of an id in use, or another embedding model), Invalid, and what
    the embedding provider raises.
    """
    chunks, named = write.chunks, named_models(write)
    ids = [chunk.id for chunk in chunks]
    pointers = [f"/chunks/{i}" for i in range(len(chunks))]
    check_distinct(ids, pointers)
    missing = {
        i: text_to_embed(chunk.text, chunk.embed_text)
        for i, chunk in enumerate(chunks)
        if not chunk.is_set("embedding")
    }
    model = None
    if missing or named:
        library = selectors.library_row(library_id)
        model = model_for(library, named, brings_vectors=any(chunk.brings_vector for chunk in chunks))
        # Looked at before the texts are embedded, which may cost money, and again under the lock.
        if write.mode == "insert":
            check_unused("A chunk", ids, sql.chunk_keys(library, ids), pointers)
        if not write.create_documents:
            find_documents(library, chunks, pointers, create=False)
    given = embed_missing(model, chunks, pointers, missing)

    with sql.write_transaction():
        library = sql.lock_library(library_id)
        bind_model(library, model, named)
        stored = sql.claim_chunks(library, ids)
        if write.mode == "insert":
            check_unused("A chunk", ids, stored, pointers)
        documents, _ = find_documents(library, chunks, pointers, create=write.create_documents)
        places = find_places(documents, chunks, [stored.get(chunk_id) for chunk_id in ids])
        vectors = check_vectors(library, given, pointers)
        rows = [ChunkRow.of(chunk, *place) for chunk, place in zip(chunks, places, strict=True)]
        new = [i for i, chunk_id in enumerate(ids) if chunk_id not in stored]
        replaced = [(i, stored[chunk_id].key) for i, chunk_id in enumerate(ids) if chunk_id in stored]
        sql.insert_chunks(library, [rows[i] for i in new], [vectors[i] for i in new])
        sql.update_chunks([(key, rows[i]) for i, key in replaced])
        sql.put_vectors(library, [key for _, key in replaced], [vectors[i] for i, _ in replaced])
        result = WriteResult(ids, created=len(ids) - len(stored), updated=len(stored), skipped=skipped)
        record_change(f"{write.mode}_chunks", library=library_id, count=len(ids), result=result)
    return result


@retry_on_change
def update_chunks(*, library_id: str, write: ChunksWrite, skipped: Skipped | None = None) -> WriteResult:
    """Change the named fields of stored chunks; a changed text without a vector gets one, if there was one before.

    `skipped` goes into the result. Raises as `upsert_chunks`, and NotFound for a chunk.
    """
    changes, named = write.chunks, named_models(write)
    ids = [change.id for change in changes]
    pointers = [f"/chunks/{i}" for i in range(len(changes))]
    nameless = [
        Fault(f"{at}/id", _NAMELESS) for at, change in zip(pointers, changes, strict=True) if not change.is_set("id")
    ]
    if nameless:
        raise Invalid("A chunk to be updated has no id.", nameless)
    check_distinct(ids, pointers)
    embedded = _embed_changed_texts(library_id, ids, changes, pointers, named)

    with sql.write_transaction():
        library = sql.lock_library(library_id)
        bind_model(library, embedded.model, named)
        stored = sql.stored_chunks(library, ids)
        absent = [i for i, chunk_id in enumerate(ids) if chunk_id not in stored]
        if absent:
            faults = [Fault(f"/chunks/{i}/id", "names no chunk of this library") for i in absent]
            raise NotFound("A chunk to be updated does not exist.", faults)
        documents, _ = find_documents(library, changes, pointers, create=write.create_documents)
        _change(library, [stored[chunk_id] for chunk_id in ids], changes, pointers, embedded, documents)
        result = WriteResult(ids, created=0, updated=len(ids), skipped=skipped)
        record_change("update_chunks", library=library_id, count=len(ids), result=result)
    return result


@retry_on_change
def update_chunk(*, library_id: str, chunk_id: str, update: ChunkUpdate, if_match: str | None = None) -> dict[str, Any]:
    """Change the named fields of one chunk, and return it as the API shows it; a changed text without a vector gets
    one, if there was one before.

    Raises NotFound, PreconditionFailed, Invalid, and what the embedding provider raises.
    """
    embedded = _embed_changed_texts(library_id, [chunk_id], [update], [""], {})

    with sql.write_transaction():
        library = sql.lock_library(library_id)
        bind_model(library, embedded.model, {})
        before = _match_chunk(library, chunk_id, if_match)
        documents, _ = find_documents(library, [update], [""], create=False)
        _change(library, [before], [update], [""], embedded, documents)
        record_change("update_chunk", library=library_id, target=chunk_id, count=1)
        return selectors.written_chunk(before.key)


@frees_room
@sql.write_transaction()
def delete_chunk(*, library_id: str, chunk_id: str, if_match: str | None = None) -> None:
    """Delete one chunk. Raises NotFound, PreconditionFailed."""
    library = sql.lock_library(library_id)
    sql.delete_chunks([_match_chunk(library, chunk_id, if_match).key])
    record_change("delete_chunk", library=library_id, target=chunk_id, count=1)


@frees_room
@sql.write_transaction()
def delete_chunks(*, library_id: str, ids: Sequence[str]) -> int:
    """Delete those of the chunks that exist, and return their number. Raises NotFound for the library."""
    library = sql.lock_library(library_id)
    deleted = sql.delete_chunks(list(sql.chunk_keys(library, list(dict.fromkeys(ids))).values()))
    record_change("delete_chunks", library=library_id, count=deleted)
    return deleted


def check_distinct(ids: Sequence[str], pointers: Sequence[str]) -> None:
    """Raise Invalid with a fault for each of `ids` that came before in the same request; `pointers` are those of what
    has the ids."""
    if len(set(ids)) == len(ids):
        return
    seen: set[str] = set()
    repeated = []
    for item, pointer in zip(ids, pointers, strict=True):
        if item in seen:
            repeated.append(Fault(f"{pointer}/id", f"repeats the id {item!r}"))
        seen.add(item)
    raise Invalid("An id comes twice in one request.", repeated)


def check_unused(noun: str, ids: Sequence[str], used: Container[str], pointers: Sequence[str]) -> None:
    """Raise Conflict with a fault for each of `ids` that is in `used`; `pointers` are those of what has the ids."""
    faults = [Fault(f"{pointer}/id", "is in use") for item, pointer in zip(ids, pointers, strict=True) if item in used]
    if faults:
        raise Conflict(f"{noun} has an id that is in use in this library.", faults)


def _match_chunk(library: Library, chunk_id: str, if_match: str | None) -> StoredChunk:
    """The stored chunk; raises NotFound, and PreconditionFailed unless `if_match` is its tag or None."""
    selectors.check_match(
        if_match, lambda: selectors.etag(selectors.chunk(library_id=library.public_id, chunk_id=chunk_id))
    )
    stored = sql.stored_chunks(library, [chunk_id])
    if not stored:
        raise selectors.no_chunk(chunk_id)
    return stored[chunk_id]


@dataclass(frozen=True)
class _Vectors:
    """The vectors of changes, where they have one; `made` are the texts that `model` made some of, by their numbers."""

    vectors: list[AnyVector | None]
    made: Mapping[int, str]
    model: KnownModel | None


def _embed_changed_texts(
    library_id: str,
    ids: Sequence[str],
    changes: Sequence[ChunkInput | ChunkUpdate],
    pointers: Sequence[str],
    named: Mapping[str, EmbeddingModel],
) -> _Vectors:
    """Embed what the model is given of chunks that have a vector, where that changes and no vector comes with it."""
    model = None
    made: dict[int, str] = {}
    texts = [
        i
        for i, change in enumerate(changes)
        if (change.is_set("text") or change.is_set("embed_text")) and not change.is_set("embedding")
    ]
    if texts or named:
        library = selectors.library_row(library_id)
        stored = sql.stored_chunks(library, [ids[i] for i in texts])
        for i in texts:
            before = stored.get(ids[i])
            if before is not None and (text := text_to_embed(*_texts(before, changes[i]))) != before.text_to_embed:
                made[i] = text
        have_vectors = sql.embedded_keys(library, [stored[ids[i]].key for i in made])
        made = {i: text for i, text in made.items() if stored[ids[i]].key in have_vectors}
        model = model_for(library, named) if made or named else None
    return _Vectors(embed_missing(model, changes, pointers, made), made, model)


def _texts(before: StoredChunk, change: ChunkInput | ChunkUpdate) -> tuple[str, str | None]:
    """`text` and `embed_text` of a chunk after a change."""
    return (
        change.text if change.is_set("text") else before.text,
        change.embed_text if change.is_set("embed_text") else before.embed_text,
    )


def _change(
    library: Library,
    stored: Sequence[StoredChunk],
    changes: Sequence[ChunkInput | ChunkUpdate],
    pointers: Sequence[str],
    embedded: _Vectors,
    documents: Mapping[str, int],
) -> None:
    """Store the named fields of `changes`. Raises Invalid, and TextChanged where a stored text is another by now, or
    has got a vector."""
    changed = [
        before.key
        for before, change in zip(stored, changes, strict=True)
        if not change.is_set("embedding") and text_to_embed(*_texts(before, change)) != before.text_to_embed
    ]
    have_vectors = sql.embedded_keys(library, changed)
    with_vector = []
    rows = []
    places = find_places(documents, changes, stored)
    for i, (before, change, (document_key, position)) in enumerate(zip(stored, changes, places, strict=True)):
        text, embed_text = _texts(before, change)
        if change.is_set("embedding"):
            with_vector.append(i)
        elif before.key in have_vectors:
            if embedded.made.get(i) != text_to_embed(text, embed_text):
                raise TextChanged("The stored text changed while the request was embedded; send it again.")
            with_vector.append(i)
        metadata = sql.json_text(change.metadata) if change.is_set("metadata") else before.metadata
        expires_at = change.expires_at if change.is_set("expires_at") else before.expires_at
        row = ChunkRow(before.public_id, document_key, text, embed_text, metadata, position, expires_at)
        rows.append((before.key, row))
    vectors = check_vectors(library, [embedded.vectors[i] for i in with_vector], [pointers[i] for i in with_vector])
    sql.update_chunks(rows)
    sql.put_vectors(library, [stored[i].key for i in with_vector], vectors)


def find_documents(
    library: Library, chunks: Sequence[ChunkInput | ChunkUpdate], pointers: Sequence[str], *, create: bool
) -> tuple[dict[str, int], int]:
    """The keys of the documents that chunks name, by id, and how many were made: those that did not exist, if `create`
    says so.

    Raises Invalid where a chunk names a document that does not exist, or that cannot be made.
    """
    named = [
        (chunk.document_id, at) for chunk, at in zip(chunks, pointers, strict=True) if chunk.document_id is not None
    ]
    find = sql.claim_documents if create else sql.document_keys
    keys = find(library, list(dict(named)))
    fault = INVISIBLE if create else "names no document"
    unknown = [
        Fault(f"{at}/document_id", fault)
        for name, at in named
        if name not in keys and not (create and is_visible(name))
    ]
    if unknown:
        raise Invalid("A chunk names a document that does not exist in this library.", unknown)
    new = [name for name in dict.fromkeys(name for name, _ in named) if name not in keys]
    rows = Document.objects.bulk_create(Document(library=library, public_id=name) for name in new)
    return keys | {row.public_id: row.pk for row in rows}, len(rows)


def find_places(
    keys: Mapping[str, int], chunks: Sequence[ChunkInput | ChunkUpdate], stored: Sequence[StoredChunk | None]
) -> list[tuple[int | None, int | None]]:
    """The document key and the position of each chunk after its write; one that joins a document comes last in it.
    `keys` are those of documents by id."""
    next_positions: dict[int, int] = {}
    places: list[tuple[int | None, int | None]] = []
    for chunk, before in zip(chunks, stored, strict=True):
        key = keys[chunk.document_id] if chunk.document_id is not None else None
        if before is not None and (not chunk.is_set("document_id") or key == before.document_key):
            places.append((before.document_key, before.position))
        elif key is None:
            places.append((None, None))
        else:
            position = next_positions.get(key)
            if position is None:
                position = sql.next_position(key)
            next_positions[key] = position + 1
            places.append((key, position))
    return places
