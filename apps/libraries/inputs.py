"""What a write may say: one strict model per request body, shared by the API and every other caller of the services."""

from typing import Annotated, Any, Literal

from django.conf import settings
from pydantic import AfterValidator, Field, TypeAdapter, WithJsonSchema

from apps.engine.metrics import Metric
from apps.engine.registry import AUTO, INDEX_TYPES
from apps.libraries.ids import new_id
from apps.libraries.models import EMBEDDING_MODEL_MAX_LENGTH
from apps.libraries.values import (
    Fixed,
    Identifier,
    Input,
    Metadata,
    Name,
    NewIdentifier,
    NotNull,
    Several,
    Text,
    Unbuilt,
    Vector,
    Whole,
    refusal,
)

MetricName = Literal["cosine", "dot", "euclidean"]


def _index_type(value: str) -> str:
    if value != AUTO and value not in INDEX_TYPES:
        raise refusal(f"must be one of: {AUTO}, {', '.join(INDEX_TYPES)}")
    return value


IndexType = Annotated[str, AfterValidator(_index_type), Field(json_schema_extra={"enum": [AUTO, *INDEX_TYPES]})]
IndexParams = dict[str, Any]
Dimension = Annotated[int, Whole(1, settings.LIMITS.dimension, "VECTORDB_MAX_DIMENSION")]


class Embedding(Input):
    """The model that makes vectors of a library's texts."""

    provider: Annotated[str, Field(max_length=64)]
    model: Annotated[str, Field(max_length=EMBEDDING_MODEL_MAX_LENGTH)]


class LibraryCreate(Input):
    """A new library. Without `dimension`, the first vector written or the embedding model fixes it."""

    id: NewIdentifier = Field(default_factory=new_id)
    name: Name
    description: Text = ""
    dimension: Annotated[Dimension | None, NotNull, WithJsonSchema(TypeAdapter(Dimension).json_schema())] = None
    metric: MetricName = Metric.COSINE.value
    index_type: IndexType = AUTO
    index_params: IndexParams = {}
    embedding: Annotated[Embedding | None, NotNull, WithJsonSchema(TypeAdapter(Embedding).json_schema())] = None
    metadata: Metadata = {}


class LibraryUpdate(Input):
    """The fields of a library to change; the others stay."""

    name: Name = ""
    description: Text = ""
    metadata: Metadata = {}
    index_type: IndexType = AUTO
    index_params: IndexParams = {}
    id: Fixed = None
    dimension: Fixed = None
    metric: Fixed = None
    embedding: Fixed = None


class Reindex(Input):
    """A rebuild of a library's index, also by another type or with other parameters."""

    index_type: IndexType = AUTO
    index_params: IndexParams = {}


class ChunkInput(Input):
    """A chunk as it is written alone. `embedding` may be left out only where the vector stays as it is."""

    id: NewIdentifier = Field(default_factory=new_id)
    document_id: Identifier | None = None
    text: Text = ""
    embedding: Vector = []
    metadata: Metadata = {}


class DocumentChunk(Input):
    """A chunk as it is written within its document."""

    id: NewIdentifier = Field(default_factory=new_id)
    text: Text = ""
    embedding: Vector = []
    metadata: Metadata = {}


CHUNKS_PER_WRITE = Several(settings.LIMITS.chunks_per_write, "VECTORDB_MAX_CHUNKS_PER_WRITE")


class ChunksWrite(Input):
    """Chunks to write in one transaction: `upsert` replaces or creates, `insert` creates, `update` changes."""

    chunks: Annotated[list[ChunkInput], CHUNKS_PER_WRITE]
    mode: Literal["upsert", "insert", "update"] = "upsert"


class ChunkUpdate(Input):
    """The fields of a chunk to change; the others stay. `document_id: null` detaches it from its document."""

    document_id: Identifier | None = None
    text: Text = ""
    embedding: Vector = []
    metadata: Metadata = {}


class DocumentInput(Input):
    """A document with its chunks, in order."""

    id: NewIdentifier = Field(default_factory=new_id)
    title: Text = ""
    source: Text = ""
    metadata: Metadata = {}
    text: Unbuilt = None
    chunking: Unbuilt = None
    chunks: Annotated[list[DocumentChunk], CHUNKS_PER_WRITE]


class DocumentsWrite(Input):
    """Documents to create in one transaction; the limit of chunks per write counts the chunks of all of them."""

    documents: Annotated[list[DocumentInput], CHUNKS_PER_WRITE]


class DocumentUpdate(Input):
    """The fields of a document to change; the others stay, and so do its chunks."""

    title: Text = ""
    source: Text = ""
    metadata: Metadata = {}
