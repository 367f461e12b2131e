"""The shapes of the answers, for the schema. Answers are not validated on their way out; tests compare them."""

from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field
from pydantic.json_schema import SkipJsonSchema

from apps.libraries.inputs import Embedding, MetricName

Timestamp = Annotated[str, Field(json_schema_extra={"format": "date-time"})]
Count = Annotated[int, Field(ge=0)]
Item = TypeVar("Item")
# An array, or the base64 of little-endian float32, as `vectors` says.
ShownVector = list[float] | str


class Output(BaseModel):
    """Base of all answers."""

    # Only the schema needs what is built of them.
    model_config = ConfigDict(extra="forbid", defer_build=True)


Profile = Annotated[
    dict[str, float] | SkipJsonSchema[None],
    Field(description="With `profile`: the milliseconds of each stage, by name; docs/api.md says what they are."),
]


class Fault(Output):
    """One thing wrong in a request."""

    pointer: str = Field(description="JSON pointer into the body, or `/name` of a query parameter.")
    detail: str = Field(description="What is wrong there, as the end of a sentence that begins with the pointer.")


class Problem(Output):
    """An error, by RFC 9457."""

    type: str = Field(description="`urn:vectordb:problem:` and the code.")
    title: str = Field(description="The kind of error in words, the same for each error of this code.")
    status: int = Field(description="The HTTP status.")
    detail: str = Field(description="What went wrong and what to do about it.")
    code: str = Field(description="A stable name for programs; docs/errors.md lists them.")
    request_id: str = Field(description="The request's id, as in `X-Request-ID` and in the server's log.")
    errors: list[Fault] = Field(description="Each thing wrong in the request, at most 100; often empty.")


class Timestamps(Output):
    created_at: Timestamp = Field(description="When it was created: RFC 3339, UTC, with microseconds.")
    updated_at: Timestamp = Field(description="When it was last changed.")


class Page(Output, Generic[Item]):
    items: list[Item] = Field(description="At most `limit` items.")
    next_cursor: str | None = Field(description="Sent as `cursor`, it asks for the next page; null on the last one.")


class Library(Timestamps):
    """A library: what was said when it was created, and what was changed since."""

    id: str = Field(description="Its id, unique in the server.")
    name: str = Field(description="A title for people.")
    description: str = Field(description="A text for people; empty by default.")
    dimension: int | None = Field(description="Components of a vector; null until the first vector or model fixes it.")
    metric: MetricName = Field(description="By what vectors are compared: cosine, inner product or L2 distance.")
    index_type: str = Field(description="The type of index that was asked for; `auto` lets the server choose.")
    index_params: dict[str, Any] = Field(description="Parameters of the index that differ from its defaults.")
    embedding: Embedding | None = Field(description="The model that makes vectors of texts; null if there is none.")
    unindexed: list[str] = Field(description="The paths of metadata that no filter looks at.")
    metadata: dict[str, Any] = Field(description="JSON of your own; the server only stores it.")


class LibraryPage(Page[Library]):
    """Libraries, in order of creation."""


class Segment(Output):
    """An immutable part of the index: a file."""

    kind: str = Field(description="The type of its index; `none` for chunks without vectors.")
    rows: Count = Field(description="Chunks in it that exist as they are there.")
    rows_dead: Count = Field(description="Chunks in it that were deleted or replaced since; maintenance removes them.")
    bytes: Count = Field(description="Its size in bytes.")
    resident_bytes: Count = Field(
        description="What searches by vector keep in memory of it, unless they are asked to be exact."
    )


class Bytes(Output):
    """What one component takes up."""

    mapped: Count = Field(description="Bytes in mapped files, which all processes of a host share.")
    private: Count = Field(description="Bytes in memory of the answering worker alone.")


