"""The SQL that the write services share: raw statements on Django's connection, since the ORM would halve the rate.

Everything here runs inside the caller's transaction, after `lock_library`, which makes the library's other writers
wait (on SQLite the transaction itself has locked the database).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson
from django.db import connection, transaction
from django.utils import timezone

from apps.engine.metrics import Metric
from apps.engine.vectors import Float32
from apps.libraries import selectors
from apps.libraries.dialects import dialect_of
from apps.libraries.errors import ModelChanged, NotFound
from apps.libraries.models import EmbeddingModel, KnownModel, Library
from apps.libraries.signals import announce

# Well below the number of parameters that either database takes in one statement.
_IDS_PER_STATEMENT = 2000


@dataclass
class StoredChunk:
    """A chunk's row as a write needs it."""

    key: int
    public_id: str
    document_key: int | None
    text: str
    metadata: str
    position: int | None


@dataclass
class ChunkRow:
    """A chunk's columns to be written; `metadata` is JSON text."""

    public_id: str
    document_key: int | None
    text: str
    metadata: str
    position: int | None


def lock_library(public_id: str) -> Library:
    """The library, its row locked until the transaction ends; its caches are told on commit.

    Raises NotFound.
    """
    if not transaction.get_connection().in_atomic_block:
        raise transaction.TransactionManagementError("lock_library needs a transaction")
    libraries = Library.objects.all()
    if dialect_of(connection).lock_row:
        libraries = libraries.select_for_update(no_key=True)
    library = libraries.filter(public_id=public_id).first()
    if library is None:
        raise NotFound(f"There is no library {public_id!r}.")
    announce(library.pk)
    return library


def bind_model(library: Library, model: KnownModel | None, named: Mapping[str, EmbeddingModel]) -> None:
    """Make sure that `model`, which makes vectors of texts, and those that the request names, by pointer, are the
    library's; `model` becomes it, with its dimension, where there never was a vector. Raises ModelMismatch,
    ModelChanged."""
    if model is not None and library.takes_model:
        (library.embedding_provider, library.embedding_model), library.dimension = model
        library.save(update_fields=["embedding_provider", "embedding_model", "dimension", "updated_at"])
    selectors.check_models(library.embedding, named)
    if model is not None and model.key != library.embedding:
        raise ModelChanged("The library's embedding model has changed while texts were embedded; send them again.")


def metric_of(library: Library) -> Metric:
    """The library's metric, as the engine names it."""
    return Metric(library.metric)


def json_text(value: Any) -> str:
    """JSON as it is stored."""
    return orjson.dumps(value).decode()


def canonical_json(text: str) -> bytes:
    """Stored JSON with its keys in order, for comparisons."""
    return orjson.dumps(orjson.loads(text), option=orjson.OPT_SORT_KEYS)


def stored_chunks(library: Library, public_ids: Sequence[str]) -> dict[str, StoredChunk]:
    """Those of the chunks that exist, by id."""
    return {
        chunk.public_id: chunk
        for some in _portions(public_ids)
        for chunk in _select_chunks("library_id = %s AND public_id", [library.pk], some)
    }


def chunks_of_document(document_key: int) -> list[StoredChunk]:
    """A document's chunks in order of their positions."""
    chunks = _select_chunks("document_id", [], [document_key])
    return sorted(chunks, key=lambda chunk: (chunk.position or 0, chunk.key))


def _select_chunks(column: str, fixed: list[Any], values: Sequence[Any]) -> list[StoredChunk]:
    metadata = dialect_of(connection).json_text("metadata")
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT id, public_id, document_id, text, {metadata}, position FROM chunk "
            f"WHERE {column} IN ({_marks(values)})",
            [*fixed, *values],
        )
        return [StoredChunk(*row) for row in cursor.fetchall()]


def vectors_of(library: Library, keys: Sequence[int]) -> dict[int, bytes]:
    """The stored vectors of chunks, by key."""
    found: dict[int, bytes] = {}
    with connection.cursor() as cursor:
        for some in _portions(keys):
            cursor.execute(
                f"SELECT chunk_id, vector FROM embedding WHERE generation = %s AND chunk_id IN ({_marks(some)})",
                [library.generation, *some],
            )
            found.update((key, bytes(vector)) for key, vector in cursor.fetchall())
    return found


def texts_of(library: Library, keys: Sequence[int]) -> dict[int, str]:
    """The texts of those of the chunks that the library has, by key."""
    found: dict[int, str] = {}
    with connection.cursor() as cursor:
        for some in _portions(keys):
            cursor.execute(
                f"SELECT id, text FROM chunk WHERE library_id = %s AND id IN ({_marks(some)})", [library.pk, *some]
            )
            found.update(cursor.fetchall())
    return found


