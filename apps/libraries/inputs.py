"""What a write may say: one strict model per request body, shared by the API and every other caller of the services."""

from typing import Annotated, Any, Literal

from django.conf import settings
from pydantic import (
    AfterValidator,
    Field,
    PrivateAttr,
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)

from apps.engine.indexes.registry import AUTO, INDEX_TYPES
from apps.engine.metrics import Metric
from apps.libraries.errors import Invalid
from apps.libraries.fields import (
    MAX_UNINDEXED,
    BoundedInt,
    EmbedText,
    Expiry,
    Fixed,
    Identifier,
    Input,
    LargeBody,
    LongText,
    Metadata,
    MetadataPath,
    Name,
    NewIdentifier,
    NewLibraryIdentifier,
    NotNull,
    OptionalVector,
    PlainText,
    Text,
    bounded_list,
    check_distinct_paths,
    validation_error,
)
from apps.libraries.ids import new_id
from apps.libraries.models import EMBEDDING_MODEL_MAX_LENGTH, EmbeddingModel

MetricName = Literal["cosine", "dot", "euclidean"]


def _check_index_type(value: str) -> str:
    if value != AUTO and value not in INDEX_TYPES:
        raise validation_error(f"must be one of: {AUTO}, {', '.join(INDEX_TYPES)}")
    return value


IndexType = Annotated[str, AfterValidator(_check_index_type), Field(json_schema_extra={"enum": [AUTO, *INDEX_TYPES]})]
IndexParams = Annotated[
    dict[str, Any], Field(description="Parameters of that type of index; docs/indexes.md lists them.")
]
Unindexed = Annotated[
    list[MetadataPath],
    AfterValidator(check_distinct_paths),
    Field(
        max_length=MAX_UNINDEXED,
        description="Paths of metadata that is stored and returned, but not indexed: no filter, facet or boost can "
        "look at it, and it takes no memory. `@document.` begins those of documents' metadata.",
    ),
]
Dimension = Annotated[int, BoundedInt(1, settings.LIMITS.dimension, "VECTORDB_MAX_DIMENSION")]


class Embedding(Input):
    """The model that makes vectors of a library's texts."""

    provider: Annotated[PlainText, Field(max_length=64, description="Who makes the vectors, such as `hashing`.")]
    model: Annotated[
        PlainText, Field(max_length=EMBEDDING_MODEL_MAX_LENGTH, description="The model, as its provider names it.")
    ]

    @property
    def key(self) -> EmbeddingModel:
        """The model as a library stores it."""
        return EmbeddingModel(self.provider, self.model)


NamedModel = Annotated[
    Embedding | None,
    NotNull(),
    Field(description="The model that the request takes the library to have; 409 if it has another."),
]
Profiled = Annotated[bool, Field(description="Whether to say how many milliseconds each stage took.")]
Title = Annotated[Text, Field(description="A title for people.")]
Source = Annotated[Text, Field(description="Where it came from, such as a path or URL.")]


class LibraryCreate(Input):
    """A new library. Without `dimension`, the first vector written or the embedding model fixes it."""

    id: NewLibraryIdentifier = Field(default_factory=new_id, description="Unique in the server; left out, one is made.")
    name: Name = Field(description="A title for people.")
    description: Text = Field("", description="A text for people.")
    dimension: Annotated[Dimension | None, NotNull()] = Field(
        None, description="Components of each vector; left out, the first vector or model fixes it."
    )
    metric: MetricName = Field(
        Metric.COSINE.value, description="Cosine, inner product or L2 distance; fixed from then on."
    )
    index_type: IndexType = Field(AUTO, description="How vectors are searched; `auto` chooses by size and dimension.")
    index_params: IndexParams = {}
    embedding: NamedModel = Field(None, description="The model that makes vectors of texts.")
    metadata: Metadata = Field({}, description="JSON of your own; the server only stores it.")
    unindexed: Unindexed = []