class Memory(Output):
    """What the answering worker's view of the library takes up."""

    vectors: Bytes = Field(description="The vectors as they were given, and their norms.")
    codes: Bytes = Field(description="Their 8-bit copies, which exact searches scan.")
    index: Bytes = Field(description="What indexes hold besides: graphs, tables, codes.")
    columns: Bytes = Field(description="Metadata by field, for filters.")
    words: Bytes = Field(description="The inverted indexes of texts.")
    keys: Bytes = Field(description="The keys of rows, and which of them are dead.")
    tail: Bytes = Field(description="Rows that are in no file yet, with all that belongs to them.")


class Recall(Output):
    """How many of the true nearest chunks live queries found, by the recall watch."""

    samples: Count = Field(description="How many of the last queries were repeated exactly, at most 500.")
    recall_at_k: float = Field(description="The mean share of the exact k best scores that they found.")
    since: Timestamp = Field(description="When the first of them was repeated.")


class Index(Output):
    """The state of a library's index. Every chunk is found in every state."""

    kind: str = Field(description="The type of index in use, also where `auto` chose it.")
    state: Literal["ready", "building", "failed"] = Field(
        description="`building` while maintenance has work to do, `failed` when that failed; it is tried again."
    )
    error: str | None = Field(description="Why building failed.")
    warning: str | None = Field(description="Why another type of index would serve this library better.")
    rows_indexed: Count = Field(description="Chunks in segments of the type asked for, or of chunks without vectors.")
    rows_pending: Count = Field(description="Chunks that are in no such segment yet; they are scanned.")
    rows_tail: Count = Field(description="Chunks in memory that are in no segment at all.")
    rows_dead: Count = Field(description="Deleted or replaced chunks that still take room in segments.")
    bytes: Count = Field(description="The size of all segments and of the chunks in memory, in bytes.")
    memory: Memory = Field(description="What these bytes are for, and whether they are in files.")
    built_at: Timestamp = Field(description="When the files in use were written, or else the view of the rows made.")
    segments: list[Segment] = Field(description="The parts that the index consists of.")


class Reembedding(Output):
    """The move of a library to another embedding model. Queries use the present vectors until it is done."""

    provider: str = Field(description="The provider of the new model.")
    model: str = Field(description="The new model.")
    state: Literal["running", "waiting", "failed"] = Field(
        description="After a failure that may pass it waits for a minute; after others, to be asked for again."
    )
    embedded: Count = Field(description="How many chunks have their new vector.")
    chunks: Count = Field(description="How many chunks the library has.")
    error: str | None = Field(description="Why it waits or failed.")
    started_at: Timestamp = Field(description="When it was asked for first.")


class Stats(Output):
    """What a library holds, and the state of its index, all of one moment."""

    documents: Count = Field(description="How many documents the library has.")
    chunks: Count = Field(description="How many chunks the library has.")
    chunks_without_vector: Count = Field(
        description="How many of them have no vector: no search by vector finds these."
    )
    revision: Count = Field(description="The state of the library; every change of a chunk increases it.")
    index: Index = Field(description="The index, as the answering worker uses it.")
    recall: Recall | None = Field(description="The recall of live queries; null where none was sampled yet.")
    reembedding: Reembedding | None = Field(description="The move to another embedding model; null if there is none.")


class ResultDocument(Output):
    """The document that a chunk belongs to."""

    id: str = Field(description="Its id, unique in the library.")
    title: str = Field(description="Its title; empty by default.")
    source: str = Field(description="Where it came from, such as a path or URL; empty by default.")
    metadata: dict[str, Any] = Field(description="JSON of your own about the document.")


class Document(ResultDocument, Timestamps):
    """A document, without its chunks."""

    expires_at: Timestamp | None = Field(description="From then on it and its chunks are in no answer; null for never.")
    chunk_count: Count = Field(description="How many chunks it has.")


class DocumentPage(Page[Document]):
    """Documents, in order of creation."""


class DocumentCreated(Document):
    """A new document."""

    chunk_ids: list[str] = Field(description="The ids of its chunks, in order.")
    profile: Profile = None


