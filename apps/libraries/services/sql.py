"""The SQL that the write services share: raw statements on Django's connection, since the ORM would halve the rate.

Everything here runs inside the caller's transaction, after `lock_library`, which makes the library's other writers
wait (on SQLite the transaction itself has locked the database).
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import orjson
from django.db import connection, transaction
from django.utils import timezone

from apps.access import transactions
from apps.engine.vectors import Float32
from apps.libraries import expiry
from apps.libraries.dialects import dialect_of
from apps.libraries.errors import NotFound
from apps.libraries.expiry import IS_EXPIRED, JOIN_DOCUMENT
from apps.libraries.inputs import ChunkInput, DocumentChunk
from apps.libraries.models import Library, text_to_embed
from apps.libraries.profile import stage
from apps.libraries.signals import announce
from apps.telemetry import metrics

# Well below the number of parameters that either database takes in one statement.
_IDS_PER_STATEMENT = 2000


@dataclass
class ChunkRow:
    """A chunk's columns as they are written; `metadata` is JSON text."""

    public_id: str
    document_key: int | None
    text: str
    embed_text: str | None
    metadata: str
    position: int | None
    expires_at: datetime | None

    @classmethod
    def of(cls, chunk: ChunkInput | DocumentChunk, document_key: int | None, position: int | None) -> "ChunkRow":
        """The row of a chunk that is written whole, at its place."""
        metadata = json_text(chunk.metadata)
        return cls(chunk.id, document_key, chunk.text, chunk.embed_text, metadata, position, chunk.expires_at)


@dataclass
class StoredChunk(ChunkRow):
    """A chunk's row as a write needs it."""

    key: int
    is_expired: bool

    @property
    def text_to_embed(self) -> str:
        """What the embedding model is given of it."""
        return text_to_embed(self.text, self.embed_text)


@contextmanager
def write_transaction() -> Iterator[None]:
    """A transaction of whoever asks, whose stages a record tells apart: waiting for other writers, the write, and the
    commit. Raises Refused where their key is not good any more."""
    with ExitStack() as stack:
        # What is left of the transaction when the other two are over.
        stack.enter_context(stage("commit"))
        with stage("lock"), metrics.LOCK_SECONDS.time("database"):
            stack.enter_context(transactions.write_transaction())
        stack.enter_context(stage("write"))
        yield


def lock_library(public_id: str = "", *, key: int | None = None) -> Library:
    """Lock a library's row, by its id or its key, until the transaction ends, and return it; caches are told on commit.

    Raises NotFound.
    """
    if not transaction.get_connection().in_atomic_block:
        raise transaction.TransactionManagementError("lock_library needs a transaction")
    libraries = Library.objects.all()
    if dialect_of(connection).lock_row:
        libraries = libraries.select_for_update(no_key=True)
    with stage("lock"), metrics.LOCK_SECONDS.time("library"):
        library = libraries.filter(public_id=public_id).first() if key is None else libraries.filter(pk=key).first()
    if library is None:
        raise NotFound.library(public_id)
    announce(library.pk)
    return library


def json_text(value: Any) -> str:
    """JSON as it is stored."""
    return orjson.dumps(value).decode()


def canonical_json(text: str) -> bytes:
    """Stored JSON with its keys in order, for comparisons."""
    return orjson.dumps(orjson.loads(text), option=orjson.OPT_SORT_KEYS)


def stored_chunks(library: Library, public_ids: Sequence[str]) -> dict[str, StoredChunk]:
    """Those of the chunks that exist, by id."""
    chunks = _select_chunks("chunk.library_id = %s AND chunk.public_id", public_ids, library.pk)
    return {chunk.public_id: chunk for chunk in chunks if not chunk.is_expired}


def claim_chunks(library: Library, public_ids: Sequence[str]) -> dict[str, StoredChunk]:
    """As `stored_chunks`. The other ids are free then: expired chunks that have them are deleted."""
    chunks = _select_chunks("chunk.library_id = %s AND chunk.public_id", public_ids, library.pk)
    return {chunk.public_id: chunk for chunk in _delete_expired(chunks)}


def claim_chunks_of_document(document_key: int) -> list[StoredChunk]:
    """A document's chunks in order of their positions; expired ones are deleted."""
    chunks = _delete_expired(_select_chunks("chunk.document_id", [document_key]))
    return sorted(chunks, key=lambda chunk: (chunk.position or 0, chunk.key))


def _delete_expired(chunks: Iterable[StoredChunk]) -> list[StoredChunk]:
    """Delete the expired ones of the chunks; return the others."""
    found = list(chunks)
    delete_chunks([chunk.key for chunk in found if chunk.is_expired])
    return [chunk for chunk in found if not chunk.is_expired]


