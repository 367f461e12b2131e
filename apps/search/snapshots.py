"""One state of the database, for as long as a query takes.

A query reads revision, changes and rows from the same snapshot; read one by one, they would make an answer that was
never true. A snapshot lives on the read-only connection `snapshot`, and takes no lock that a writer waits for. It must
not outlive its request: on SQLite the write-ahead log cannot shrink below the oldest one.
"""

import threading
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, NamedTuple, Self

import orjson
from django.db import DatabaseError, connections
from django.db.backends.base.base import BaseDatabaseWrapper

from apps.access.authentication import ReadRows, check_again
from apps.access.requests import current_principal
from apps.engine.metrics import Metric
from apps.libraries.dialects import SNAPSHOT_ALIAS, dialect_of
from apps.libraries.dialects.base import Dialect
from apps.libraries.errors import NotFound
from apps.libraries.expiry import parameter
from apps.libraries.models import EmbeddingModel

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_KEYS_PER_STATEMENT = 2000
# What a connection keeps of what statements found.
MOST_KEPT = 1000


@dataclass(frozen=True)
class Position:
    """A place in a library's history: the change log's highest number and that entry's random token."""

    seq: int
    token: int


@dataclass(frozen=True)
class LibraryState:
    """The fields of a library that decide which view shows it."""

    key: int
    public_id: str
    uid: str
    dimension: int | None
    metric: Metric
    index_type: str
    params: Mapping[str, Any]
    generation: int
    unindexed: tuple[str, ...]
    embedding: EmbeddingModel | None
    manifest_number: int
    rebuild: int
    position: Position

    @property
    def vector_identity(self) -> tuple[str, int | None, Metric, int, tuple[str, ...]]:
        """What two states have in common that differ by logged changes and index files only."""
        return self.uid, self.dimension, self.metric, self.generation, self.unindexed


class StateRow(NamedTuple):
    """What a state is made of, as the database has it: equal where nothing has changed."""

    key: int
    public_id: str
    uid: str
    dimension: int | None
    metric: str
    index_type: str
    index_params: str
    generation: int
    unindexed: str
    embedding_provider: str
    embedding_model: str
    manifest_number: int
    rebuild: int
    seq: int | None
    token: int | None

    def state(self) -> LibraryState:
        """The state of the library."""
        return LibraryState(
            self.key,
            self.public_id,
            self.uid,
            self.dimension,
            Metric(self.metric),
            self.index_type,
            orjson.loads(self.index_params),
            self.generation,
            tuple(sorted(orjson.loads(self.unindexed))),
            EmbeddingModel(self.embedding_provider, self.embedding_model) if self.embedding_provider else None,
            self.manifest_number,
            self.rebuild,
            Position(self.seq or 0, self.token or 0),
        )


_STATES = """
    SELECT library.id, library.public_id, library.uid, library.dimension, library.metric, library.index_type,
           {index_params}, library.generation, {unindexed}, library.embedding_provider, library.embedding_model,
           library.manifest, library.rebuild, change.seq, change.token
    FROM vectordb_library AS library LEFT JOIN vectordb_change AS change
        ON change.seq = (SELECT max(seq) FROM vectordb_change WHERE library_key = library.id)"""


