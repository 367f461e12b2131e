"""Reads, as the dictionaries that the API shows. Lists are by creation, a document's chunks by position; page by page
by key."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import orjson
from django.db import DEFAULT_DB_ALIAS
from django.db.models import Count, F, OuterRef, Q, QuerySet, Subquery, TextField
from django.db.models.functions import Cast, Coalesce

from apps.engine.vectors import DTYPE
from apps.libraries.errors import Fault, Invalid, ModelMismatch, NotFound, PreconditionFailed
from apps.libraries.ids import is_id
from apps.libraries.models import Chunk, Document, Embedding, EmbeddingModel, Library, Reembedding
from apps.libraries.response_budget import ResponseBudget

# The number of rows that are read before their size is checked.
_ROWS_AT_A_TIME = 100


# Where a row is in the order of a list: its key, in a document its position and its key; none before all rows.
PageKey: TypeAlias = tuple[int, ...]
# A chunk without a position, which no service leaves in a document, comes last.
_PLACE = Coalesce("position", 2**31)


@dataclass(frozen=True)
class Page:
    """Items of a list, and the key after which the next page begins; None on the last one."""

    items: list[dict[str, Any]]
    next_key: PageKey | None


class EmbeddedChunk(NamedTuple):
    """A stored chunk and its vector."""

    id: str
    text: str
    metadata: dict[str, Any]
    embedding: np.ndarray


def library_row(library_id: str) -> Library:
    """The library; raises NotFound."""
    library = Library.objects.filter(public_id=library_id).first()
    if library is None:
        raise NotFound.library(library_id)
    return library


def library_data(library: Library) -> dict[str, Any]:
    """A library as the API shows it."""
    return {
        "id": library.public_id,
        "name": library.name,
        "description": library.description,
        "dimension": library.dimension,
        "metric": library.metric,
        "index_type": library.index_type,
        "index_params": library.index_params,
        "embedding": None if library.embedding is None else library.embedding._asdict(),
        "metadata": library.metadata,
        **_timestamps(library),
    }


def libraries(*, limit: int, after: PageKey) -> Page:
    """Libraries behind `after`; Invalid for too large a page."""
    return _page(Library.objects.all(), limit, after, library_data)


def reembedding(*, library_key: int, using: str = DEFAULT_DB_ALIAS) -> Reembedding | None:
    """The library's move to another model, read from the database connection `using`; None if there is none."""
    found = Reembedding.objects.using(using).filter(pk=library_key)
    return found.exclude(state=Reembedding.State.SWEEPING).first()


def reembedding_row(library_id: str) -> Reembedding:
    """The library's move to another model; raises NotFound, for the library too."""
    found = reembedding(library_key=library_row(library_id).pk)
    if found is None:
        raise no_reembedding(library_id)
    return found


def no_reembedding(library_id: str) -> NotFound:
    """The error for a library that is not being moved to another model."""
    return NotFound(f"The library {library_id!r} is not being moved to another embedding model.")


def reembedding_data(row: Reembedding) -> dict[str, Any]:
    """A library's move to another model as the API shows it, read from the connection that `row` is from."""
    chunks = Chunk.objects.using(row._state.db).filter(library=row.pk)
    return {
        "provider": row.provider,
        "model": row.model,
        "state": row.state,
        "embedded": chunks.filter(embeddings__generation=row.generation).count(),
        "chunks": chunks.count(),
        "error": row.error or None,
        "started_at": timestamp(row.created_at),
    }


def document_row(*, library_id: str, document_id: str) -> Document:
    """The document; raises NotFound, for the library too."""
    found = Document.objects.filter(library=library_row(library_id), public_id=document_id).first()
    if found is None:
        raise NotFound(f"There is no document {document_id!r} in this library. PUT at its path makes it.")
    return found


def document_data(document: Document, chunk_count: int | None = None) -> dict[str, Any]:
    """A document as the API shows it; `chunk_count` saves counting."""
    if chunk_count is None:
        chunk_count = document.chunks.count()
    return {
        "id": document.public_id,
        "title": document.title,
        "source": document.source,
        "metadata": document.metadata,
        "chunk_count": chunk_count,
        **_timestamps(document),
    }


