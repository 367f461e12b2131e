"""What calls return: frozen dataclasses. Fields that a newer server adds are left out."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

from vectordb_client._display import shortened, to_html, to_pandas
from vectordb_client.errors import Fault, InvalidAnswer
from vectordb_client.vectors import decode

if TYPE_CHECKING:
    import pandas as pd

    from vectordb_client.vectors import Vector

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Some items of a list, and the cursor of the next page; None on the last one."""

    items: list[T]
    next_cursor: str | None


class _Table(Sequence[T]):
    """A sequence of dataclasses that notebooks show as a table."""

    __slots__ = ()

    def _items(self) -> Sequence[T]:
        raise NotImplementedError

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[T]: ...
    def __getitem__(self, index: int | slice) -> T | Sequence[T]:
        return self._items()[index]

    def __len__(self) -> int:
        return len(self._items())

    def __iter__(self) -> Iterator[T]:
        return iter(self._items())

    def _records(self) -> list[dict[str, Any]]:
        return [_record(item) for item in self]

    def to_pandas(self) -> pd.DataFrame:
        """A DataFrame with a row for each item; needs pandas."""
        return to_pandas(self._records())

    def _caption(self) -> str:
        return f"{len(self)} items"

    def _repr_html_(self) -> str:
        return to_html(self._caption(), self._records())


@dataclass(frozen=True, slots=True)
class LibraryInfo:
    """A library, as the server describes it. `dimension` is None until the first vector fixes it."""

    id: str
    name: str
    description: str
    dimension: int | None
    metric: str
    index_type: str
    index_params: Mapping[str, Any]
    embedding: Mapping[str, str] | None
    unindexed: tuple[str, ...]
    metadata: Mapping[str, Any]
    created_at: datetime
    updated_at: datetime
    # For `if_match`; None where it was not sent, as in lists.
    etag: str | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class DocumentRef:
    """The document of a chunk, where `include` names it."""

    id: str
    title: str
    source: str
    metadata: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Chunk:
    """A stored chunk. What `include` did not name is None."""

    id: str
    document_id: str | None = None
    text: str | None = None
    metadata: Mapping[str, Any] | None = None
    embedding: Vector | None = field(default=None, compare=False, repr=False)
    embed_text: str | None = None
    document: DocumentRef | None = None
    position: int | None = None
    expires_at: datetime | None = None
    created_at: datetime | None = None
    updated_at: datetime | None = None
    etag: str | None = field(default=None, compare=False, repr=False)

    def __repr__(self) -> str:
        return _short_repr(self, ("document_id", "text", "metadata"))


@dataclass(frozen=True, slots=True, repr=False)
class Chunks(_Table[Chunk]):
    """Chunks by their ids, in the order asked for, without those that are `missing`."""

    items: tuple[Chunk, ...]
    missing: tuple[str, ...]

    def _items(self) -> Sequence[Chunk]:
        return self.items

    def _caption(self) -> str:
        return f"{len(self.items)} chunks" + (f", {len(self.missing)} missing" if self.missing else "")

    def __repr__(self) -> str:
        return f"Chunks({list(self.items)!r}, missing={list(self.missing)!r})"


@dataclass(frozen=True, slots=True)
class Hit:
    """A result of a query. What `include` did not name is None.

    A higher `score` and a lower `distance` is better. `base_score` is the score without boosts; the ranks are those of
    the two sides of a hybrid query.
    """

    id: str
    document_id: str | None
    score: float
    distance: float
    text: str | None = None
    metadata: Mapping[str, Any] | None = None
    embedding: Vector | None = field(default=None, compare=False, repr=False)
    embed_text: str | None = None
    document: DocumentRef | None = None
    base_score: float | None = None
    group: Any = None
    vector_rank: int | None = None
    lexical_rank: int | None = None

    def __repr__(self) -> str:
        return _short_repr(self, ("score", "document_id", "text", "metadata"))