class DocumentReplaced(Output):
    """What became of a document's chunks."""

    id: str = Field(description="The document's id.")
    chunk_ids: list[str] = Field(description="The ids of its chunks now, in order.")
    created: Count = Field(description="Chunks that are new.")
    updated: Count = Field(description="Chunks whose id was known and whose content changed.")
    unchanged: Count = Field(description="Chunks that were kept; a new position is no change.")
    deleted: Count = Field(description="Chunks that the document had and the request did not name.")
    profile: Profile = None


class DocumentsWritten(Output):
    """The documents of a batch."""

    ids: list[str] = Field(description="Their ids, in the order of the request.")
    documents: list[DocumentCreated] | list[DocumentReplaced] = Field(
        description="In the order of the request: new documents, or with upsert what became of their chunks."
    )
    profile: Profile = None


class Chunk(Timestamps):
    """A chunk."""

    id: str = Field(description="Its id, unique in the library.")
    document_id: str | None = Field(description="The document that it belongs to; null if it stands alone.")
    text: str | SkipJsonSchema[None] = Field(
        None, description="Its text, where `include` asks for it; empty if only a vector was written."
    )
    embed_text: str | None = Field(
        None, description="What the model is given, where `include` asks for it; null for the text itself."
    )
    metadata: dict[str, Any] | SkipJsonSchema[None] = Field(
        None, description="JSON of your own, or the parts of it that `include` asks for."
    )
    position: int | None = Field(description="Its place in its document, from 0; null without a document.")
    expires_at: Timestamp | None = Field(
        description="From then on it is in no answer, or from its document's on, if that is earlier; null for never."
    )
    embedding: ShownVector | None = Field(
        None, description="Its vector, where `include` asks for it; null if the chunk has none."
    )
    document: ResultDocument | None = Field(
        None, description="Its document, where `include` asks for it; null for none."
    )


class ChunkPage(Page[Chunk]):
    """Chunks: those of one document by position, otherwise in order of creation."""


class Skipped(Output):
    """A chunk that was not stored."""

    index: Count = Field(description="Its place in the request's `chunks`, from 0.")
    errors: list[Fault] = Field(description="What is wrong with it, as in a refusal; the first five faults.")


class ChunksWritten(Output):
    """What was written."""

    ids: list[str] = Field(description="The ids of the chunks written, in the order of the request.")
    created: Count = Field(description="How many chunks are new.")
    updated: Count = Field(description="How many chunks existed and were written again.")
    skipped: list[Skipped] | SkipJsonSchema[None] = Field(
        None, description="With `on_invalid: skip`: the chunks that were left out."
    )
    profile: Profile = None


class ChunksFound(Output):
    """The chunks asked for."""

    items: list[Chunk] = Field(description="Those that exist, in the order of the request.")
    missing: list[str] = Field(description="The ids that no chunk has.")


class Updated(Output):
    """What was changed."""

    updated: Count = Field(description="How many chunks are now as asked, those that already were included.")
    profile: Profile = None


class Deleted(Output):
    """What was deleted."""

    deleted: Count = Field(description="How many chunks were deleted.")


class Counted(Output):
    """The number of chunks."""

    count: Count = Field(description="How many chunks match; without a filter, how many there are.")


class TypeSummary(Output):
    """The values of a type."""

    count: Count = Field(description="How many chunks have a value of this type.")
    min: int | float | str | SkipJsonSchema[None] = Field(None, description="The least of these numbers or strings.")
    max: int | float | str | SkipJsonSchema[None] = Field(None, description="The greatest of them.")


class FieldSummary(Output):
    """The values of a field."""

    field: str = Field(description="Its path, as filters take it.")
    count: Count = Field(description="How many chunks have the field.")
    distinct: Count = Field(description="How many different values facets count: scalars, and those within arrays.")
    types: dict[Literal["integer", "number", "string", "boolean", "null", "array", "object"], TypeSummary] = Field(
        description="The types that occur. Whole numbers within 64 bits are integers, others are of type number."
    )