class LibraryUpdate(Input):
    """The fields of a library to change; the others stay. `embedding` must be the library's model, if it has one."""

    name: Name = Field("", description="A title for people.")
    description: Text = Field("", description="A text for people.")
    metadata: Metadata = Field({}, description="JSON of your own, which replaces all there is.")
    index_type: IndexType = Field("", description="Another type of index; it is rebuilt while queries go on.")
    index_params: IndexParams = {}
    unindexed: Unindexed = []
    id: Fixed = None
    dimension: Fixed = None
    metric: Fixed = None
    embedding: NamedModel = None


class Reembed(Input):
    """The model that a library is to be moved to."""

    embedding: Embedding = Field(description="The new model.")


class Reindex(Input):
    """A rebuild of a library's index, also by another type or with other parameters."""

    index_type: IndexType = Field("", description="Another type of index; left out, the present one.")
    index_params: IndexParams = {}


class ChunkContent(Input):
    """The fields that every way to write a chunk has."""

    text: Text = Field("", description="The text; it may be left out where `embedding` is given.")
    embed_text: EmbedText | None = Field(
        None,
        description="What the library's model makes the vector of, such as title and text; null for the text itself.",
    )
    embedding: OptionalVector = Field(
        [],
        description="The vector; left out, the library's model makes one of a new text. With null the chunk has none: "
        "filters and words find it, vectors do not.",
    )
    metadata: Metadata = Field({}, description="JSON of your own, replaced as a whole; filters look at it.")
    expires_at: Expiry = None

    @property
    def brings_vector(self) -> bool:
        """Whether the request has a vector for the chunk."""
        return self.is_set("embedding") and self.embedding is not None


def check_chunk_count(count: int) -> None:
    """Raise Invalid if the documents of one write have more chunks than it may have."""
    limit = settings.LIMITS.chunks_per_write
    if count > limit:
        detail = f"must have at most {limit} chunks in all (limit VECTORDB_MAX_CHUNKS_PER_WRITE)"
        raise Invalid.at("/documents", detail)


class _NewChunk(ChunkContent):
    """A chunk with its id."""

    id: NewIdentifier = Field(default_factory=new_id, description="Unique in the library; left out, one is made.")


class DocumentChunk(_NewChunk):
    """A chunk as it is written within its document."""

    @model_validator(mode="after")
    def _count(self, info: ValidationInfo) -> "DocumentChunk":
        if isinstance(info.context, LargeBody):
            # One list of chunks stops by itself, one past the limit; many are stopped here.
            check_chunk_count(info.context.add_chunk() - 1)
        return self


class ChunkInput(_NewChunk):
    """A chunk as it is written alone. Without `embedding`, the library's model makes one of the text."""

    document_id: Identifier | None = Field(
        None, description="Its document; null for none, left out to keep the one it has."
    )


class ChunkUpdate(ChunkContent):
    """The fields of a chunk to change; the others stay. `document_id: null` detaches it from its document."""

    document_id: Identifier | None = Field(
        None, description="Its document; null for none, left out to keep the one it has."
    )


CHUNKS_PER_WRITE = bounded_list(settings.LIMITS.chunks_per_write)


class ChunksWrite(Input):
    """Chunks to write in one transaction: `upsert` replaces or creates, `insert` creates, `update` changes."""

    chunks: Annotated[list[ChunkInput], CHUNKS_PER_WRITE] = Field(description="The chunks; no id comes twice.")
    embedding: NamedModel = None
    profile: Profiled = False
    mode: Literal["upsert", "insert", "update"] = Field(
        "upsert",
        description="`upsert` creates or replaces, `insert` refuses ids in use, `update` changes what is named.",
    )

    on_invalid: Literal["refuse", "skip"] = Field(
        "refuse",
        description="Whether chunks that cannot be stored refuse the request, or are left out and listed in `skipped`.",
    )
    create_documents: bool = Field(
        False, description="Whether to make the documents that chunks name and that do not exist."
    )


class InvalidChunk(ChunkInput):
    """Stands for a chunk of a request that cannot be parsed, and has the `error`."""

    _error: ValidationError = PrivateAttr()

    @property
    def error(self) -> ValidationError:
        """Why the chunk cannot be parsed; locations are within the chunk."""
        return self._error