@dataclass(frozen=True, slots=True)
class QueryMeta:
    """How a query was answered: the state that was searched, the index, whether the answer provably is the exact top
    k."""

    revision: int
    index: str
    exact: bool
    plan: str
    scanned: int
    took_ms: float
    profile: Mapping[str, float] | None = None
    incomplete: bool | None = None
    warning: str | None = None


@dataclass(frozen=True, slots=True, repr=False)
class Hits(_Table[Hit]):
    """The results of a query, the best first."""

    items: tuple[Hit, ...]
    meta: QueryMeta

    @property
    def ids(self) -> list[str]:
        """The ids of the results."""
        return [hit.id for hit in self.items]

    @property
    def scores(self) -> list[float]:
        """The scores of the results."""
        return [hit.score for hit in self.items]

    def _items(self) -> Sequence[Hit]:
        return self.items

    def _caption(self) -> str:
        return f"{len(self.items)} hits in {self.meta.took_ms:.1f} ms, {self.meta.plan}"

    def __repr__(self) -> str:
        return f"Hits({list(self.items)!r})"


@dataclass(frozen=True, slots=True)
class Skipped:
    """A chunk that was not stored: its place in the request, and why."""

    index: int
    errors: tuple[Fault, ...]


@dataclass(frozen=True, slots=True)
class WriteResult:
    """What a write of chunks did. `skipped` are those that `on_invalid="skip"` left out."""

    ids: tuple[str, ...]
    created: int
    updated: int
    skipped: tuple[Skipped, ...] = ()
    profile: Mapping[str, float] | None = None

    def __repr__(self) -> str:
        skipped = f", skipped={len(self.skipped)}" if self.skipped else ""
        return f"WriteResult(created={self.created}, updated={self.updated}{skipped})"


@dataclass(frozen=True, slots=True)
class Document:
    """A document. `chunk_ids` are known where it was just created."""

    id: str
    title: str
    source: str
    metadata: Mapping[str, Any]
    chunk_count: int
    expires_at: datetime | None
    created_at: datetime
    updated_at: datetime
    chunk_ids: tuple[str, ...] | None = field(default=None, repr=False)
    profile: Mapping[str, float] | None = field(default=None, compare=False, repr=False)
    etag: str | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Diff:
    """What a put of a document did to its chunks."""

    id: str
    created: int
    updated: int
    unchanged: int
    deleted: int
    chunk_ids: tuple[str, ...] = field(default=(), repr=False)
    profile: Mapping[str, float] | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Facet:
    """A value of a field, and the number of chunks that have it."""

    value: Any
    count: int


@dataclass(frozen=True, slots=True, repr=False)
class Facets(_Table[Facet]):
    """Values of a field; `values` is the number of different ones, `chunks` that of the chunks that match the
    filter."""

    items: tuple[Facet, ...]
    values: int
    chunks: int

    def to_dict(self) -> dict[Any, int]:
        """Counts by value."""
        return {facet.value: facet.count for facet in self.items}

    def _items(self) -> Sequence[Facet]:
        return self.items

    def _caption(self) -> str:
        return f"{self.values} values of {self.chunks} chunks"

    def __repr__(self) -> str:
        return f"Facets({self.to_dict()!r}, values={self.values}, chunks={self.chunks})"


@dataclass(frozen=True, slots=True)
class TypeSummary:
    """The values of one type in a field; `min` and `max` of numbers and strings."""

    count: int
    min: Any = None
    max: Any = None


@dataclass(frozen=True, slots=True)
class FieldSummary:
    """The values of a field: in how many chunks, how many different ones, by type."""

    field: str
    count: int
    distinct: int
    types: Mapping[str, TypeSummary]


