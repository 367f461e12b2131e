"""Reads, as the dictionaries that the API shows. Lists are by creation, page by page by key."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import orjson
from django.db import DEFAULT_DB_ALIAS, connection
from django.db.models import Count, OuterRef, QuerySet, Subquery, TextField
from django.db.models.functions import Cast, Coalesce
from django.utils import timezone

from apps.access.authorization import visible
from apps.access.requests import current_principal
from apps.libraries.chunk_fields import DEFAULT_ITEM, Shown, chunk_statement, timestamp, vector_array
from apps.libraries.dialects import dialect_of
from apps.libraries.errors import Fault, Invalid, ModelMismatch, NotFound, PreconditionFailed
from apps.libraries.expiry import IS_EXPIRED, count_live_chunks, live_chunks, live_documents, parameter
from apps.libraries.models import Chunk, Document, Embedding, EmbeddingModel, Library, Reembedding
from apps.libraries.response_budget import ResponseBudget

# The number of rows that are read before their size is checked.
_ROWS_AT_A_TIME = 100


# Where a row is in the order of a list: its key, in a document its position and its key; none before all rows.
PageKey: TypeAlias = tuple[int, ...]


@dataclass(frozen=True)
class Page:
    """Items of a list, and the key after which the next page begins; None on the last one."""

    items: list[dict[str, Any]]
    next_key: PageKey | None


class EmbeddedChunk(NamedTuple):
    """A stored chunk and its vector."""

    id: str
    text: str
    embed_text: str | None
    metadata: dict[str, Any]
    embedding: np.ndarray


def library_row(library_id: str, using: str = DEFAULT_DB_ALIAS) -> Library:
    """The library, read from the database connection `using`; raises NotFound."""
    library = Library.objects.using(using).filter(public_id=library_id).first()
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
        "unindexed": library.unindexed,
        "metadata": library.metadata,
        **_timestamps(library),
    }


def libraries(*, limit: int, after: PageKey) -> Page:
    """Libraries behind `after` that whoever asks may see; Invalid for too large a page."""
    return page_of(visible(Library.objects.all(), current_principal.get()), limit, after, library_data)


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
        "embedded": count_live_chunks(chunks.filter(embeddings__generation=row.generation)),
        "chunks": count_live_chunks(chunks),
        "error": row.error or None,
        "started_at": timestamp(row.created_at),
    }


def document_row(
    *, library_id: str, document_id: str, using: str = DEFAULT_DB_ALIAS, now: datetime | None = None
) -> Document:
    """The document, if it has not expired by `now`, read from the database connection `using`; raises NotFound, for
    the library too."""
    rows = Document.objects.using(using).filter(library=library_row(library_id, using), public_id=document_id)
    found = rows.exclude(expires_at__lte=now or timezone.now()).first()
    if found is None:
        raise NotFound(f"There is no document {document_id!r} in this library. PUT at its path makes it.")
    return found


def document_data(document: Document, chunk_count: int) -> dict[str, Any]:
    """A document as the API shows it."""
    return {
        "id": document.public_id,
        "title": document.title,
        "source": document.source,
        "metadata": document.metadata,
        "expires_at": None if document.expires_at is None else timestamp(document.expires_at),
        "chunk_count": chunk_count,
        **_timestamps(document),
    }


def documents(*, library_id: str, limit: int, after: PageKey) -> Page:
    """Documents behind `after`; raises NotFound for the library, Invalid for too large a page."""
    now = timezone.now()
    found = live_documents(_with_chunk_count(Document.objects.filter(library=library_row(library_id)), now), now)
    return page_of(found, limit, after, lambda row: document_data(row, chunk_count=row.chunk_count))


def documents_by_key(*, keys: Sequence[int], using: str, now: datetime) -> list[dict[str, Any]]:
    """The documents of `keys` as they are `now`, in order of creation, read from the database connection `using`;
    Invalid for too large an answer."""
    budget = ResponseBudget()
    rows = _with_chunk_count(Document.objects.using(using).filter(id__in=keys), now).order_by("id")
    with _read(rows) as found:
        return [budget.charge(document_data(row, chunk_count=row.chunk_count)) for row in found]


def _with_chunk_count(documents: QuerySet[Document], now: datetime) -> QuerySet[Any]:
    chunks = live_chunks(Chunk.objects.filter(document=OuterRef("pk")), now)
    counts = chunks.order_by().values("document").annotate(n=Count("*"))
    return documents.annotate(chunk_count=Coalesce(Subquery(counts.values("n")), 0))


def no_chunk(chunk_id: str) -> NotFound:
    """The error for a chunk that does not exist."""
    return NotFound(f"There is no chunk {chunk_id!r} in this library. POST to its chunks makes it.")


def chunk(*, library_id: str, chunk_id: str) -> dict[str, Any]:
    """The chunk as the API shows it; raises NotFound, for the library too."""
    [data] = _chunk(library_id, chunk_id, DEFAULT_ITEM)
    return data


def written_chunk(key: int) -> dict[str, Any]:
    """The chunk that was just written as the API shows it, even if it has expired by now."""
    statement = chunk_statement(frozenset(DEFAULT_ITEM.fields), dialect_of(connection))
    with connection.cursor() as cursor:
        cursor.execute(f"{statement.sql}chunk.id = %s", [key])
        [(_, data)] = statement.items(cursor.fetchall(), DEFAULT_ITEM)
    return data


def chunk_with_etag(*, library_id: str, chunk_id: str, shown: Shown) -> tuple[dict[str, Any], str]:
    """What is `shown` of the chunk, and its entity tag, which is the same whatever is shown; raises as `chunk`."""
    data, whole = _chunk(library_id, chunk_id, shown, DEFAULT_ITEM)
    return data, etag(whole)


def _chunk(library_id: str, chunk_id: str, *ways: Shown) -> list[dict[str, Any]]:
    """The chunk, shown in several ways."""
    library = library_row(library_id)
    statement = chunk_statement(frozenset(name for shown in ways for name in shown.fields), dialect_of(connection))
    with connection.cursor() as cursor:
        # In one statement, so that no chunk is seen half old.
        cursor.execute(
            f"{statement.sql}chunk.library_id = %s AND chunk.public_id = %s AND {IS_EXPIRED} IS NOT TRUE",
            [library.pk, chunk_id, *[parameter(timezone.now())] * 2],
        )
        rows = cursor.fetchall()
    if not rows:
        raise no_chunk(chunk_id)
    return [data for shown in ways for _, data in statement.items(rows, shown)]


def embedded_chunks(*, library: Library, document_id: str) -> list[EmbeddedChunk]:
    """A document's chunks that have a vector, in order; none where there is no such document."""
    chunks = live_chunks(Chunk.objects.filter(library=library, document__public_id=document_id))
    found = Embedding.objects.filter(chunk__in=chunks, generation=library.generation)
    rows = found.order_by("chunk__position", "chunk_id").values_list(
        "chunk__public_id", "chunk__text", "chunk__embed_text", "chunk__metadata", "vector"
    )
    return [EmbeddedChunk(*fields[:-1], vector_array(fields[-1])) for fields in rows]