class Snapshot:
    """A read transaction; its methods see one state of the database until `renew`.

    `now` is its time, in microseconds since the epoch: what has expired by then is not there. Statements go to the
    driver's connection directly: Django's cursor costs as much as a small statement.
    """

    now: int
    # What statements have found in this state of the database; None until it is looked for.
    _found: dict[Any, Any] | None

    def __init__(self, connection: BaseDatabaseWrapper) -> None:
        # Only Django's own cursor would look whether the server has hung up since the last request, and whether the
        # files of SQLite are in place.
        connection.close_if_health_check_failed()
        connection.ensure_connection()
        self._connection = connection
        self._driver = connection.connection
        self.dialect = dialect_of(connection)
        self._begin()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        try:
            self.close()
        except DatabaseError:
            self._connection.close()

    @property
    def time(self) -> datetime:
        """`now` as Django takes it."""
        return _EPOCH + timedelta(microseconds=self.now)

    @property
    def moment(self) -> Any:
        """`now` as statements take it."""
        return parameter(self.time)

    def renew(self) -> None:
        """Go over to the database's current state."""
        self.close()
        self._begin()

    def close(self) -> None:
        """End the transaction."""
        self._run("COMMIT")

    def rows(self, sql: str, params: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """All rows of a query."""
        with self._connection.wrap_database_errors:
            found: list[tuple[Any, ...]] = self._driver.execute(self.dialect.for_driver(sql), params).fetchall()
        return found

    def cached_rows(self, sql: str, params: Sequence[Any]) -> list[tuple[Any, ...]]:
        """As `rows`, for a small statement that most queries repeat: it is not run again in this state of the database,
        nor, on SQLite, on a connection where nothing was committed since. The list is not to be changed."""
        if self._found is None:
            with self._connection.wrap_database_errors:
                self._found = self.dialect.found_since_commit(self._driver)
        key = (sql, *params)
        if (rows := self._found.get(key)) is None:
            if len(self._found) >= MOST_KEPT:
                self._found.clear()
            rows = self._found[key] = self.rows(sql, params)
        return rows

    def _begin(self) -> None:
        self._found = None
        self._run(self.dialect.begin_snapshot)
        self.now = time.time_ns() // 1000
        principal = current_principal.get()
        if principal.proof is not None:
            try:
                check_again(principal, self.cached_rows)
            except BaseException:
                self.__exit__()
                raise

    def _run(self, statement: str) -> None:
        with self._connection.wrap_database_errors:
            self._driver.execute(statement)

    def library(self, public_id: str) -> LibraryState | None:
        """The library's state; None where there is none."""
        found = self.cached_rows(_state_by_id(self.dialect), (public_id,))
        return _state_of(found[0]) if found else None

    def existing_library(self, public_id: str) -> LibraryState:
        """The library's state; raises NotFound where there is none."""
        state = self.library(public_id)
        if state is None:
            raise NotFound.library(public_id)
        return state

    def version(self) -> tuple[Any, Any]:
        """Equal to that of an earlier snapshot only where nothing was committed in between."""
        return self._driver, self.rows(self.dialect.data_version)[0][0]

    def library_rows(self, keys: Collection[int] | None = None) -> list[StateRow]:
        """What the states of all libraries are made of, or of those with `keys`, in order of creation."""
        states = _states(self.dialect)
        if keys is None:
            return [StateRow(*row) for row in self.rows(f"{states} ORDER BY library.id")]
        found = [self.rows(f"{states} WHERE library.id = %s", [key]) for key in sorted(keys)]
        return [StateRow(*row) for rows in found for row in rows]

    def count_changed(self, library_key: int, since: int) -> int:
        """The number of rows that the library's log names past `since`: a write of a row has two entries, one of the
        chunk and one of its vector."""
        [(count,)] = self.rows(
            "SELECT count(DISTINCT chunk_key) FROM vectordb_change WHERE library_key = %s AND seq > %s",
            [library_key, since],
        )
        return int(count)

    def measure_changed(self, library_key: int, since: int) -> int:
        """The number of characters of text and metadata in these rows."""
        metadata = self.dialect.json_text("chunk.metadata")
        [(size,)] = self.rows(
            f"SELECT sum(length(chunk.text) + length({metadata})) FROM vectordb_chunk AS chunk WHERE chunk.id IN"
            " (SELECT chunk_key FROM vectordb_change WHERE library_key = %s AND seq > %s)",
            [library_key, since],
        )
        return int(size or 0)

    def existing_keys(self, keys: Collection[int]) -> set[int]:
        """Those of the keys that a library has."""
        given, found = list(keys), set[int]()
        for start in range(0, len(given), _KEYS_PER_STATEMENT):
            some = given[start : start + _KEYS_PER_STATEMENT]
            marks = ", ".join(["%s"] * len(some))
            found |= {key for (key,) in self.rows(f"SELECT id FROM vectordb_library WHERE id IN ({marks})", some)}
        return found

    def has(self, library_key: int, position: Position) -> bool:
        """Whether the library's history contains `position`."""
        if position.seq == 0:
            return False
        sql = "SELECT 1 FROM vectordb_change WHERE seq = %s AND library_key = %s AND token = %s"
        return bool(self.rows(sql, [position.seq, library_key, position.token]))


@lru_cache
def _states(dialect: Dialect) -> str:
    return _STATES.format(
        index_params=dialect.json_text("library.index_params"), unindexed=dialect.json_text("library.unindexed")
    )


@lru_cache
def _state_by_id(dialect: Dialect) -> str:
    return f"{_states(dialect)} WHERE library.public_id = %s"


@lru_cache(maxsize=1024)
def _state_of(row: tuple[Any, ...]) -> LibraryState:
    return StateRow(*row).state()


def read_rows(sql: str, params: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
    """All rows of one statement, on the connection that snapshots are made on. It must not be in one."""
    connection = connections[SNAPSHOT_ALIAS]
    connection.close_if_health_check_failed()
    connection.ensure_connection()
    with connection.wrap_database_errors:
        found: list[tuple[Any, ...]] = connection.connection.execute(
            dialect_of(connection).for_driver(sql), params
        ).fetchall()
    return found


class _AtHand(threading.local):
    snapshot: Snapshot | None = None


_at_hand = _AtHand()


class SnapshotAtHand:
    """Gives a `with` block what reads rows from the snapshot that this thread's next `open_snapshot` gives. It begins
    with the first statement, and ends with the block if it was not taken. So a query learns who asks from the state
    that answers it.
    """

    def __enter__(self) -> ReadRows:
        return _read_at_hand

    def __exit__(self, *exception: object) -> None:
        if _at_hand.snapshot is not None:
            with open_snapshot():
                pass


def _read_at_hand(sql: str, params: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
    if _at_hand.snapshot is None:
        _at_hand.snapshot = Snapshot(connections[SNAPSHOT_ALIAS])
    return _at_hand.snapshot.cached_rows(sql, params)


def open_snapshot() -> Snapshot:
    """A snapshot of the database for a `with` block that ends it: as it is now, or since `SnapshotAtHand`."""
    snapshot, _at_hand.snapshot = _at_hand.snapshot, None
    return snapshot or Snapshot(connections[SNAPSHOT_ALIAS])