def _parse_or_keep_error(value: Any, parse: ValidatorFunctionWrapHandler) -> ChunkInput:
    try:
        chunk: ChunkInput = parse(value)
    except ValidationError as error:
        invalid = InvalidChunk.model_construct()
        invalid._error = error
        return invalid
    return chunk


class PartialChunksWrite(ChunksWrite):
    """The same write where chunks that cannot be parsed are skipped."""

    chunks: Annotated[list[Annotated[ChunkInput, WrapValidator(_parse_or_keep_error)]], CHUNKS_PER_WRITE]
    on_invalid: Literal["skip"]


class Chunking(Input):
    """How a text is split: chunks have at most `max_tokens` tokens, of which at most `overlap`, no more than half, are
    also the last of the chunk before. Left out, `max_tokens` is no more than the model reads, and `overlap` an eighth
    of it."""

    max_tokens: Annotated[int, BoundedInt(1, 4096, "of tokens in a chunk")] = Field(
        default_factory=lambda: 256, description="The most tokens in a chunk; left out, 256 or what the model reads."
    )
    overlap: Annotated[int, BoundedInt(0, 2048, "of tokens in a chunk")] = Field(
        default_factory=lambda: 32,
        description="The most tokens repeated from the chunk before; left out, an eighth of `max_tokens`.",
    )


class DocumentInput(Input):
    """A document with its chunks, in order, or with a text that is split into them: one of both."""

    id: NewIdentifier = Field(default_factory=new_id, description="Unique in the library; left out, one is made.")
    title: Title = ""
    source: Source = ""
    metadata: Metadata = Field({}, description="JSON of your own about the document.")
    expires_at: Expiry = None
    text: LongText = Field("", description="A text to split into chunks and to embed; it is not stored itself.")
    chunking: Annotated[Chunking | None, NotNull()] = Field(None, description="How the text is split.")
    chunks: Annotated[list[DocumentChunk], CHUNKS_PER_WRITE] = Field([], description="The chunks, in order.")
    embedding: NamedModel = None

    @model_validator(mode="after")
    def _check_content(self) -> "DocumentInput":
        if self.is_set("text") and self.is_set("chunks"):
            raise validation_error("cannot be sent together with chunks; leave one of them out", path=("text",))
        if not self.is_set("text") and not self.is_set("chunks"):
            raise validation_error("is required, or a text to be split", path=("chunks",))
        if self.is_set("chunking") and not self.is_set("text"):
            raise validation_error("is for a text; chunks are stored as they are", path=("chunking",))
        return self


class DocumentWrite(DocumentInput):
    """A document that is written alone."""

    profile: Profiled = False


class DocumentsWrite(Input):
    """Documents to write in one transaction: `insert` creates, `upsert` replaces or creates, as PUT does. The limit of
    chunks per write counts the chunks of all of them."""

    documents: Annotated[list[DocumentInput], CHUNKS_PER_WRITE] = Field(description="The documents; no id comes twice.")
    embedding: NamedModel = None
    profile: Profiled = False
    mode: Literal["insert", "upsert"] = Field(
        "insert", description="Whether ids must be new, or name documents to replace."
    )


class DocumentUpdate(Input):
    """The fields of a document to change; the others stay, and so do its chunks."""

    title: Title = ""
    source: Source = ""
    metadata: Metadata = Field({}, description="JSON of your own, which replaces all there is.")
    expires_at: Expiry = None


def named_models(write: ChunksWrite | DocumentInput | DocumentsWrite | LibraryUpdate) -> dict[str, EmbeddingModel]:
    """The models that a request names, by pointer."""
    named = {"/embedding": write.embedding}
    if isinstance(write, DocumentsWrite):
        named |= {f"/documents/{i}/embedding": document.embedding for i, document in enumerate(write.documents)}
    return {pointer: embedding.key for pointer, embedding in named.items() if embedding is not None}