def document_keys(library: Library, public_ids: Iterable[str]) -> dict[str, int]:
    """The keys of those documents that exist, by id."""
    found: dict[str, int] = {}
    with connection.cursor() as cursor:
        for some in _portions(sorted(set(public_ids))):
            cursor.execute(
                f"SELECT public_id, id FROM document WHERE library_id = %s AND public_id IN ({_marks(some)})",
                [library.pk, *some],
            )
            found.update(cursor.fetchall())
    return found


def next_positions(keys: Iterable[int]) -> dict[int, int]:
    """For each document, by key, the position after its last chunk."""
    found: dict[int, int] = {}
    with connection.cursor() as cursor:
        for key in set(keys):
            cursor.execute("SELECT max(position) FROM chunk WHERE document_id = %s", [key])
            (last,) = cursor.fetchone()
            found[key] = 0 if last is None else last + 1
    return found


def insert_chunks(library: Library, rows: Sequence[ChunkRow], vectors: Float32) -> None:
    """Store new chunks and their vectors [n, dimension], in the order given."""
    if not rows:
        return
    now = _now()
    dialect = dialect_of(connection)
    with connection.cursor() as cursor:
        dialect.insert(
            cursor,
            "INSERT INTO chunk (library_id, document_id, public_id, text, metadata, position, created_at, updated_at)",
            [
                (library.pk, row.document_key, row.public_id, row.text, row.metadata, row.position, now, now)
                for row in rows
            ],
        )
        keys: dict[str, int] = {}
        for some in _portions([row.public_id for row in rows]):
            cursor.execute(
                f"SELECT public_id, id FROM chunk WHERE library_id = %s AND public_id IN ({_marks(some)})",
                [library.pk, *some],
            )
            keys.update(cursor.fetchall())
    put_vectors(library, [keys[row.public_id] for row in rows], vectors)


def update_chunks(rows: Sequence[tuple[int, ChunkRow]]) -> None:
    """Overwrite the columns of chunks, given with their keys. `updated_at` grows even if the clock was set back: tags
    tell changes by it."""
    if not rows:
        return
    now = _now()
    later = dialect_of(connection).later
    with connection.cursor() as cursor:
        cursor.executemany(
            "UPDATE chunk SET document_id = %s, text = %s, metadata = %s, position = %s, "
            f"updated_at = {later} WHERE id = %s",
            [(row.document_key, row.text, row.metadata, row.position, now, key) for key, row in rows],
        )


def move_chunks(positions: Sequence[tuple[int, int]]) -> None:
    """Give chunks, by key, other positions in their document; no other column changes."""
    if positions:
        with connection.cursor() as cursor:
            cursor.executemany(
                "UPDATE chunk SET position = %s WHERE id = %s", [(position, key) for key, position in positions]
            )


def put_vectors(library: Library, keys: Sequence[int], vectors: Float32, *, generation: int | None = None) -> None:
    """Store `vectors` [n, dimension] as those of the chunks with `keys` [n], replacing what they had; in the library's
    current generation unless another is named."""
    into = library.generation if generation is None else generation
    with connection.cursor() as cursor:
        dialect_of(connection).insert(
            cursor,
            "INSERT INTO embedding (chunk_id, generation, vector)",
            [(key, into, vector.tobytes()) for key, vector in zip(keys, vectors, strict=True)],
            "ON CONFLICT (chunk_id, generation) DO UPDATE SET vector = excluded.vector",
        )


def delete_other_vectors(library: Library, keys: Sequence[int]) -> None:
    """Delete the embeddings of chunks, by key, that are not of the library's current generation."""
    with connection.cursor() as cursor:
        for some in _portions(keys):
            cursor.execute(
                f"DELETE FROM embedding WHERE generation <> %s AND chunk_id IN ({_marks(some)})",
                [library.generation, *some],
            )


def delete_chunks(keys: Sequence[int]) -> int:
    """Delete chunks by key; answers how many there were. A trigger deletes their embeddings."""
    deleted = 0
    with connection.cursor() as cursor:
        for some in _portions(keys):
            cursor.execute(f"DELETE FROM chunk WHERE id IN ({_marks(some)})", list(some))
            deleted += cursor.rowcount
    return deleted


def fix_dimension(library: Library, vectors: Float32) -> None:
    """Give a library without a dimension that of its first vectors [n, dimension]."""
    if library.dimension is None and len(vectors):
        library.dimension = vectors.shape[1]
        library.save(update_fields=["dimension", "updated_at"])


def _now() -> str | datetime | None:
    return connection.ops.adapt_datetimefield_value(timezone.now())


def _marks(values: Sequence[Any]) -> str:
    return ", ".join(["%s"] * len(values))


def _portions(values: Sequence[Any]) -> Iterable[Sequence[Any]]:
    return (values[start : start + _IDS_PER_STATEMENT] for start in range(0, len(values), _IDS_PER_STATEMENT))
