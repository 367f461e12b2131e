"""Writes of what comes with text and without vectors: the library's model makes them, then the service writes.

Texts are split and embedded before the write takes its lock, since a provider may take its time. The write then checks
that the model is still the library's, and that no other text has changed, and starts over where that is not so. A
library that never had a vector gets the model that the request names, or else the server's default. Nothing is stored
when a provider fails.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter
from typing import Any, TypeVar

import orjson
from django.conf import settings
from django.db import connection

from apps.embeddings.config import config
from apps.embeddings.errors import EmbeddingError, UnknownModel
from apps.embeddings.registry import provider
from apps.embeddings.services import embed
from apps.libraries import selectors
from apps.libraries.errors import EmbeddingRequired, Fault, Invalid, ModelChanged, TextChanged
from apps.libraries.inputs import (
    ChunkInput,
    ChunksWrite,
    ChunkUpdate,
    DocumentChunk,
    DocumentInput,
    DocumentsWrite,
    LibraryCreate,
    LibraryUpdate,
    named_models,
)
from apps.libraries.models import EmbeddingModel, KnownModel, Library
from apps.libraries.selectors import EmbeddedChunk
from apps.libraries.services import chunks as chunk_services
from apps.libraries.services import documents as document_services
from apps.libraries.services import libraries as library_services
from apps.libraries.services import sql
from apps.libraries.services.chunks import Written
from apps.libraries.services.documents import Replaced
from apps.search.pieces import with_chunks

C = TypeVar("C", ChunkInput, ChunkUpdate, DocumentChunk)
R = TypeVar("R")
_ATTEMPTS = 3


def create_library(*, create: LibraryCreate) -> Library:
    """As the service, once it is sure that there is such an embedding model."""
    if create.embedding is not None:
        _, dimension = known_model(create.embedding.key, "/embedding")
        if dimension is not None and create.dimension not in (None, dimension):
            raise Invalid.at("/dimension", f"must be {dimension}, that of the embedding model, or be left out")
        if dimension is not None:
            # Else vectors of another length could come first, and no text would fit any more.
            create = create.model_copy(update={"dimension": dimension})
    return library_services.create_library(create=create)


def update_library(*, library_id: str, update: LibraryUpdate, if_match: str | None) -> Library:
    """As the service, once it is sure that there is such an embedding model where the library gets one."""
    model = None
    if update.embedding is not None and selectors.library_row(library_id).takes_model:
        model = known_model(update.embedding.key, "/embedding")
    return library_services.update_library(library_id=library_id, update=update, if_match=if_match, model=model)


def known_model(model: EmbeddingModel, at: str) -> KnownModel:
    """A model that a request names at `at`. Raises Invalid where there is none, or where no library can have it."""
    try:
        dimension = provider(*model).dimension
    except UnknownModel as error:
        raise Invalid.at(f"{at}/model", _clause(error)) from None
    except EmbeddingError as error:
        raise Invalid.at(f"{at}/provider", _clause(error)) from None
    if reason := unfit(dimension):
        raise Invalid.at(f"{at}/model", reason)
    return KnownModel(model, dimension)


def unfit(dimension: int | None) -> str | None:
    """Why no library can have a model whose vectors have that dimension; None where one can, or may."""
    most = settings.LIMITS.dimension
    if dimension is None or dimension <= most:
        return None
    return f"makes vectors of {dimension} components, and there must be at most {most} (limit VECTORDB_MAX_DIMENSION)"


def _clause(error: EmbeddingError) -> str:
    return f"cannot be used: {str(error).rstrip('.')}"


def write_chunks(*, library_id: str, write: ChunksWrite) -> Written:
    """As the service; chunks without a vector get one by their text."""
    changes = write.mode == "update"
    missing = _missing(write.chunks, changes=changes)
    named = named_models(write)
    if not missing and not named:
        return chunk_services.write_chunks(library_id=library_id, write=write)
    pointers = [f"/chunks/{i}" for i in range(len(write.chunks))]

    def run(library: Library, model: KnownModel | None) -> Written:
        ids = [chunk.id for chunk in write.chunks]
        changed = _changed(library, ids, write.chunks, missing) if changes else missing
        chunks = _embedded(model, write.chunks, pointers, changed)
        given = write.model_copy(update={"chunks": chunks})
        return chunk_services.write_chunks(library_id=library_id, write=given, model=model)

    return _with_model(library_id, named, run)


def update_chunk(*, library_id: str, chunk_id: str, update: ChunkUpdate, if_match: str | None) -> dict[str, Any]:
    """As the service; a changed text without a vector gets one."""

    missing = _missing([update], changes=True)
    if not missing:
        return chunk_services.update_chunk(library_id=library_id, chunk_id=chunk_id, update=update, if_match=if_match)

    def run(library: Library, model: KnownModel | None) -> dict[str, Any]:
        [given] = _embedded(model, [update], [""], _changed(library, [chunk_id], [update], missing))
        return chunk_services.update_chunk(
            library_id=library_id, chunk_id=chunk_id, update=given, if_match=if_match, model=model
        )

    return _with_model(library_id, {}, run)


def create_document(*, library_id: str, document: DocumentInput) -> dict[str, Any]:
    """As the service; a text is split, and chunks without a vector get one by their text."""

    def run(documents: Sequence[DocumentInput], model: KnownModel | None) -> dict[str, Any]:
        return document_services.create_document(library_id=library_id, document=documents[0], model=model)

    return _with_documents(library_id, [document], [""], named_models(document), run)


def create_documents(*, library_id: str, write: DocumentsWrite) -> list[dict[str, Any]]:
    """As the service; texts are split, and chunks without a vector get one by their text."""

    def run(documents: Sequence[DocumentInput], model: KnownModel | None) -> list[dict[str, Any]]:
        given = write.model_copy(update={"documents": list(documents)})
        return document_services.create_documents(library_id=library_id, write=given, model=model)

    pointers = [f"/documents/{i}" for i in range(len(write.documents))]
    return _with_documents(library_id, write.documents, pointers, named_models(write), run)


def replace_document(*, library_id: str, document_id: str, document: DocumentInput, if_match: str | None) -> Replaced:
    """As the service; a text is split, and chunks without a vector get one by their text, the stored one of a text that
    was there."""

    def run(documents: Sequence[DocumentInput], model: KnownModel | None) -> Replaced:
        return document_services.replace_document(
            library_id=library_id, document_id=document_id, document=documents[0], if_match=if_match, model=model
        )

    return _with_documents(library_id, [document], [""], named_models(document), run, document_id)


def _with_documents(
    library_id: str,
    documents: Sequence[DocumentInput],
    pointers: Sequence[str],
    named: Mapping[str, EmbeddingModel],
    write: Callable[[Sequence[DocumentInput], KnownModel | None], R],
    of_document: str | None = None,
) -> R:
    """`write` with documents whose chunks have vectors, and the model that made some. `of_document` is the document
    whose vectors can be taken over."""
    if not named and not any(document.is_set("text") or _missing(document.chunks) for document in documents):
        return write(documents, None)

    def run(library: Library, model: KnownModel | None) -> R:
        whole = _split(documents, pointers, model)
        chunks = [chunk for document in whole for chunk in document.chunks]
        places = [
            f"{at}/chunks/{i}"
            for document, at in zip(whole, pointers, strict=True)
            for i in range(len(document.chunks))
        ]
        if of_document is not None and library.embedding is not None:
            chunks = _kept(chunks, selectors.embedded_chunks(library=library, document_id=of_document))
        made = iter(_embedded(model, chunks, places, _missing(chunks)))
        return write(
            [document.model_copy(update={"chunks": [next(made) for _ in document.chunks]}) for document in whole], model
        )

    return _with_model(library_id, named, run)


def _split(
    documents: Sequence[DocumentInput], pointers: Sequence[str], model: KnownModel | None
) -> Sequence[DocumentInput]:
    """The documents with chunks in the place of texts."""
    texts = [f"{at}/text" for document, at in zip(documents, pointers, strict=True) if document.is_set("text")]
    if not texts:
        return documents
    if model is None:
        faults = [Fault(at, "cannot be embedded: send chunks with vectors instead") for at in texts]
        raise EmbeddingRequired("This library has no embedding model.", faults)
    return with_chunks(documents, pointers, provider(*model.key))


def _with_model(
    library_id: str,
    named: Mapping[str, EmbeddingModel],
    run: Callable[[Library, KnownModel | None], R],
) -> R:
    """`run` with the library and the model of its texts; again where that, or a text, has changed meanwhile.

    `named` are the models that the request names, by pointer: they must be the library's, before anything is paid for.
    """
    if connection.in_atomic_block:
        raise RuntimeError("texts must be embedded outside of a transaction")
    for attempt in range(_ATTEMPTS):
        library = selectors.library_row(library_id)
        try:
            return run(library, _model_for(library, named))
        except (ModelChanged, TextChanged):
            if attempt == _ATTEMPTS - 1:
                raise
    raise AssertionError("unreachable")


def _model_for(library: Library, named: Mapping[str, EmbeddingModel]) -> KnownModel | None:
    """The library's model; where a request may decide, the one that it names, or else the server's default."""
    key = library.embedding
    if not library.takes_model:
        selectors.check_models(key, named)
        return None if key is None else KnownModel(key, library.dimension)
    if named:
        at, key = next(iter(named.items()))
        return known_model(key, at)
    key = EmbeddingModel(config().provider, config().model)
    dimension = provider(*key).dimension
    if reason := unfit(dimension):
        raise Invalid.at("/embedding", f"is required: the server's default model {reason}")
    return KnownModel(key, dimension)


def _missing(chunks: Sequence[C], *, changes: bool = False) -> list[int]:
    """Which of the chunks need a vector. With `changes`, what names neither text nor vector keeps its vector."""
    return [
        i for i, chunk in enumerate(chunks) if not chunk.is_set("embedding") and (chunk.is_set("text") or not changes)
    ]


def _changed(library: Library, ids: Sequence[str], chunks: Sequence[C], missing: Sequence[int]) -> list[int]:
    """Those that are `missing` a vector and have another text than the stored chunk of their id has. Where there is
    none, there is nothing to embed: the service says so."""
    stored = sql.stored_chunks(library, [ids[i] for i in missing])
    return [i for i in missing if ids[i] in stored and stored[ids[i]].text != chunks[i].text]


def _kept(chunks: Sequence[DocumentChunk], stored: Sequence[EmbeddedChunk]) -> list[DocumentChunk]:
    """The chunks of a document, those without a vector with one that is `stored` for their text, where there is one.

    Each stored chunk gives its vector once: to the chunk of its id, else of its metadata, else to any. Those that no
    chunk names are the first to go to chunks without an id, as the service matches them.
    """
    ids = {chunk.id for chunk in chunks if chunk.is_set("id")}
    left = {chunk.id: chunk for chunk in sorted(stored, key=lambda chunk: chunk.id in ids)}
    taken: dict[int, EmbeddedChunk] = {}
    for same in (attrgetter("id", "text"), _content, attrgetter("text")):
        found: defaultdict[Any, list[EmbeddedChunk]] = defaultdict(list)
        for chunk in reversed(left.values()):
            found[same(chunk)].append(chunk)
        for i in sorted(range(len(chunks)), key=lambda i: chunks[i].is_set("id")):
            if i not in taken and found[same(chunks[i])]:
                taken[i] = found[same(chunks[i])].pop()
                del left[taken[i].id]
    return [
        chunk.model_copy(update={"embedding": taken[i].embedding})
        if i in taken and not chunk.is_set("embedding")
        else chunk
        for i, chunk in enumerate(chunks)
    ]


def _content(chunk: DocumentChunk | EmbeddedChunk) -> tuple[str, bytes]:
    return chunk.text, orjson.dumps(chunk.metadata, option=orjson.OPT_SORT_KEYS)


def _embedded(
    model: KnownModel | None, chunks: Sequence[C], pointers: Sequence[str], missing: Sequence[int]
) -> list[C]:
    """The chunks with vectors for those that are `missing` one, made of their texts, each different text once.

    Without a model they stay as they are, and the service says what is missing.
    """
    given = list(chunks)
    if model is None or not missing:
        return given
    for i in missing:
        if not chunks[i].text.strip():
            raise Invalid.at(f"{pointers[i]}/text", "is required, or an embedding: there is nothing to embed")
    texts = list(dict.fromkeys(chunks[i].text for i in missing))
    made = dict(zip(texts, embed(*model.key, texts, "document"), strict=True))
    for i in missing:
        given[i] = chunks[i].model_copy(update={"embedding": made[chunks[i].text]})
    return given