def _select_chunks(condition: str, values: Sequence[Any], *params: Any) -> Iterator[StoredChunk]:
    names = ("public_id", "document_id", "text", "embed_text", "metadata", "position", "expires_at", "id")
    columns = ", ".join(f"chunk.{name}" for name in names)
    columns = columns.replace("chunk.metadata", dialect_of(connection).json_text("chunk.metadata"))
    statement = f"SELECT {columns}, {IS_EXPIRED} FROM vectordb_chunk AS chunk {JOIN_DOCUMENT} WHERE {condition}"
    for *row, expires_at, key, is_expired in _select(statement, values, *[_now()] * 2, *params):
        public_id, document_key, text, embed_text, metadata, position = row
        yield StoredChunk(
            public_id,
            document_key,
            text,
            embed_text,
            metadata,
            position,
            _aware(expires_at),
            key,
            is_expired=bool(is_expired),
        )


def _aware(moment: datetime | None) -> datetime | None:
    """A time of the database, which on SQLite has no zone."""
    return moment.replace(tzinfo=UTC) if moment is not None and moment.tzinfo is None else moment


def vectors_of(library: Library, keys: Sequence[int]) -> dict[int, bytes]:
    """The stored vectors of chunks, by key."""
    rows = _select(
        "SELECT chunk_id, vector FROM vectordb_embedding WHERE generation = %s AND chunk_id", keys, library.generation
    )
    return {key: bytes(vector) for key, vector in rows}


def embedded_keys(library: Library, keys: Sequence[int]) -> set[int]:
    """The keys of those of the chunks that have a vector."""
    statement = "SELECT chunk_id FROM vectordb_embedding WHERE generation = %s AND chunk_id"
    return {key for (key,) in _select(statement, keys, library.generation)}


def chunk_keys(library: Library, public_ids: Sequence[str]) -> dict[str, int]:
    """The keys of those of the chunks that exist, by id."""
    rows = f"vectordb_chunk AS chunk {JOIN_DOCUMENT} WHERE {IS_EXPIRED} IS NOT TRUE"
    statement = f"SELECT chunk.public_id, chunk.id FROM {rows} AND chunk.library_id = %s AND chunk.public_id"
    return dict(_select(statement, public_ids, *[_now()] * 2, library.pk))


def metadata_of(keys: Sequence[int]) -> list[tuple[int, str, str]]:
    """The key, id and metadata, as JSON text, of chunks by their keys."""
    metadata = dialect_of(connection).json_text("metadata")
    return list(_select(f"SELECT id, public_id, {metadata} FROM vectordb_chunk WHERE id", keys))


def texts_to_embed(library: Library, keys: Sequence[int]) -> dict[int, str]:
    """What the embedding model is given of those of the chunks that the library has, by key."""
    return dict(
        _select(
            "SELECT id, coalesce(embed_text, text) FROM vectordb_chunk WHERE library_id = %s AND id", keys, library.pk
        )
    )


def document_keys(library: Library, public_ids: Iterable[str]) -> dict[str, int]:
    """The keys of those documents that exist, by id."""
    return _live_document_keys(library, list(public_ids), _now())


def claim_documents(library: Library, public_ids: Sequence[str]) -> dict[str, int]:
    """As `document_keys`. The other ids are free then: expired documents that have them are deleted, with their
    chunks."""
    now, expired = _now(), "DELETE FROM vectordb_document WHERE expires_at <= %s AND library_id = %s AND public_id"
    execute(expired, public_ids, now, library.pk)
    return _live_document_keys(library, public_ids, now)


def _live_document_keys(library: Library, public_ids: Sequence[str], now: Any) -> dict[str, int]:
    live = "vectordb_document WHERE (expires_at <= %s) IS NOT TRUE"
    statement = f"SELECT public_id, id FROM {live} AND library_id = %s AND public_id"
    return dict(_select(statement, public_ids, now, library.pk))