@dataclass(frozen=True, slots=True, repr=False)
class FieldSummaries(_Table[FieldSummary]):
    """What fields there are; `omitted` is the number of those beyond the first 500."""

    items: tuple[FieldSummary, ...]
    omitted: int

    def _items(self) -> Sequence[FieldSummary]:
        return self.items

    def _caption(self) -> str:
        return f"{len(self.items)} fields" + (f", {self.omitted} more" if self.omitted else "")

    def __repr__(self) -> str:
        return f"FieldSummaries({list(self.items)!r}, omitted={self.omitted})"


@dataclass(frozen=True, slots=True)
class IndexState:
    """The index of a library. `state` is ready, building or failed."""

    kind: str
    state: str
    rows_indexed: int
    rows_pending: int
    rows_tail: int
    rows_dead: int
    bytes: int
    built_at: datetime | None = None
    error: str | None = None
    warning: str | None = None
    segments: tuple[Mapping[str, Any], ...] = field(default=(), repr=False)
    memory: Mapping[str, Any] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class Stats:
    """The size and state of a library."""

    documents: int
    chunks: int
    chunks_without_vector: int
    revision: int
    index: IndexState
    recall: Mapping[str, Any] | None = None
    reembedding: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class KeyInfo:
    """An API key without its secret."""

    id: str
    name: str
    scopes: tuple[str, ...]
    libraries: tuple[str, ...] | None
    limits: Mapping[str, int | None]
    expires_at: datetime | None
    last_used_at: datetime | None
    previous_until: datetime | None
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class NewKey(KeyInfo):
    """An API key just after its secret was made: `key` is shown this once."""

    key: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class SearchToken:
    """A token that may query and count."""

    token: str = field(repr=False)
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """A change: who made it, when, of what, and of how many."""

    at: datetime
    key_id: str | None
    name: str
    action: str
    library: str | None
    target: str | None
    count: int | None
    request_id: str


@dataclass(frozen=True, slots=True)
class JobInfo:
    """A job of the server. `state` is running, done, failed or cancelled; `done` of `total` is its progress."""

    id: str
    kind: str
    library: str | None
    state: str
    done: int | None = None
    total: int | None = None
    error: str | None = None
    result: Mapping[str, Any] = field(default_factory=dict)
    created_at: datetime | None = None
    ended_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class BackupInfo:
    """A backup: of when, of how much, why it was made, and the SHA-256 of its copy of the database."""

    id: str
    created_at: datetime
    reason: str
    server: str
    database: str
    libraries: int
    rows: Mapping[str, int]
    size: int
    sha256: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class RowError:
    """A row that was not stored: its number from 0, its id where it has one, and why."""

    row: int
    id: str | None
    detail: str
    pointer: str = ""


@dataclass(frozen=True, slots=True)
class UploadReport:
    """What an upload did. `errors` are in the order of the rows."""

    rows: int
    created: int
    updated: int
    errors: tuple[RowError, ...]
    batches: int
    seconds: float

    @property
    def rows_per_second(self) -> float:
        """Stored rows by seconds."""
        return (self.created + self.updated) / self.seconds if self.seconds else 0.0

    def __repr__(self) -> str:
        return (
            f"UploadReport(rows={self.rows}, created={self.created}, updated={self.updated}, "
            f"errors={len(self.errors)}, seconds={self.seconds:.2f})"
        )

    def _repr_html_(self) -> str:
        return to_html(repr(self), [_record(error) for error in self.errors])


@dataclass(frozen=True, slots=True)
class FolderReport:
    """What an upload of a folder did: the diffs of its documents, and the files that were not stored, with why."""

    diffs: tuple[Diff, ...]
    errors: Mapping[str, str]

    @property
    def unchanged(self) -> int:
        """The number of documents in which nothing changed."""
        return sum(not (diff.created or diff.updated or diff.deleted) for diff in self.diffs)

    def __repr__(self) -> str:
        return f"FolderReport(documents={len(self.diffs)}, unchanged={self.unchanged}, errors={dict(self.errors)!r})"


