"""PostgreSQL: triggers, snapshots.

The log's triggers work on whole statements (transition tables), and lock the libraries' rows before they take numbers
from the log's sequence: so the numbers of one library become visible in order.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from django.conf import settings
from django.db import transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.utils import CursorWrapper
from django.db.utils import DatabaseError, InterfaceError, OperationalError

from apps.libraries.dialects import postgresql_copy, postgresql_use
from apps.libraries.dialects.base import MAINTAINED_COLUMNS, Dialect, Failure, FilesState, Statement

_RANDOM = "('x' || substr(replace(gen_random_uuid()::text, '-', ''), 1, 16))::bit(64)::bigint"


def _log(rows: str, condition: str = "") -> str:
    """Statements that log `rows`, a query of (library_key, chunk_key, ...), where `condition` holds of r and library
    once the library is locked."""
    return f"""
        PERFORM id FROM vectordb_library WHERE id IN (SELECT library_key FROM ({rows}) AS r)
        ORDER BY id FOR NO KEY UPDATE;
        INSERT INTO vectordb_change (library_key, chunk_key, token)
        SELECT r.library_key, r.chunk_key, {_RANDOM}
        FROM ({rows}) AS r JOIN vectordb_library AS library ON library.id = r.library_key
        {condition};"""


def _log_libraries(rows: str) -> str:
    """A statement that logs the libraries of `rows`, which end a query of their `id`."""
    return f"""
        INSERT INTO vectordb_change (library_key, chunk_key, token) SELECT 0, id, {_RANDOM} FROM {rows};"""


def _chunks_of(table: str) -> str:
    return f"SELECT library_id AS library_key, id AS chunk_key FROM {table}"


def _chunks_embedded_in(table: str) -> str:
    return f"""SELECT chunk.library_id AS library_key, chunk.id AS chunk_key, e.generation
        FROM {table} AS e JOIN vectordb_chunk AS chunk ON chunk.id = e.chunk_id"""


def _log_embedded(rows: str) -> str:
    """Embeddings of other generations than the library's current one are in no answer, so they are not logged."""
    return _log(rows, "WHERE library.generation = r.generation")


# What filters see of a document, and its expiry, are those of its chunks too.
_CHUNKS_OF_CHANGED = """SELECT chunk.library_id AS library_key, chunk.id AS chunk_key
        FROM new_rows AS n JOIN old_rows AS o ON o.id = n.id AND (n.public_id <> o.public_id
            OR n.metadata::text <> o.metadata::text OR n.expires_at IS DISTINCT FROM o.expires_at)
        JOIN vectordb_chunk AS chunk ON chunk.document_id = n.id"""

# What was made of another text by a model that the library is moving to.
_FORGET_OTHERS = """
        IF EXISTS (SELECT FROM vectordb_reembedding WHERE library_id IN (SELECT library_id FROM new_rows)) THEN
            DELETE FROM vectordb_embedding AS embedding USING new_rows AS n JOIN old_rows AS o ON o.id = n.id
            JOIN vectordb_library AS library ON library.id = n.library_id
            WHERE embedding.chunk_id = n.id AND embedding.generation <> library.generation
              AND (coalesce(n.embed_text, n.text) <> coalesce(o.embed_text, o.text) OR n.library_id <> o.library_id);
        END IF;"""

_CHECK = """
        IF EXISTS (
            SELECT FROM new_rows n JOIN vectordb_chunk AS chunk ON chunk.id = n.chunk_id
            JOIN vectordb_library AS library ON library.id = chunk.library_id
            WHERE library.generation = n.generation AND octet_length(n.vector) <> 4 * library.dimension
        ) THEN RAISE EXCEPTION 'embedding.vector must have 4 x library.dimension bytes' USING ERRCODE = '23514';
        END IF;"""

# The type json knows no equality.
_IS_OTHERWISE_MAINTAINED = " OR ".join(f"n.{name}::text IS DISTINCT FROM o.{name}::text" for name in MAINTAINED_COLUMNS)

_NEW = "REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT"
_OLD = "REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT"
_BOTH = "REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows FOR EACH STATEMENT"

# name: (event, scope, body). A library whose vectors are other ones at once gets an entry of no chunk, so that its
# revision tells. An entry of no library names the library whose row was made, changed or deleted, so that maintenance
# need not look at all rows. After a TRUNCATE nobody can say what changed: each library gets a new beginning.
_RESTART = f"""
        DELETE FROM vectordb_change;
        INSERT INTO vectordb_change (library_key, chunk_key, token) SELECT id, 0, {_RANDOM} FROM vectordb_library;"""