def next_position(document_key: int) -> int:
    """The position after the document's last chunk."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT max(position) FROM vectordb_chunk WHERE document_id = %s", [document_key])
        (last,) = cursor.fetchone()
    return 0 if last is None else last + 1


def insert_chunks(
    library: Library,
    rows: Sequence[ChunkRow],
    vectors: Iterable[Float32 | None],
    created_at: Sequence[datetime | None] | None = None,
) -> None:
    """Store new chunks, in the order given, and their vectors [dimension], None for none. They are created now, or at
    the times that `created_at` has for them."""
    if not rows:
        return
    now, library_key = _now(), library.pk
    created = [now] * len(rows) if created_at is None else [_parameter(at) or now for at in created_at]
    dialect = dialect_of(connection)
    with connection.cursor() as cursor:
        keys = dict(
            dialect.insert(
                cursor,
                "INSERT INTO vectordb_chunk"
                " (library_id, document_id, public_id, text, embed_text, metadata, position, expires_at, created_at,"
                " updated_at)",
                [
                    (library_key, row.document_key, row.public_id, *_columns(row), at, now)
                    for row, at in zip(rows, created, strict=True)
                ],
                "RETURNING public_id, id",
            )
        )
    _insert_vectors(library.generation, [keys[row.public_id] for row in rows], vectors)


def update_chunks(rows: Sequence[tuple[int, ChunkRow]]) -> None:
    """Overwrite the columns of chunks, given with their keys."""
    dialect = dialect_of(connection)
    _update_each(
        "document_id = CAST(given.column2 AS bigint), text = given.column3, embed_text = given.column4, "
        f"metadata = {dialect.to_json('given.column5')}, position = CAST(given.column6 AS integer), "
        f"expires_at = {dialect.to_time('given.column7')}",
        [(key, row.document_key, *_columns(row)) for key, row in rows],
    )


def _columns(row: ChunkRow) -> tuple[Any, ...]:
    """What an insert and an update write of a chunk alike."""
    expires_at = None if row.expires_at is None else expiry.parameter(row.expires_at)
    return row.text, row.embed_text, row.metadata, row.position, expires_at


def update_expiry(keys: Sequence[int], expires_at: datetime | None) -> None:
    """Overwrite when chunks, given by key, expire."""
    later = dialect_of(connection).later
    statement = f"UPDATE vectordb_chunk SET expires_at = %s, updated_at = {later} WHERE id"
    execute(statement, keys, expiry.parameter(expires_at), _now())


def update_metadata(rows: Sequence[tuple[int, str]]) -> None:
    """Overwrite the metadata of chunks, given with their keys as JSON text."""
    _update_each(f"metadata = {dialect_of(connection).to_json('given.column2')}", rows)


def _update_each(assignments: str, rows: Sequence[Sequence[Any]]) -> None:
    """Set columns of chunks to what `rows` have for each, the key first, which `assignments` call `given.column1`,
    `given.column2` and so on.

    `updated_at` grows even if the clock was set back: tags tell changes by it.
    """
    dialect, now = dialect_of(connection), _now()
    with connection.cursor() as cursor:
        for values, params in dialect.values(rows):
            cursor.execute(
                f"UPDATE vectordb_chunk SET {assignments}, updated_at = {dialect.later}"
                f" FROM ({values}) AS given WHERE id = given.column1",
                [now, *params],
            )


def move_chunks(positions: Sequence[tuple[int, int]]) -> None:
    """Give chunks, by key, other positions in their document; no other column changes."""
    if positions:
        with connection.cursor() as cursor:
            cursor.executemany(
                "UPDATE vectordb_chunk SET position = %s WHERE id = %s",
                [(position, key) for key, position in positions],
            )


def put_vectors(
    library: Library, keys: Sequence[int], vectors: Sequence[Float32 | None], *, generation: int | None = None
) -> None:
    """Store `vectors` [dimension] as those of the chunks with `keys` [n], replacing what they had, by nothing where a
    vector is None; in the library's current generation unless another is named."""
    into = library.generation if generation is None else generation
    bare = [key for key, vector in zip(keys, vectors, strict=True) if vector is None]
    execute("DELETE FROM vectordb_embedding WHERE generation = %s AND chunk_id", bare, into)
    _insert_vectors(into, keys, vectors)


def _insert_vectors(generation: int, keys: Sequence[int], vectors: Iterable[Float32 | None]) -> None:
    with connection.cursor() as cursor:
        dialect_of(connection).insert(
            cursor,
            "INSERT INTO vectordb_embedding (chunk_id, generation, vector)",
            [
                (key, generation, vector.tobytes())
                for key, vector in zip(keys, vectors, strict=True)
                if vector is not None
            ],
            "ON CONFLICT (chunk_id, generation) DO UPDATE SET vector = excluded.vector",
        )


def delete_chunks(keys: Sequence[int]) -> int:
    """Delete chunks by key, and return their number. A trigger deletes their embeddings."""
    return execute("DELETE FROM vectordb_chunk WHERE id", keys)


@lru_cache(maxsize=4096)
def _parameter(moment: datetime | None) -> Any:
    """A time as statements take it; rows that were written together share theirs."""
    return expiry.parameter(moment)


def _now() -> Any:
    return expiry.parameter(timezone.now())


def _select(statement: str, values: Sequence[Any], *params: Any) -> Iterator[tuple[Any, ...]]:
    """The rows of `statement IN values`; `params` are those of the statement before that."""
    with connection.cursor() as cursor:
        for condition, some in _in_conditions(values):
            cursor.execute(statement + condition, [*params, *some])
            yield from cursor.fetchall()


def execute(statement: str, values: Sequence[Any], *params: Any) -> int:
    """Execute `statement IN values`, and return the number of rows; `params` are those of the statement before that."""
    rows = 0
    with connection.cursor() as cursor:
        for condition, some in _in_conditions(values):
            cursor.execute(statement + condition, [*params, *some])
            rows += cursor.rowcount
    return rows


def _in_conditions(values: Sequence[Any]) -> Iterator[tuple[str, Sequence[Any]]]:
    """Conditions that together name all `values`, each with its share of them."""
    for start in range(0, len(values), _IDS_PER_STATEMENT):
        some = values[start : start + _IDS_PER_STATEMENT]
        yield f" IN ({', '.join(['%s'] * len(some))})", some
