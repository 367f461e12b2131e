"""Writes of rows that come from elsewhere, as an import reads them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import orjson

from apps.libraries import selectors
from apps.libraries.errors import Conflict, Fault, TextChanged
from apps.libraries.imported import ChunkImport, DocumentImport, Mode
from apps.libraries.models import Document, Library, text_to_embed
from apps.libraries.services import sql
from apps.libraries.services.chunks import check_unused, find_documents, find_places
from apps.libraries.services.embedding import bind_model, check_vectors, embed_missing, model_for, retry_on_change
from apps.libraries.services.sql import ChunkRow, StoredChunk

_FIELDS = ("title", "source", "metadata", "expires_at")


@dataclass(frozen=True)
class ImportResult:
    """How many chunks were new, replaced, and left as they were; how many documents were written or made."""

    created: int = 0
    updated: int = 0
    left: int = 0
    documents: int = 0

    def __add__(self, other: "ImportResult") -> "ImportResult":
        return ImportResult(
            self.created + other.created,
            self.updated + other.updated,
            self.left + other.left,
            self.documents + other.documents,
        )


@retry_on_change
def import_rows(
    *,
    library_id: str,
    documents: Sequence[DocumentImport],
    chunks: Sequence[ChunkImport],
    mode: Mode = "upsert",
    before_commit: Callable[[ImportResult], None] = lambda _: None,
) -> ImportResult:
    """Write documents, and then chunks, in one transaction; no id comes twice among either.

    Documents that chunks name and that are not there are made. Chunks without a vector get one of their text.
    `before_commit` is called in the transaction. Raises NotFound (library); Conflict (mode insert, an id in use) and
    Invalid with pointers that begin with /documents/i or /chunks/i; and what the embedding provider raises.
    """
    ids = [chunk.id for chunk in chunks]
    pointers = [f"/chunks/{i}" for i in range(len(chunks))]
    bare = {
        i: text_to_embed(chunk.text, chunk.embed_text)
        for i, chunk in enumerate(chunks)
        if not chunk.is_set("embedding")
    }
    model, missing = None, bare
    if bare:
        library = selectors.library_row(library_id)
        model = model_for(library, {}, brings_vectors=any(chunk.brings_vector for chunk in chunks))
        # Nothing is embedded that is not stored, since that may cost money. It is looked at again under the lock.
        used = {} if mode == "upsert" else sql.chunk_keys(library, ids)
        if mode == "insert":
            check_unused("A chunk", ids, used, pointers)
        missing = {i: text for i, text in bare.items() if ids[i] not in used}
    given = embed_missing(model, chunks, pointers, missing)

    with sql.write_transaction():
        library = sql.lock_library(library_id)
        bind_model(library, model, {})
        written = _write_documents(library, documents, mode)
        stored = sql.claim_chunks(library, ids)
        if mode == "insert":
            check_unused("A chunk", ids, stored, pointers)
        kept = range(len(chunks)) if mode != "skip" else [i for i, id in enumerate(ids) if id not in stored]
        used_before = bare.keys() - missing.keys()
        if not used_before.isdisjoint(kept):
            raise TextChanged("A stored chunk was deleted while the request was embedded; send it again.")
        some, at = [chunks[i] for i in kept], [pointers[i] for i in kept]
        before = [stored.get(chunk.id) for chunk in some]
        rows, made = _rows(library, some, at, before)
        vectors = check_vectors(library, [given[i] for i in kept], at)
        new = [i for i, chunk in enumerate(before) if chunk is None]
        replaced = [(i, chunk.key) for i, chunk in enumerate(before) if chunk is not None]
        sql.insert_chunks(library, [rows[i] for i in new], [vectors[i] for i in new], [some[i].created_at for i in new])
        sql.update_chunks([(key, rows[i]) for i, key in replaced])
        sql.put_vectors(library, [key for _, key in replaced], [vectors[i] for i, _ in replaced])
        result = ImportResult(len(new), len(replaced), len(chunks) - len(some), written + made)
        before_commit(result)
    return result


def _rows(
    library: Library, chunks: Sequence[ChunkImport], pointers: Sequence[str], stored: Sequence[StoredChunk | None]
) -> tuple[list[ChunkRow], int]:
    """The columns of chunks, and how many documents were made that they name. Those without a position come last in
    their document, or keep the one they have."""
    keys, made = find_documents(library, chunks, pointers, create=True)
    loose = [i for i, chunk in enumerate(chunks) if chunk.position is None or chunk.document_id is None]
    places = [(keys.get(chunk.document_id or ""), chunk.position) for chunk in chunks]
    found = find_places(keys, [chunks[i] for i in loose], [stored[i] for i in loose])
    for i, place in zip(loose, found, strict=True):
        places[i] = place
    return [ChunkRow.of(chunk, *place) for chunk, place in zip(chunks, places, strict=True)], made


def _write_documents(library: Library, documents: Sequence[DocumentImport], mode: Mode) -> int:
    """Write documents, and return how many changed; their chunks stay. One that is there as it comes is none that is
    in use: a file may name it again."""
    keys = sql.claim_documents(library, [document.id for document in documents])
    stored = {row.public_id: row for row in Document.objects.in_bulk(keys.values()).values()}
    changed = [(i, one) for i, one in enumerate(documents) if one.id in stored and _differs(stored[one.id], one)]
    if mode == "insert" and changed:
        faults = [Fault(f"/documents/{i}/id", "is in use") for i, _ in changed]
        raise Conflict("A document has an id that is in use in this library.", faults)
    new = [document for document in documents if document.id not in stored]
    Document.objects.bulk_create(
        Document(
            library=library,
            public_id=document.id,
            **{name: getattr(document, name) for name in _FIELDS},
            **({} if document.created_at is None else {"created_at": document.created_at}),
        )
        for document in new
    )
    for _, document in changed if mode == "upsert" else ():
        row = stored[document.id]
        for name in _FIELDS:
            setattr(row, name, getattr(document, name))
        row.save()
    return len(new) + (len(changed) if mode == "upsert" else 0)


def _differs(row: Document, document: DocumentImport) -> bool:
    # As JSON: 1, 1.0 and true are equal in Python.
    return any(
        orjson.dumps(getattr(row, name), option=orjson.OPT_SORT_KEYS)
        != orjson.dumps(getattr(document, name), option=orjson.OPT_SORT_KEYS)
        for name in _FIELDS
    )