def documents(*, library_id: str, limit: int, after: PageKey) -> Page:
    """Documents behind `after`; raises NotFound for the library, Invalid for too large a page."""
    counts = Chunk.objects.filter(document=OuterRef("pk")).order_by().values("document").annotate(n=Count("*"))
    found = Document.objects.filter(library=library_row(library_id)).annotate(
        chunk_count=Coalesce(Subquery(counts.values("n")), 0)
    )
    return _page(found, limit, after, lambda row: document_data(row, chunk_count=row.chunk_count))


def no_chunk(chunk_id: str) -> NotFound:
    """The error for a chunk that does not exist."""
    return NotFound(f"There is no chunk {chunk_id!r} in this library. POST to its chunks makes it.")


def chunk(*, library_id: str, chunk_id: str, embedding: bool = False) -> dict[str, Any]:
    """The chunk as the API shows it; raises NotFound, for the library too."""
    found = _chunk_rows(embedding).filter(library=library_row(library_id), public_id=chunk_id).first()
    if found is None:
        raise no_chunk(chunk_id)
    return _chunk_data(found, embedding)


def chunks_by_id(
    *, library_id: str, ids: Sequence[str], embedding: bool = False
) -> tuple[list[dict[str, Any]], list[str]]:
    """Those of the chunks that exist, in the order asked, and the ids of those that do not; raises NotFound for the
    library, Invalid for too large an answer."""
    budget = ResponseBudget()
    with _read(_chunk_rows(embedding).filter(library=library_row(library_id), public_id__in=ids)) as rows:
        stored = {row.public_id: budget.charge(_chunk_data(row, embedding)) for row in rows}
    found = [stored[public_id] for public_id in ids if public_id in stored]
    return found, [public_id for public_id in ids if public_id not in stored]


def chunks(
    *, library_id: str, limit: int, after: PageKey, document_id: str | None = None, embedding: bool = False
) -> Page:
    """Chunks behind `after`, those of one document, by position, if it is named; raises NotFound for the library,
    Invalid for the document and for too large a page."""
    rows = _chunk_rows(embedding).filter(library=library_row(library_id))
    if document_id is not None:
        check_document(library_id=library_id, document_id=document_id)
        rows = rows.filter(document__public_id=document_id)
    return _page(rows, limit, after, lambda row: _chunk_data(row, embedding), by_position=document_id is not None)


def chunk_places(*, library_key: int, document_id: str, using: str) -> list[PageKey]:
    """Positions and keys of a document's chunks, by position, read from the database connection `using`."""
    found = Chunk.objects.using(using).filter(library=library_key, document__public_id=document_id)
    return list(found.annotate(place=_PLACE).order_by("place", "id").values_list("place", "id"))


def check_document(*, library_id: str, document_id: str) -> None:
    """Raise Invalid where a query parameter names no document of the library, NotFound where there is no library."""
    found = Document.objects.filter(library=library_row(library_id), public_id=document_id)
    if not is_id(document_id) or not found.exists():
        raise Invalid.at("/document_id", "names no document of this library")


def chunks_by_key(*, keys: Sequence[int], embedding: bool, using: str) -> list[dict[str, Any]]:
    """The chunks of `keys`, in that order, read from the database connection `using`; Invalid for too large an
    answer."""
    budget = ResponseBudget()
    with _read(_chunk_rows(embedding).using(using).filter(id__in=keys)) as rows:
        data = {row.pk: budget.charge(_chunk_data(row, embedding)) for row in rows}
    return [data[key] for key in keys]


def embedded_chunks(*, library: Library, document_id: str) -> list[EmbeddedChunk]:
    """A document's chunks that have a vector, in order; none where there is no such document."""
    found = Embedding.objects.filter(
        chunk__library=library, chunk__document__public_id=document_id, generation=library.generation
    )
    rows = found.order_by("chunk__position", "chunk_id").values_list(
        "chunk__public_id", "chunk__text", "chunk__metadata", "vector"
    )
    return [EmbeddedChunk(name, text, metadata, vector_array(vector)) for name, text, metadata, vector in rows]


def count_chunks(*, library_id: str) -> int:
    """The number of chunks of a library; raises NotFound."""
    return Chunk.objects.filter(library=library_row(library_id)).count()


def vector_array(blob: bytes | memoryview) -> np.ndarray:
    """A stored vector as a float32 array."""
    return np.frombuffer(blob, DTYPE)


