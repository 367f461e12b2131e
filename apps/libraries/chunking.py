"""Split documents that come with a text into chunks, by what the library's model counts as tokens.

The metadata of such a chunk stays empty: PUT knows a chunk again by equal content.
"""

from collections.abc import Sequence

from django.conf import settings

from apps.embeddings.provider import Provider
from apps.embeddings.registry import provider
from apps.embeddings.splitting import TooManyChunks, split_text
from apps.libraries.errors import EmbeddingRequired, Fault, Invalid
from apps.libraries.inputs import Chunking, DocumentChunk, DocumentInput
from apps.libraries.models import KnownModel

# UTF-8 has at most four bytes for a character.
_BYTES_PER_CHARACTER = 4
_DEFAULT = Chunking()


def split_texts(
    documents: Sequence[DocumentInput], pointers: Sequence[str], model: KnownModel | None
) -> Sequence[DocumentInput]:
    """The documents, those with a text with its chunks for `model`. Raises Invalid, EmbeddingRequired if there is no
    model, and what the provider raises."""
    faults = [
        Fault(f"{pointer}/text", "cannot be embedded: send chunks with vectors instead")
        for document, pointer in zip(documents, pointers, strict=True)
        if document.is_set("text")
    ]
    if not faults:
        return documents
    if model is None:
        raise EmbeddingRequired("This library has no embedding model.", faults)
    return split_documents(documents, pointers, provider(*model.key))


def split_documents(
    documents: Sequence[DocumentInput], pointers: Sequence[str], provider: Provider
) -> list[DocumentInput]:
    """The documents, each with chunks: those of its text, or its own. Raises Invalid, and what the provider raises."""
    limits = settings.LIMITS
    if sum(len(document.text.encode()) for document in documents) > limits.split_bytes:
        detail = f"must have at most {limits.split_bytes} bytes of text in all (limit VECTORDB_MAX_SPLIT_BYTES)"
        raise Invalid.at("/documents", detail)
    left = limits.chunks_per_write - sum(len(document.chunks) for document in documents)
    with_chunks = []
    for document, pointer in zip(documents, pointers, strict=True):
        if document.is_set("text"):
            texts = _split(document, pointer, provider, max(0, left))
            left -= len(texts)
            document = document.model_copy(update={"chunks": [DocumentChunk(text=text) for text in texts]})
        with_chunks.append(document)
    return with_chunks


def _split(document: DocumentInput, pointer: str, provider: Provider, limit: int) -> list[str]:
    """The text of `document` as at most `limit` chunks."""
    max_tokens, overlap = _chunk_sizes(document.chunking or _DEFAULT, pointer, provider.max_tokens())
    try:
        return split_text(
            document.text,
            count_tokens=provider.count_tokens,
            max_tokens=max_tokens,
            overlap=overlap,
            max_chunks=limit,
            max_characters=max(1, settings.LIMITS.text_bytes // _BYTES_PER_CHARACTER),
        )
    except TooManyChunks as error:
        raise Invalid.at(
            f"{pointer}/text",
            f"would become about {error.about:,} chunks, and the request may write {limit:,} (limit "
            "VECTORDB_MAX_CHUNKS_PER_WRITE): send chunking with a larger max_tokens or a smaller overlap, or parts of "
            "the text as documents of their own",
        ) from None


def _chunk_sizes(chunking: Chunking, pointer: str, limit: int | None) -> tuple[int, int]:
    """`max_tokens` and `overlap`, for a model that reads `limit` tokens. Raises Invalid."""
    max_tokens, overlap = chunking.max_tokens, chunking.overlap
    if limit is not None and max_tokens > limit:
        if chunking.is_set("max_tokens"):
            detail = f"must be at most {limit}: the library's embedding model reads no more tokens of a text"
            raise Invalid.at(f"{pointer}/chunking/max_tokens", detail)
        max_tokens = limit
    if not chunking.is_set("overlap"):
        overlap = max_tokens // 8
    if overlap > max_tokens // 2:
        # With more, a chunk would hold little but what those before it hold, and their number would explode.
        raise Invalid.at(f"{pointer}/chunking/overlap", f"must be at most half of max_tokens, which is {max_tokens}")
    return max_tokens, overlap