def parse_time(text: str | None) -> datetime | None:
    """A time of an answer."""
    return None if text is None else datetime.fromisoformat(text.replace("Z", "+00:00"))


def parse_chunk(item: dict[str, Any], etag: str | None = None) -> Chunk:
    """A chunk of an answer."""
    get, document = item.get, item.get("document")
    return Chunk(
        item["id"],
        get("document_id"),
        get("text"),
        get("metadata"),
        decode(get("embedding")),
        get("embed_text"),
        None if document is None else parse(DocumentRef, document),
        get("position"),
        parse_time(get("expires_at")),
        parse_time(get("created_at")),
        parse_time(get("updated_at")),
        etag,
    )


def parse_hits(answer: dict[str, Any]) -> Hits:
    """The results of one query."""
    return Hits(tuple([_hit(item) for item in answer["results"]]), parse(QueryMeta, answer["meta"]))


def _hit(item: dict[str, Any]) -> Hit:
    get = item.get
    embedding, document = get("embedding"), get("document")
    return Hit(
        item["id"],
        item["document_id"],
        item["score"],
        item["distance"],
        get("text"),
        get("metadata"),
        None if embedding is None else decode(embedding),
        get("embed_text"),
        None if document is None else parse(DocumentRef, document),
        get("base_score"),
        get("group"),
        get("vector_rank"),
        get("lexical_rank"),
    )


def parse_written(answer: dict[str, Any]) -> WriteResult:
    """The answer to a write of chunks."""
    skipped = tuple(Skipped(one["index"], parse_faults(one["errors"])) for one in answer.get("skipped", ()))
    return WriteResult(tuple(answer["ids"]), answer["created"], answer["updated"], skipped, answer.get("profile"))


def parse_faults(errors: list[dict[str, str]]) -> tuple[Fault, ...]:
    """What is wrong, of an answer."""
    return tuple(Fault(one["pointer"], one["detail"]) for one in errors)


def parse_fields(answer: dict[str, Any]) -> FieldSummaries:
    """The summaries of fields."""
    return FieldSummaries(
        tuple(
            FieldSummary(
                one["field"],
                one["count"],
                one["distinct"],
                {name: parse(TypeSummary, summary) for name, summary in one["types"].items()},
            )
            for one in answer["fields"]
        ),
        answer["omitted"],
    )


def parse(kind: type[T], item: Mapping[str, Any], **more: Any) -> T:
    """An answer's object as a dataclass: lists as tuples, times as datetimes, unknown fields left out."""
    names = _FIELDS.get(kind)
    if names is None:
        names = _FIELDS[kind] = tuple(one.name for one in dataclasses.fields(kind))  # type: ignore[arg-type]
    values = {name: _value(name, item[name]) for name in names if name in item}
    try:
        return kind(**values, **more)
    except TypeError as error:
        raise InvalidAnswer(f"The answer is not this server's, or of another version: {error}") from None


_FIELDS: dict[type, tuple[str, ...]] = {}
_TIMES = frozenset({"at", "built_at", "previous_until"})


def _value(name: str, value: Any) -> Any:
    if isinstance(value, list):
        return tuple(value)
    if isinstance(value, str) and (name.endswith("_at") or name in _TIMES):
        return parse_time(value)
    return value


def _record(item: Any) -> dict[str, Any]:
    names = (one.name for one in dataclasses.fields(item))
    return {name: getattr(item, name) for name in names if name != "etag"}


def _short_repr(item: Any, names: tuple[str, ...]) -> str:
    """The id and what is there of `names`, long texts cut."""
    shown = [repr(item.id)]
    for name in names:
        value = getattr(item, name)
        if value is None or value == {}:
            continue
        text = f"{value:.4f}" if isinstance(value, float) else repr(value)
        shown.append(f"{name}={shortened(text)}")
    return f"{type(item).__name__}({', '.join(shown)})"