def count_chunks(*, library_id: str) -> int:
    """The number of chunks of a library; raises NotFound."""
    return count_live_chunks(Chunk.objects.filter(library=library_row(library_id)))


def _timestamps(row: Library | Document) -> dict[str, str]:
    return {"created_at": timestamp(row.created_at), "updated_at": timestamp(row.updated_at)}


def etag(data: dict[str, Any]) -> str:
    """The entity tag of what the API shows, whether or not that includes an embedding."""
    data = {name: value for name, value in data.items() if name != "embedding"}
    return f'"{hashlib.blake2b(orjson.dumps(data, option=orjson.OPT_SORT_KEYS), digest_size=12).hexdigest()}"'


def document_with_etag(document: Document, now: datetime | None = None) -> tuple[dict[str, Any], str]:
    """A document as the API shows it, and its entity tag, which changes with each of its chunks too: PUT replaces them.

    The chunks are read from the connection that `document` is from, which must not have changed since."""
    changed = Cast("updated_at", TextField())
    rows = live_chunks(Chunk.objects.using(document._state.db).filter(document=document), now)
    chunks = list(rows.order_by("pk").values_list("pk", "position", changed))
    data = document_data(document, chunk_count=len(chunks))
    return data, etag(data | {"chunks": chunks})


def document_etag(document: Document) -> str:
    """The entity tag of a document."""
    _, tag = document_with_etag(document)
    return tag


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


def check_page_key(after: PageKey, *, by_position: bool) -> None:
    """Raise Invalid for the key of a page of a list in another order."""
    if after and (len(after) == 2) != by_position:
        raise Invalid.at("/cursor", "is of a list in another order; send the next_cursor of the page before")


def page_of(rows: QuerySet[Any], limit: int, after: PageKey, data: Callable[[Any], dict[str, Any]]) -> Page:
    """At most `limit` of the rows behind `after`, in order of creation, as `data` shows them. Raises Invalid for a key
    of another list and for too large a page."""
    check_page_key(after, by_position=False)
    if after:
        rows = rows.filter(pk__gt=after[0])
    budget = ResponseBudget()
    with _read(rows.order_by("pk")[: limit + 1]) as found:
        page = [(row.pk, budget.charge(data(row))) for row in islice(found, limit)]
        is_last = next(found, None) is None
    return Page([item for _, item in page], None if is_last else (page[-1][0],))


def _read(rows: QuerySet[Any]) -> closing[Any]:
    """Rows, few of them held at a time; the end of the block ends the statement, wherever its reader stopped."""
    found: Any = rows.iterator(chunk_size=_ROWS_AT_A_TIME)
    return closing(found)
