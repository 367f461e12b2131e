"""Writes of chunks that come with text and without vectors: the library's model makes them, then the service writes.

Texts are embedded before the write takes its lock, since a provider may take its time. The write then checks that the
model is still the library's, and starts over where it is not. A library that never had a vector gets the server's
default model. Nothing is stored when a provider fails.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from django.db import connection

from apps.embeddings.config import config
from apps.embeddings.errors import EmbeddingError, UnknownModel
from apps.embeddings.registry import provider
from apps.embeddings.services import embed
from apps.engine.vectors import Float32
from apps.libraries import selectors
from apps.libraries.errors import Invalid, ModelChanged
from apps.libraries.inputs import (
    ChunkInput,
    ChunksWrite,
    ChunkUpdate,
    DocumentChunk,
    DocumentInput,
    Embedding,
    LibraryCreate,
)
from apps.libraries.models import EmbeddingModel, Library
from apps.libraries.services import chunks as chunk_services
from apps.libraries.services import documents as document_services
from apps.libraries.services import libraries as library_services
from apps.libraries.services.chunks import Written
from apps.libraries.services.documents import Replaced

C = TypeVar("C", ChunkInput, ChunkUpdate, DocumentChunk)
R = TypeVar("R")
_ATTEMPTS = 3


def create_library(*, create: LibraryCreate) -> Library:
    """As the service, once it is sure that there is such an embedding model."""
    if create.embedding is not None:
        dimension = checked_dimension(create.embedding)
        if dimension is not None and create.dimension not in (None, dimension):
            raise Invalid.at("/dimension", f"must be {dimension}, that of the embedding model, or be left out")
    return library_services.create_library(create=create)


def checked_dimension(embedding: Embedding) -> int | None:
    """The dimension of the model that a request names at /embedding, as far as it is known; raises Invalid where there
    is no such model, as far as that is known."""
    try:
        return provider(embedding.provider, embedding.model).dimension
    except UnknownModel as error:
        raise Invalid.at("/embedding/model", _clause(error)) from None
    except EmbeddingError as error:
        raise Invalid.at("/embedding/provider", _clause(error)) from None


def _clause(error: EmbeddingError) -> str:
    return f"cannot be used: {str(error).rstrip('.')}"


def write_chunks(*, library_id: str, write: ChunksWrite) -> Written:
    """As the service; chunks without a vector get one by their text."""

    def run(chunks: Sequence[ChunkInput], model: EmbeddingModel | None) -> Written:
        given = write.model_copy(update={"chunks": list(chunks)})
        return chunk_services.write_chunks(library_id=library_id, write=given, model=model)

    pointers = [f"/chunks/{i}" for i in range(len(write.chunks))]
    return _embedded(library_id, write.chunks, pointers, run, changes=write.mode == "update")


def update_chunk(*, library_id: str, chunk_id: str, update: ChunkUpdate, if_match: str | None) -> dict[str, Any]:
    """As the service; a changed text without a vector gets one."""

    def run(updates: Sequence[ChunkUpdate], model: EmbeddingModel | None) -> dict[str, Any]:
        return chunk_services.update_chunk(
            library_id=library_id, chunk_id=chunk_id, update=updates[0], if_match=if_match, model=model
        )

    return _embedded(library_id, [update], [""], run, changes=True)


def create_document(*, library_id: str, document: DocumentInput) -> dict[str, Any]:
    """As the service; chunks without a vector get one by their text."""

    def run(chunks: Sequence[DocumentChunk], model: EmbeddingModel | None) -> dict[str, Any]:
        given = document.model_copy(update={"chunks": list(chunks)})
        return document_services.create_document(library_id=library_id, document=given, model=model)

    return _embedded(library_id, document.chunks, [f"/chunks/{i}" for i in range(len(document.chunks))], run)


def create_documents(*, library_id: str, documents: Sequence[DocumentInput]) -> list[dict[str, Any]]:
    """As the service; chunks without a vector get one by their text."""
    chunks = [chunk for document in documents for chunk in document.chunks]
    pointers = [
        f"/documents/{i}/chunks/{j}" for i, document in enumerate(documents) for j in range(len(document.chunks))
    ]

    def run(chunks: Sequence[DocumentChunk], model: EmbeddingModel | None) -> list[dict[str, Any]]:
        left = iter(chunks)
        given = [
            document.model_copy(update={"chunks": [next(left) for _ in document.chunks]}) for document in documents
        ]
        return document_services.create_documents(library_id=library_id, documents=given, model=model)

    return _embedded(library_id, chunks, pointers, run)


def replace_document(*, library_id: str, document_id: str, document: DocumentInput, if_match: str | None) -> Replaced:
    """As the service; chunks without a vector get one by their text, the stored one of a text that was there."""

    def run(chunks: Sequence[DocumentChunk], model: EmbeddingModel | None) -> Replaced:
        given = document.model_copy(update={"chunks": list(chunks)})
        return document_services.replace_document(
            library_id=library_id, document_id=document_id, document=given, if_match=if_match, model=model
        )

    pointers = [f"/chunks/{i}" for i in range(len(document.chunks))]
    return _embedded(library_id, document.chunks, pointers, run, of_document=document_id)


def _embedded(
    library_id: str,
    chunks: Sequence[C],
    pointers: Sequence[str],
    run: Callable[[Sequence[C], EmbeddingModel | None], R],
    *,
    changes: bool = False,
    of_document: str | None = None,
) -> R:
    """`run` with `chunks` that have vectors, and the model that made some. With `changes`, what names neither text nor
    vector keeps its vector."""
    missing = [
        i for i, chunk in enumerate(chunks) if not chunk.names("embedding") and (chunk.names("text") or not changes)
    ]
    if not missing:
        return run(chunks, None)
    if connection.in_atomic_block:
        raise RuntimeError("texts must be embedded outside of a transaction")
    for attempt in range(_ATTEMPTS):
        library = selectors.library_row(library_id)
        default = EmbeddingModel(config().provider, config().model) if library.dimension is None else None
        model = library.embedding or default
        if model is None:
            return run(chunks, None)  # which says what is missing
        for i in missing:
            if not chunks[i].text.strip():
                raise Invalid.at(f"{pointers[i]}/text", "is required, or an embedding: there is nothing to embed")
        known: Mapping[str, Float32] = {}
        if of_document is not None and library.embedding is not None:
            known = selectors.vectors_by_text(library=library, document_id=of_document)
        vectors = _vectors([chunks[i].text for i in missing], model, known)
        with_vectors = list(chunks)
        for i, vector in zip(missing, vectors, strict=True):
            with_vectors[i] = chunks[i].model_copy(update={"embedding": vector})
        try:
            return run(with_vectors, model)
        except ModelChanged:
            if attempt == _ATTEMPTS - 1:
                raise
    raise AssertionError("unreachable")


def _vectors(texts: Sequence[str], model: EmbeddingModel, known: Mapping[str, Float32]) -> list[Float32]:
    new = list(dict.fromkeys(text for text in texts if text not in known))
    made = dict(zip(new, embed(*model, new, "document"), strict=True))
    return [known[text] if text in known else made[text] for text in texts]
