"""The shapes of the answers, for the schema. Answers are not validated on their way out; tests compare them."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.json_schema import SkipJsonSchema

from apps.libraries.inputs import MetricName

Timestamp = Annotated[str, Field(json_schema_extra={"format": "date-time"})]
Count = Annotated[int, Field(ge=0)]


class Output(BaseModel):
    """Base of all answers."""

    model_config = ConfigDict(extra="forbid")


class Fault(Output):
    """One thing wrong in a request."""

    pointer: Annotated[str, Field(description="JSON pointer into the body, or /name of a query parameter.")]
    detail: str


class Problem(Output):
    """An error, by RFC 9457."""

    type: str
    title: str
    status: int
    detail: str
    code: Annotated[str, Field(description="Stable; docs/errors.md lists them.")]
    request_id: str
    errors: list[Fault]


class Model(Output):
    provider: str
    model: str


class Library(Output):
    id: str
    name: str
    description: str
    dimension: int | None
    metric: MetricName
    index_type: str
    index_params: dict[str, Any]
    embedding: Annotated[Model | None, Field(description="Which model makes vectors of texts.")]
    metadata: dict[str, Any]
    created_at: Timestamp
    updated_at: Timestamp


class LibraryPage(Output):
    items: list[Library]
    next_cursor: str | None


class Segment(Output):
    kind: str
    rows: Count
    rows_dead: Count
    bytes: Count


class Index(Output):
    kind: str
    state: Literal["ready", "building", "failed"]
    error: str | None
    warning: str | None
    rows_indexed: Count
    rows_pending: Count
    rows_tail: Annotated[Count, Field(description="Rows in memory that are in no segment; they are scanned.")]
    rows_dead: Count
    bytes: Count
    built_at: Timestamp | None
    segments: list[Segment]


class Reembedding(Output):
    provider: str
    model: str
    state: Annotated[
        Literal["running", "waiting", "failed"],
        Field(description="After a failure that may pass it waits for a minute; after others, to be asked for again."),
    ]
    embedded: Annotated[Count, Field(description="How many chunks have their new vector.")]
    chunks: Count
    error: Annotated[str | None, Field(description="Why it waits or failed.")]
    started_at: Timestamp


class Stats(Output):
    documents: Count
    chunks: Count
    revision: Count
    index: Index
    reembedding: Annotated[Reembedding | None, Field(description="The move to another embedding model, if any.")]


class Document(Output):
    id: str
    title: str
    source: str
    metadata: dict[str, Any]
    chunk_count: Count
    created_at: Timestamp
    updated_at: Timestamp


class DocumentPage(Output):
    items: list[Document]
    next_cursor: str | None


class DocumentCreated(Document):
    chunk_ids: list[str]


class DocumentsCreated(Output):
    ids: list[str]
    documents: list[DocumentCreated]


class DocumentReplaced(Output):
    id: str
    chunk_ids: list[str]
    created: Count
    updated: Count
    unchanged: Count
    deleted: Count


class Chunk(Output):
    id: str
    document_id: str | None
    text: str
    metadata: dict[str, Any]
    position: int | None
    embedding: Annotated[
        list[float] | SkipJsonSchema[None], Field(description="Where it was asked for by `include`.")
    ] = None
    created_at: Timestamp
    updated_at: Timestamp


class ChunkPage(Output):
    items: list[Chunk]
    next_cursor: str | None


class ChunksWritten(Output):
    ids: list[str]
    created: Count
    updated: Count


class ChunksFound(Output):
    items: list[Chunk]
    missing: list[str]


class Deleted(Output):
    deleted: Count


class Counted(Output):
    count: Count


class Facet(Output):
    value: Any
    count: Count


class Facets(Output):
    facets: Annotated[list[Facet], Field(description="Values with the number of chunks that have them, most first.")]
    values: Annotated[Count, Field(description="How many different values there are.")]
    chunks: Annotated[Count, Field(description="How many chunks the filter matches.")]


class ResultDocument(Output):
    id: str
    title: str
    source: str
    metadata: dict[str, Any]


class Result(Output):
    id: str
    document_id: str | None
    score: Annotated[
        float,
        Field(
            description="Higher is better: cosine, inner product, or minus the L2 distance; by words BM25, by both the "
            "sum of reciprocal ranks."
        ),
    ]
    distance: Annotated[
        float,
        Field(
            description="Lower is better: 1 - cosine, minus the inner product, or L2; by words or both minus the score."
        ),
    ]
    vector_rank: Annotated[
        int | None, Field(description="In mode hybrid: the rank by vector, from 1; null where it did not count.")
    ] = None
    lexical_rank: Annotated[int | None, Field(description="In mode hybrid: the rank by words, likewise.")] = None
    text: str | SkipJsonSchema[None] = None
    metadata: dict[str, Any] | SkipJsonSchema[None] = None
    embedding: list[float] | SkipJsonSchema[None] = None
    document: ResultDocument | None = None


class QueryMeta(Output):
    revision: Count
    index: str
    exact: Annotated[bool, Field(description="Whether these provably are the k best.")]
    plan: str
    scanned: Annotated[Count, Field(description="How many vectors the query was compared with.")]
    took_ms: float
    incomplete: Annotated[
        bool | SkipJsonSchema[None],
        Field(
            description="With filter_mode post: whether matching chunks may be missing though fewer than k are shown."
        ),
    ] = None
    warning: Annotated[
        str | SkipJsonSchema[None], Field(description="Where no score can reach the score_threshold.")
    ] = None


class QueryAnswer(Output):
    results: list[Result]
    meta: QueryMeta


class QueryAnswers(Output):
    results: list[QueryAnswer]


class Root(Output):
    libraries: str
    schema_: Annotated[str, Field(alias="schema")]
    docs: str
