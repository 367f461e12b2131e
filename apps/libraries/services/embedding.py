"""The vectors of a write: taken from the request, or made of its texts before the write takes its lock.

A provider may take its time, so no text is embedded under a lock. `bind_model` checks under the lock that the library
still has the model; where that or a stored text has changed meanwhile, `retry_on_change` runs the service again.
A library that never had a vector gets the model that the request names, or else the server's default; but not where
the request also brings vectors, which another model may have made.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import wraps
from typing import ParamSpec, TypeVar

from django.conf import settings
from django.db import connection

from apps.embeddings.config import config
from apps.embeddings.errors import EmbeddingError, TextRefused, UnknownModel
from apps.embeddings.provider import Kind
from apps.embeddings.registry import provider
from apps.embeddings.services import embed, find_refused
from apps.engine.metrics import Metric
from apps.engine.vectors import Float32
from apps.libraries import selectors
from apps.libraries.errors import EmbeddingRequired, Fault, Invalid, ModelChanged, TextChanged
from apps.libraries.fields import AnyVector
from apps.libraries.inputs import ChunkContent
from apps.libraries.models import EmbeddingModel, KnownModel, Library
from apps.libraries.profile import stage
from apps.libraries.vector_input import parse_vectors

P = ParamSpec("P")
R = TypeVar("R")
_ATTEMPTS = 3
_NO_MODEL = (
    "this library has no embedding model; send a vector, null for none, or name the model that made the other vectors"
)


def retry_on_change(service: Callable[P, R]) -> Callable[P, R]:
    """Run `service` again, up to three times in all, where it raises ModelChanged or TextChanged."""

    @wraps(service)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        for _ in range(_ATTEMPTS - 1):
            with suppress(ModelChanged, TextChanged):
                return service(*args, **kwargs)
        return service(*args, **kwargs)

    return run


def known_model(model: EmbeddingModel, pointer: str) -> KnownModel:
    """The model that a request names at `pointer`. Raises Invalid if it cannot be used, or by no library."""
    try:
        dimension = provider(*model).dimension
    except EmbeddingError as error:
        field = "model" if isinstance(error, UnknownModel) else "provider"
        raise Invalid.at(f"{pointer}/{field}", f"cannot be used: {str(error).rstrip('.')}") from None
    if fault := dimension_fault(dimension):
        raise Invalid.at(f"{pointer}/model", fault)
    return KnownModel(model, dimension)


def dimension_fault(dimension: int | None) -> str | None:
    """Why no library can have a model whose vectors have that dimension; None if one can, or it is not known."""
    limit = settings.LIMITS.dimension
    if dimension is None or dimension <= limit:
        return None
    return f"makes vectors of {dimension} components, and there must be at most {limit} (limit VECTORDB_MAX_DIMENSION)"


def model_for(
    library: Library, named: Mapping[str, EmbeddingModel], *, brings_vectors: bool = False
) -> KnownModel | None:
    """The model that makes vectors for a write; None if the library has none and takes none, as it does not take the
    default where the request `brings_vectors` too.

    `named` are the models that the request names, by pointer. Raises ModelMismatch if one is not the library's,
    Invalid if it cannot be used.
    """
    if not library.takes_model:
        selectors.check_models(library.embedding, named)
        return None if library.embedding is None else KnownModel(library.embedding, library.dimension)
    if named:
        pointer, model = next(iter(named.items()))
        return known_model(model, pointer)
    if brings_vectors:
        return None
    model = EmbeddingModel(*config().default)
    dimension = provider(*model).dimension
    if fault := dimension_fault(dimension):
        raise Invalid.at("/embedding", f"is required: the server's default model {fault}")
    return KnownModel(model, dimension)


def embed_missing(
    model: KnownModel | None,
    chunks: Sequence[ChunkContent],
    pointers: Sequence[str],
    texts: Mapping[int, str],
) -> list[AnyVector | None]:
    """The vectors of chunks as the request brings them, None for none; of those whose numbers have `texts`, `model`'s
    of these.

    Equal texts are embedded once. Raises EmbeddingRequired if there is no model; Invalid for texts that are blank, past
    what a request may have, or refused by the provider; and what the provider raises.
    """
    vectors: list[AnyVector | None] = [chunk.embedding for chunk in chunks]
    if not texts:
        return vectors
    if connection.in_atomic_block:
        raise RuntimeError("texts must be embedded outside of a transaction")
    if model is None:
        raise EmbeddingRequired(
            "A chunk has no embedding, and this library has no embedding model to make one.",
            [Fault(f"{pointers[i]}/embedding", f"is required: {_NO_MODEL}") for i in texts],
        )
    left = limit = settings.LIMITS.embedded_bytes
    too_much = (
        f"is past the {limit} bytes of text that one request may have embedded (limit VECTORDB_MAX_EMBEDDED_BYTES): "
        "send fewer chunks at once"
    )
    faults = []
    for i, text in texts.items():
        left -= len(text.encode())
        if not text.strip():
            faults.append(Fault(f"{pointers[i]}/text", "is required, or an embedding: there is nothing to embed"))
        elif left < 0:
            faults.append(Fault(f"{pointers[i]}/text", too_much))
    if faults:
        raise Invalid("A text cannot be embedded.", faults)
    named = {
        f"{pointers[i]}/{'text' if chunks[i].embed_text is None else 'embed_text'}": text for i, text in texts.items()
    }
    with stage("embed"):
        made = embed_named(model.key, named, "document")
    for i, vector in zip(texts, made, strict=True):
        vectors[i] = vector
    return vectors


def embed_named(model: EmbeddingModel, texts: Mapping[str, str], kind: Kind) -> list[Float32]:
    """The vectors of texts that have their pointers; equal ones are embedded once. Raises Invalid for those that the
    provider refuses, and else as `embed`."""
    different = list(dict.fromkeys(texts.values()))
    try:
        made = dict(zip(different, embed(*model, different, kind), strict=True))
    except TextRefused:
        refused = find_refused(*model, different, kind)
        if not refused:
            # They are too much together, or the provider has thought better of it.
            raise
        faults = [
            Fault(at, f"is refused by the embedding provider: {refused[text].reason}")
            for at, text in texts.items()
            if text in refused
        ]
        raise Invalid("The embedding provider does not take a text.", faults) from None
    return [made[text] for text in texts.values()]


def bind_model(library: Library, model: KnownModel | None, named: Mapping[str, EmbeddingModel]) -> None:
    """Check under the library's lock that `model`, which made vectors, and those that the request names are its own.

    `model` becomes the library's, with its dimension, if there never was a vector. Raises ModelMismatch, ModelChanged.
    """
    if model is not None and library.takes_model:
        (library.embedding_provider, library.embedding_model), library.dimension = model
        library.save(update_fields=["embedding_provider", "embedding_model", "dimension", "updated_at"])
    selectors.check_models(library.embedding, named)
    if model is not None and model.key != library.embedding:
        raise ModelChanged("The library's embedding model changed while the request was embedded; send it again.")


def check_vectors(
    library: Library, vectors: Sequence[AnyVector | None], pointers: Sequence[str]
) -> list[Float32 | None]:
    """The vectors of chunks, whose pointers are given, as float32 [dimension], None for none; the first ones fix the
    dimension. Raises Invalid."""
    given = {i: vector for i, vector in enumerate(vectors) if vector is not None}
    matrix = parse_vectors(
        list(given.values()),
        [pointers[i] for i in given],
        "/embedding",
        dimension=library.dimension,
        metric=Metric(library.metric),
    )
    if library.dimension is None and len(matrix):
        library.dimension = matrix.shape[1]
        library.save(update_fields=["dimension", "updated_at"])
    rows: list[Float32 | None] = [None] * len(vectors)
    for i, row in zip(given, matrix, strict=True):
        rows[i] = row
    return rows