def timestamp(moment: datetime) -> str:
    """A time as the API shows it: RFC 3339, UTC, microseconds."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _timestamps(row: Library | Document | Chunk) -> dict[str, str]:
    return {"created_at": timestamp(row.created_at), "updated_at": timestamp(row.updated_at)}


def etag(data: dict[str, Any]) -> str:
    """The entity tag of what the API shows, whether or not that includes an embedding."""
    data = {name: value for name, value in data.items() if name != "embedding"}
    return f'"{hashlib.blake2b(orjson.dumps(data, option=orjson.OPT_SORT_KEYS), digest_size=12).hexdigest()}"'


def document_etag(document: Document) -> str:
    """The entity tag of a document, which changes with each of its chunks too: PUT replaces them."""
    changed = Cast("updated_at", TextField())
    chunks = list(document.chunks.order_by("pk").values_list("pk", "position", changed))
    return etag(document_data(document, chunk_count=len(chunks)) | {"chunks": chunks})


def check_match(if_match: str | None, current: Callable[[], str]) -> None:
    """Raise PreconditionFailed unless `if_match`, an If-Match header, is absent or names the `current` tag."""
    if if_match is None:
        return
    wanted = [tag.strip() for tag in if_match.split(",")]
    try:
        tag = current()
    except NotFound:
        tag = None
    if tag is None or ("*" not in wanted and tag not in wanted):
        raise PreconditionFailed(
            "This has changed since it was read, so nothing was written: read it again, and send its new ETag as "
            "If-Match."
        )


def check_models(embedding: EmbeddingModel | None, named: Mapping[str, EmbeddingModel]) -> None:
    """Raise ModelMismatch unless all models that a request names, by pointer, are `embedding`, the library's."""
    has = "has none" if embedding is None else f"has {_model_text(embedding)}"
    faults = [
        Fault(
            at,
            f"names {_model_text(model)}, and the library {has}: leave it out, or move the library to that model by "
            "POST /libraries/{id}/reembed",
        )
        for at, model in named.items()
        if model != embedding
    ]
    if faults:
        raise ModelMismatch("The request names another embedding model than the library's.", faults)


def _model_text(model: EmbeddingModel) -> str:
    return f"the model {model.model!r} of {model.provider!r}"


def _chunk_rows(embedding: bool) -> QuerySet[Chunk]:
    """Chunks with all that is shown of them, in one statement, so that no chunk is seen half old."""
    rows = Chunk.objects.annotate(named_document=F("document__public_id"))
    if embedding:
        current = Embedding.objects.filter(chunk=OuterRef("pk"), generation=OuterRef("library__generation"))
        rows = rows.annotate(vector=Subquery(current.values("vector")))
    return rows


def _chunk_data(row: Any, embedding: bool) -> dict[str, Any]:
    data: dict[str, Any] = {
        "id": row.public_id,
        "document_id": row.named_document,
        "text": row.text,
        "metadata": row.metadata,
        "position": row.position,
        **_timestamps(row),
    }
    if embedding:
        data["embedding"] = None if row.vector is None else vector_array(row.vector)
    return data


def check_page_key(after: PageKey, *, by_position: bool) -> None:
    """Raise Invalid for the key of a page of a list in another order."""
    if after and (len(after) == 2) != by_position:
        raise Invalid.at("/cursor", "is of a list in another order; send the next_cursor of the page before")


def _page(
    rows: QuerySet[Any],
    limit: int,
    after: PageKey,
    data: Callable[[Any], dict[str, Any]],
    by_position: bool = False,
) -> Page:
    check_page_key(after, by_position=by_position)
    order = ["id"]
    if by_position:
        rows, order = rows.annotate(place=_PLACE), ["place", "id"]
    if after:
        behind = Q(id__gt=after[-1])
        rows = rows.filter(behind if len(after) == 1 else Q(place__gt=after[0]) | (Q(place=after[0]) & behind))
    budget = ResponseBudget()
    with _read(rows.order_by(*order)[: limit + 1]) as found:
        page = [(tuple(getattr(row, name) for name in order), budget.charge(data(row))) for row in islice(found, limit)]
        is_last = next(found, None) is None
    return Page([item for _, item in page], None if is_last else page[-1][0])


def _read(rows: QuerySet[Any]) -> closing[Any]:
    """Rows, few of them held at a time; the end of the block ends the statement, wherever its reader stopped."""
    found: Any = rows.iterator(chunk_size=_ROWS_AT_A_TIME)
    return closing(found)