class FieldSummaries(Output):
    """The values of fields."""

    fields: list[FieldSummary] = Field(description="As asked for; otherwise those that most chunks have come first.")
    omitted: Count = Field(description="How many fields more there are.")


class Facet(Output):
    """A value of a field."""

    value: Any = Field(description="A string, number, boolean or null.")
    count: Count = Field(description="How many chunks have it.")


class Facets(Output):
    """The values of a field."""

    facets: list[Facet] = Field(description="A page of the values, each with the number of chunks that have it.")
    values: Count = Field(description="How many different values there are; with `search`, how many it finds.")
    chunks: Count = Field(description="How many chunks the filter matches.")


class Result(Output):
    """A chunk that a query found."""

    id: str = Field(description="The chunk's id.")
    document_id: str | None = Field(description="The document that the chunk belongs to; null if it stands alone.")
    score: float = Field(
        description="Higher is better: cosine, inner product, or minus the L2 distance; by words BM25, by both the sum "
        "of reciprocal ranks."
    )
    distance: float = Field(
        description="Lower is better: 1 - cosine, minus the inner product, or L2; by words or both minus the score."
    )
    base_score: float | SkipJsonSchema[None] = Field(
        None, description="With `boost`: the score before it, to which `distance` belongs."
    )
    group: Any = Field(
        None,
        description="With `group_by` a field of metadata: the chunk's value there; null if it is a group of its own.",
    )
    vector_rank: int | None = Field(None, description="In mode hybrid: the rank by vector, from 1; null past 100.")
    lexical_rank: int | None = Field(None, description="In mode hybrid: the rank by words, from 1; null past 100.")
    text: str | SkipJsonSchema[None] = Field(None, description="The chunk's text, where `include` asks for it.")
    embed_text: str | None = Field(
        None, description="What the model is given of it, where `include` asks for it; null for the text itself."
    )
    metadata: dict[str, Any] | SkipJsonSchema[None] = Field(
        None, description="The chunk's metadata, where `include` asks for it."
    )
    embedding: ShownVector | None = Field(None, description="Its vector, where `include` asks for it; null for none.")
    document: ResultDocument | None = Field(
        None, description="Its document, where `include` asks for it; null for none."
    )


class QueryMeta(Output):
    """How a query was answered."""

    revision: Count = Field(description="The state of the library that was searched; later answers have no lower one.")
    index: str = Field(description="The type of index that was searched; `brute_force` if all rows were scanned.")
    exact: bool = Field(description="Whether these provably are the k best.")
    plan: str = Field(description="The steps taken, in words.")
    scanned: Count = Field(description="How many vectors the query was compared with; by words, how many rows matched.")
    took_ms: float = Field(description="Milliseconds in the server; in a batch, those of the whole batch.")
    profile: Profile = None
    incomplete: bool | SkipJsonSchema[None] = Field(
        None,
        description="With `filter_mode` post: whether matching chunks may be missing, fewer than k being shown.",
    )
    warning: str | SkipJsonSchema[None] = Field(
        None, description="Why no score can reach the `score_threshold`, or why a boost added nothing to any candidate."
    )


class QueryAnswer(Output):
    """The answer to a query."""

    results: list[Result] = Field(description="At most k chunks, best first; equal scores in order of creation.")
    meta: QueryMeta = Field(description="How the query was answered.")


class QueryAnswers(Output):
    """The answers to a batch of queries."""

    results: list[QueryAnswer] = Field(description="One for each query, in the order of the request.")


class KeyLimits(Output):
    """What a key may ask for in a minute; null: as the settings say."""

    reads_per_minute: Count | None = Field(description="Requests that read, queries among them.")
    writes_per_minute: Count | None = Field(description="Requests that change something.")