_TRIGGERS = {
    "vectordb_chunk_log_insert": ("AFTER INSERT ON vectordb_chunk", _NEW, _log(_chunks_of("new_rows"))),
    "vectordb_chunk_log_update": (
        "AFTER UPDATE ON vectordb_chunk",
        _BOTH,
        _log(f"{_chunks_of('new_rows')} UNION {_chunks_of('old_rows')}") + _FORGET_OTHERS,
    ),
    "vectordb_chunk_log_delete": (
        "AFTER DELETE ON vectordb_chunk",
        _OLD,
        "DELETE FROM vectordb_embedding WHERE chunk_id IN (SELECT id FROM old_rows);" + _log(_chunks_of("old_rows")),
    ),
    "vectordb_embedding_log_insert": (
        "AFTER INSERT ON vectordb_embedding",
        _NEW,
        _CHECK + _log_embedded(_chunks_embedded_in("new_rows")),
    ),
    "vectordb_embedding_log_update": (
        "AFTER UPDATE ON vectordb_embedding",
        _BOTH,
        _CHECK + _log_embedded(f"{_chunks_embedded_in('new_rows')} UNION {_chunks_embedded_in('old_rows')}"),
    ),
    "vectordb_embedding_log_delete": (
        "AFTER DELETE ON vectordb_embedding",
        _OLD,
        _log_embedded(_chunks_embedded_in("old_rows")),
    ),
    "vectordb_document_log_update": ("AFTER UPDATE ON vectordb_document", _BOTH, _log(_CHUNKS_OF_CHANGED)),
    "vectordb_document_delete": (
        "AFTER DELETE ON vectordb_document",
        _OLD,
        "DELETE FROM vectordb_chunk WHERE document_id IN (SELECT id FROM old_rows);",
    ),
    "vectordb_library_log_switch": (
        "AFTER UPDATE OF generation, unindexed ON vectordb_library",
        "FOR EACH ROW WHEN (OLD.generation <> NEW.generation OR OLD.unindexed::text <> NEW.unindexed::text)",
        f"INSERT INTO vectordb_change (library_key, chunk_key, token) VALUES (NEW.id, 0, {_RANDOM});",
    ),
    "vectordb_library_log_insert": ("AFTER INSERT ON vectordb_library", _NEW, _log_libraries("new_rows")),
    "vectordb_library_log_update": (
        "AFTER UPDATE ON vectordb_library",
        _BOTH,
        _log_libraries(f"new_rows AS n JOIN old_rows AS o USING (id) WHERE {_IS_OTHERWISE_MAINTAINED}"),
    ),
    "vectordb_library_delete": (
        "AFTER DELETE ON vectordb_library",
        _OLD,
        """DELETE FROM vectordb_chunk WHERE library_id IN (SELECT id FROM old_rows);
        DELETE FROM vectordb_document WHERE library_id IN (SELECT id FROM old_rows);
        DELETE FROM vectordb_change WHERE library_key IN (SELECT id FROM old_rows);
        DELETE FROM vectordb_reembedding WHERE library_id IN (SELECT id FROM old_rows);"""
        + _log_libraries("old_rows"),
    ),
    "vectordb_chunk_log_truncate": ("AFTER TRUNCATE ON vectordb_chunk", "FOR EACH STATEMENT", _RESTART),
    "vectordb_embedding_log_truncate": ("AFTER TRUNCATE ON vectordb_embedding", "FOR EACH STATEMENT", _RESTART),
}

# Advisory locks are numbers that all who use the database share: "vdb" and the key of what is locked.
_LOCKS = int.from_bytes(b"vdb") << 40

_BUSY_STATES = {"40001", "40P01", "55P03", "57014"}
_FULL_STATES = {"53100", "53200"}
# data_corrupted, index_corrupted.
_DAMAGED_STATES = {"XX001", "XX002"}


