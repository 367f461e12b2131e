"""Documents that come with a text: split into chunks by what the library's model counts as tokens, before any write.

A chunk's metadata stays empty, also of its place in the text: PUT knows a chunk again by equal content, and places
would make all chunks behind a changed sentence others.
"""

from collections.abc import Sequence

from django.conf import settings

from apps.embeddings.provider import Provider
from apps.embeddings.splitting import TooManyPieces, split
from apps.libraries.errors import Invalid
from apps.libraries.inputs import Chunking, DocumentChunk, DocumentInput

# UTF-8 has at most so many bytes for a character.
_BYTES_PER_CHARACTER = 4
_DEFAULT = Chunking()


def with_chunks(documents: Sequence[DocumentInput], pointers: Sequence[str], provider: Provider) -> list[DocumentInput]:
    """The documents, each with chunks: those of its text, or its own. Raises Invalid, and what the provider raises."""
    limits = settings.LIMITS
    if sum(len(document.text.encode()) for document in documents) > limits.split_bytes:
        detail = f"must have at most {limits.split_bytes} bytes of text in all (limit VECTORDB_MAX_SPLIT_BYTES)"
        raise Invalid.at("/documents", detail)
    left = limits.chunks_per_write - sum(len(document.chunks) for document in documents)
    split_ones = []
    for document, at in zip(documents, pointers, strict=True):
        if document.is_set("text"):
            document = _split(document, at, provider, left)
            left -= len(document.chunks)
        split_ones.append(document)
    return split_ones


def _split(document: DocumentInput, at: str, provider: Provider, most: int) -> DocumentInput:
    limits = settings.LIMITS
    max_tokens, overlap = _sizes(document.chunking or _DEFAULT, at, provider.most_tokens())
    try:
        pieces = split(
            document.text,
            count=provider.count_tokens,
            max_tokens=max_tokens,
            overlap=overlap,
            most=max(0, most),
            longest=max(1, limits.text_bytes // _BYTES_PER_CHARACTER),
        )
    except TooManyPieces as error:
        raise Invalid.at(
            f"{at}/text",
            f"would become about {error.about:,} chunks, and the request may write {max(0, most):,} (limit "
            "VECTORDB_MAX_CHUNKS_PER_WRITE): send chunking with a larger max_tokens or a smaller overlap, or parts of "
            "the text as documents of their own",
        ) from None
    return document.model_copy(update={"chunks": [DocumentChunk(text=piece) for piece in pieces]})


def _sizes(chunking: Chunking, at: str, limit: int | None) -> tuple[int, int]:
    """`max_tokens` and `overlap`, for a model that reads `limit` tokens. Raises Invalid."""
    max_tokens, overlap = chunking.max_tokens, chunking.overlap
    if limit is not None and max_tokens > limit:
        if chunking.is_set("max_tokens"):
            detail = f"must be at most {limit}: the library's embedding model reads no more tokens of a text"
            raise Invalid.at(f"{at}/chunking/max_tokens", detail)
        max_tokens = limit
    if not chunking.is_set("overlap"):
        overlap = max_tokens // 8
    if overlap > max_tokens // 2:
        # With more, a piece would hold little but what those before it hold, and there would be no end of them.
        raise Invalid.at(f"{at}/chunking/overlap", f"must be at most half of max_tokens, which is {max_tokens}")
    return max_tokens, overlap