class Key(Timestamps):
    """A key, without its secret."""

    id: str = Field(description="Its id, the part between the underscores of the key.")
    name: str = Field(description="What it is for.")
    scopes: list[Literal["read", "write", "admin"]] = Field(description="What it may do.")
    libraries: list[str] | None = Field(description="Ids of libraries, or their beginnings; null for all libraries.")
    expires_at: Timestamp | None = Field(description="From then on it is refused; null for never.")
    limits: KeyLimits = Field(description="How much it may ask for.")
    last_used_at: Timestamp | None = Field(description="When it was used last, give or take a minute; null for never.")
    previous_until: Timestamp | None = Field(
        description="Until when the secret before the last rotation is good; null if there is none."
    )


class KeyPage(Page[Key]):
    """Keys, in order of creation."""


class KeyCreated(Key):
    """A key with its secret, which is shown this once."""

    key: str = Field(description="The key, for the header Authorization or X-API-Key.")


class SearchToken(Output):
    """A search token."""

    token: str = Field(description="The token, for the header Authorization or X-API-Key.")
    expires_at: Timestamp = Field(description="When it ends, unless its key ends before.")


class AuditEntry(Output):
    """A change that was made."""

    at: Timestamp = Field(description="When.")
    key_id: str | None = Field(description="The id of the key that asked for it; null for a user.")
    name: str = Field(description="The name of the key or of the user.")
    action: str = Field(description="What was done, such as `upsert_chunks`.")
    library: str | None = Field(description="The id of the library; null for what is of none, such as a key.")
    target: str | None = Field(
        description="What was changed, such as the id of a document or the name of a user; null for several."
    )
    count: Count | None = Field(
        description="How many chunks, documents or permissions; null where that is not counted."
    )
    request_id: str = Field(description="The id of the request.")


class AuditPage(Page[AuditEntry]):
    """Changes, in the order in which they were made."""


class Job(Output):
    """Work that goes on beside the requests."""

    id: str = Field(description="The id of the job.")
    kind: str = Field(description="What is done: `backup`, `export`, `import` or `migrate`.")
    library: str | None = Field(description="The id of the library that it works on; null where it is of all.")
    state: Literal["running", "done", "failed", "cancelled"] = Field(
        description="It is `running` from its creation until it has ended, also while it waits for its turn."
    )
    done: Count = Field(description="Rows or bytes that are done.")
    total: Count | None = Field(description="How many there are to do; null while that is not known.")
    error: str | None = Field(description="Why it failed.")
    result: dict[str, Any] = Field(description="What it has made or found; empty until it has ended.")
    created_at: Timestamp = Field(description="When it was made.")
    ended_at: Timestamp | None = Field(description="When it ended; null while it runs.")


class JobPage(Page[Job]):
    """Jobs, in order of creation."""


class Backup(Output):
    """A backup, as its manifest describes it."""

    id: str = Field(description="The id of the backup, a time.")
    created_at: Timestamp = Field(description="When the database was as it is in the backup.")
    reason: Literal["request", "schedule", "migration"] = Field(description="Why it was made.")
    server: str = Field(description="The version of the server that made it.")
    database: Literal["sqlite", "postgresql"] = Field(description="The kind of database.")
    own: bool = Field(description="Whether it is of this server's database: servers may share a place.")
    libraries: Count = Field(description="How many libraries it has.")
    rows: dict[str, Count] = Field(description="How many rows, by table.")
    size: Count = Field(description="Bytes of the copy of the database.")
    sha256: str = Field(description="The SHA-256 of these bytes, hexadecimal.")


class BackupPage(Page[Backup]):
    """Backups, in order of creation."""


class Root(Output):
    """Where everything begins."""

    libraries: str = Field(description="The path of the libraries.")
    schema_: str = Field(alias="schema", description="The path of this schema.")
    docs: str = Field(description="The path of its pages for people.")


class Health(Output):
    """The process answers."""

    status: Literal["ok"] = Field(description="Always `ok`.")


class Readiness(Output):
    """Whether requests can be served, and what is missing if not."""

    status: Literal["ready", "not ready"] = Field(description="`ready` if all checks are ok.")
    checks: dict[str, str] = Field(description="`database`, `data_dir` and `index`: `ok`, or what is wrong.")