class PostgreSQLDialect(Dialect):
    """PostgreSQL 14 or later, by psycopg 3."""

    begin_snapshot = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
    data_version = "SELECT pg_current_snapshot()::text"
    rows_per_statement = 500
    lock_row = "FOR NO KEY UPDATE"
    # A table's oid is larger than those of the tables that it refers to.
    select_triggers = """
        SELECT tgname, CASE WHEN tgenabled <> 'D' THEN prosrc END FROM pg_trigger JOIN pg_proc ON tgfoid = pg_proc.oid
        WHERE NOT tgisinternal AND pg_table_is_visible(tgrelid) ORDER BY tgrelid"""
    # In all versions the function has the trigger's name.
    drop_trigger = "DROP FUNCTION {}() CASCADE"
    # The source of a function names the event of its trigger, so it tells whether the trigger is that of this version.
    triggers = {
        name: f"-- {event} {scope}\nBEGIN {body} RETURN NULL; END" for name, (event, scope, body) in _TRIGGERS.items()
    }
    later = "greatest(%s, updated_at + interval '1 microsecond')"

    def prepare(self, connection: BaseDatabaseWrapper) -> None:
        """Let restores know of it. The settings hold the options of connections."""
        postgresql_use.join(connection)

    def for_driver(self, sql: str) -> str:
        return sql

    def try_lock(self, connection: BaseDatabaseWrapper, key: int) -> bool:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_try_advisory_lock(%s)", [_LOCKS + key])
            return bool(cursor.fetchone()[0])

    def unlock(self, connection: BaseDatabaseWrapper, key: int) -> None:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_unlock(%s)", [_LOCKS + key])

    def create(self, connection: BaseDatabaseWrapper) -> None:
        """Do nothing: it is made by the server's owner."""

    def files_state(self, connection: BaseDatabaseWrapper) -> FilesState:
        """Return IN_PLACE: PostgreSQL looks after its files."""
        return FilesState.IN_PLACE

    def make_room(self, connection: BaseDatabaseWrapper) -> bool:
        """Return False: PostgreSQL's disk is not ours."""
        return False

    def json_text(self, column: str) -> str:
        return f"{column}::text"

    def json_array(self, column: str) -> str:
        return f"coalesce(json_agg({column})::text, '[]')"

    def join_bytes(self, column: str) -> str:
        return f"string_agg({column}, ''::bytea)"

    def to_json(self, text: str) -> str:
        return f"{text}::json"

    def to_time(self, value: str) -> str:
        return f"{value}::timestamptz"

    @contextmanager
    def migration(self, connection: BaseDatabaseWrapper) -> Iterator[None]:
        with transaction.atomic(using=connection.alias), connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [_LOCKS])
            # A table whose rows wait for their checks cannot be altered.
            cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
            yield

    def create_trigger(self, name: str) -> str:
        event, scope, _ = _TRIGGERS[name]
        return f"""
            CREATE OR REPLACE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $body${self.triggers[name]}$body$;
            CREATE TRIGGER {name} {event} {scope} EXECUTE FUNCTION {name}();"""

    def failure(self, error: DatabaseError) -> Failure | None:
        state = getattr(error.__cause__, "sqlstate", None)
        if state in _BUSY_STATES:
            return Failure.BUSY
        if state in _FULL_STATES:
            return Failure.FULL
        if state in _DAMAGED_STATES:
            return Failure.DAMAGED
        lost = isinstance(error, (OperationalError, InterfaceError)) and hasattr(error.__cause__, "sqlstate")
        return Failure.UNAVAILABLE if lost else None

    def check(self, cursor: CursorWrapper) -> list[str]:
        faults = []
        cursor.execute("SELECT tablename FROM pg_tables WHERE schemaname = current_schema() ORDER BY tablename")
        for (table,) in cursor.fetchall():
            try:
                cursor.execute(f"SELECT count(CAST({table} AS text)) FROM {table}")
            except DatabaseError as error:
                if self.failure(error) is not Failure.DAMAGED:
                    raise
                faults.append(f"{table}: {error}".strip())
        return faults

    def version(self, connection: BaseDatabaseWrapper) -> str:
        with connection.cursor() as cursor:
            cursor.execute("SHOW server_version")
            return f"PostgreSQL {cursor.fetchone()[0]}"

    def server_id(self, connection: BaseDatabaseWrapper) -> str:
        with connection.cursor() as cursor:
            cursor.execute("SELECT has_function_privilege('pg_control_system()', 'EXECUTE')")
            if not cursor.fetchone()[0]:
                return ""
            cursor.execute(
                "SELECT system_identifier, oid FROM pg_control_system(), pg_database WHERE datname = current_database()"
            )
            return "-".join(map(str, cursor.fetchone()))

    def sizes(self, connection: BaseDatabaseWrapper) -> tuple[int, int | None]:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_database_size(current_database())")
            return int(cursor.fetchone()[0]), None

    copy_name = "database.dump"

    def copy(self, connection: BaseDatabaseWrapper, target: Path, advance: Callable[[int, int], None]) -> None:
        postgresql_copy.copy(connection, target, advance)

    def check_copy(
        self, connection: BaseDatabaseWrapper, file: Path, rows: Mapping[str, int], *, is_restored: bool
    ) -> list[str]:
        return postgresql_copy.check_copy(connection, file, rows, is_restored=is_restored)

    def copy_folder(self, connection: BaseDatabaseWrapper) -> Path:
        """Return the data folder: there is room, and nobody else reads there."""
        folder: Path = settings.DATA_DIR
        return folder

    def has_tables(self, connection: BaseDatabaseWrapper) -> bool:
        return postgresql_copy.has_tables(connection)

    def exclusive_use(self, connection: BaseDatabaseWrapper) -> AbstractContextManager[bool]:
        return postgresql_use.exclusive(connection)

    def replace(self, connection: BaseDatabaseWrapper, copied: Path, then: Sequence[Statement]) -> None:
        postgresql_copy.replace(connection, copied, then)

    def upkeep(self, connection: BaseDatabaseWrapper) -> None:
        """Do nothing: PostgreSQL has its own checkpointer and autovacuum."""
