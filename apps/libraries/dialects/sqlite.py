"""SQLite: triggers, snapshots, upkeep."""

import contextlib
import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from django.db import transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.utils import CursorWrapper
from django.db.utils import DatabaseError

from apps.libraries.dialects import reserve, sqlite_copy
from apps.libraries.dialects.base import MAINTAINED_COLUMNS, SNAPSHOT_ALIAS, Dialect, Failure, FilesState, Statement
from apps.libraries.dialects.sqlite_backend import locks
from apps.libraries.dialects.sqlite_backend.base import with_question_marks
from apps.libraries.dialects.sqlite_backend.files import files_of
from apps.libraries.dialects.sqlite_backend.turns import turn, wait_for_writer
from apps.telemetry import metrics

_LOG = "INSERT INTO vectordb_change (library_key, chunk_key, token)"
# Embeddings of other generations than the library's current one are in no answer, so they are not logged.
_LOG_EMBEDDED = f"""{_LOG}
            SELECT library.id, chunk.id, random()
            FROM vectordb_chunk AS chunk JOIN vectordb_library AS library ON library.id = chunk.library_id
            WHERE chunk.id"""

_LENGTH = """
            SELECT RAISE(ABORT, 'embedding.vector must have 4 x library.dimension bytes')
            FROM vectordb_chunk AS chunk JOIN vectordb_library AS library ON library.id = chunk.library_id
            WHERE chunk.id = NEW.chunk_id AND library.generation = NEW.generation
              AND length(NEW.vector) <> 4 * library.dimension;"""

# What was made of another text by a model that the library is moving to.
_FORGET_OTHERS = """
            DELETE FROM vectordb_embedding WHERE chunk_id = NEW.id
            AND generation <> (SELECT generation FROM vectordb_library WHERE id = NEW.library_id);"""

# What filters see of a document, and its expiry, are those of its chunks too.
_LOG_CHUNKS = f"""
            {_LOG} SELECT library_id, id, random() FROM vectordb_chunk WHERE document_id = NEW.id;"""

# A row that INSERT OR REPLACE or UPDATE OR REPLACE takes away fires no delete trigger, so it is logged before. A
# library whose vectors are other ones at once gets an entry of no chunk, so that its revision tells. An entry of no
# library names the library whose row was made, changed or deleted, so that maintenance need not look at all rows.
_TRIGGERS = {
    "vectordb_chunk_log_replaced": f"""
        BEFORE INSERT ON vectordb_chunk BEGIN
            {_LOG} SELECT library_id, id, random() FROM vectordb_chunk
            WHERE library_id = NEW.library_id AND public_id = NEW.public_id;
            {_LOG} SELECT library_id, id, random() FROM vectordb_chunk WHERE id = NEW.id;{_FORGET_OTHERS}
        END""",
    "vectordb_chunk_log_insert": f"""
        AFTER INSERT ON vectordb_chunk BEGIN
            {_LOG} VALUES (NEW.library_id, NEW.id, random());
        END""",
    "vectordb_chunk_log_displaced": f"""
        BEFORE UPDATE OF id, library_id, public_id ON vectordb_chunk BEGIN
            {_LOG} SELECT library_id, id, random() FROM vectordb_chunk
            WHERE library_id = NEW.library_id AND public_id = NEW.public_id AND id <> OLD.id;
            {_LOG} SELECT library_id, id, random() FROM vectordb_chunk WHERE id = NEW.id AND id <> OLD.id;
        END""",
    "vectordb_chunk_log_update": f"""
        AFTER UPDATE ON vectordb_chunk BEGIN
            {_LOG} VALUES (NEW.library_id, NEW.id, random());
            {_LOG} SELECT OLD.library_id, OLD.id, random()
            WHERE OLD.library_id <> NEW.library_id OR OLD.id <> NEW.id;
        END""",
    "vectordb_chunk_text_update": f"""
        AFTER UPDATE OF text, embed_text, library_id ON vectordb_chunk
        WHEN coalesce(OLD.embed_text, OLD.text) <> coalesce(NEW.embed_text, NEW.text)
          OR OLD.library_id <> NEW.library_id BEGIN{_FORGET_OTHERS}
        END""",
    "vectordb_chunk_log_delete": f"""
        AFTER DELETE ON vectordb_chunk BEGIN
            DELETE FROM vectordb_embedding WHERE chunk_id = OLD.id;
            {_LOG} SELECT id, OLD.id, random() FROM vectordb_library WHERE id = OLD.library_id;
        END""",
    "vectordb_embedding_check_insert": f"""
        BEFORE INSERT ON vectordb_embedding BEGIN{_LENGTH}
        END""",
    "vectordb_embedding_check_update": f"""
        BEFORE UPDATE ON vectordb_embedding BEGIN{_LENGTH}
        END""",
    "vectordb_embedding_log_insert": f"""
        AFTER INSERT ON vectordb_embedding BEGIN
            {_LOG_EMBEDDED} = NEW.chunk_id AND library.generation = NEW.generation;
        END""",
    "vectordb_embedding_log_update": f"""
        AFTER UPDATE ON vectordb_embedding BEGIN
            {_LOG_EMBEDDED} = NEW.chunk_id AND library.generation IN (NEW.generation, OLD.generation);
            {_LOG_EMBEDDED} = OLD.chunk_id AND library.generation = OLD.generation AND chunk.id <> NEW.chunk_id;
        END""",
    "vectordb_embedding_log_delete": f"""
        AFTER DELETE ON vectordb_embedding BEGIN
            {_LOG_EMBEDDED} = OLD.chunk_id AND library.generation = OLD.generation;
        END""",
    "vectordb_document_log_replaced": f"""
        AFTER INSERT ON vectordb_document BEGIN{_LOG_CHUNKS}
        END""",
    "vectordb_document_log_update": f"""
        AFTER UPDATE OF public_id, metadata, expires_at ON vectordb_document
        WHEN OLD.public_id <> NEW.public_id OR OLD.metadata <> NEW.metadata OR OLD.expires_at IS NOT NEW.expires_at
        BEGIN{_LOG_CHUNKS}
        END""",
    "vectordb_document_delete": """
        AFTER DELETE ON vectordb_document BEGIN
            DELETE FROM vectordb_chunk WHERE document_id = OLD.id;
        END""",
    "vectordb_library_log_switch": f"""
        AFTER UPDATE OF generation, unindexed ON vectordb_library
        WHEN OLD.generation <> NEW.generation OR OLD.unindexed <> NEW.unindexed BEGIN
            {_LOG} VALUES (NEW.id, 0, random());
        END""",
    "vectordb_library_log_insert": f"""
        AFTER INSERT ON vectordb_library BEGIN
            {_LOG} VALUES (0, NEW.id, random());
        END""",
    "vectordb_library_log_update": f"""
        AFTER UPDATE ON vectordb_library
        WHEN ({", ".join(f"OLD.{name}" for name in MAINTAINED_COLUMNS)})
            IS NOT ({", ".join(f"NEW.{name}" for name in MAINTAINED_COLUMNS)}) BEGIN
            {_LOG} VALUES (0, NEW.id, random());
        END""",
    "vectordb_library_delete": f"""
        AFTER DELETE ON vectordb_library BEGIN
            DELETE FROM vectordb_chunk WHERE library_id = OLD.id;
            DELETE FROM vectordb_document WHERE library_id = OLD.id;
            DELETE FROM vectordb_change WHERE library_key = OLD.id;
            DELETE FROM vectordb_reembedding WHERE library_id = OLD.id;
            {_LOG} VALUES (0, OLD.id, random());
        END""",
}

_PRAGMAS = (
    "journal_mode = WAL",
    "synchronous = FULL",
    "foreign_keys = ON",
    # Maintenance checkpoints sooner; this is for when it does not run.
    "wal_autocheckpoint = 16000",
    "journal_size_limit = 67108864",
    "cache_size = -16384",
    # Some builds of SQLite write zeros over each page that becomes free: as much WAL as what is deleted.
    "secure_delete = FAST",
)

_BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
_UNAVAILABLE = {sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY}

# Pages past which the WAL is to be written from its beginning again.
_WAL_PAGES = 4000
# Writers wait for the last step. It is done when the step before it was so quick, since little was written since, or
# when the WAL is long.
_QUICK_SECONDS, _LONG_WAL_PAGES, _STEPS = 0.03, 8000, 5
# In its turn among the writers, when the one before it has ended, it waits for readers at most so long; so often, with
# a pause for the writers that have waited.
_TURN_MILLISECONDS, _TURNS, _PAUSE_SECONDS = 20, 10, 0.05
# What maintenance waits for its turn and for the writer before it; then it asks for the lock beside others.
_SECONDS_TO_QUEUE = 1.0

# Free pages given back in one short transaction, which may write as many, and twice that, to the WAL.
_PAGES_PER_STEP = 2000
# A full disk has room for little WAL.
_PAGES_PER_STEP_WHEN_FULL = 50


class SQLiteDialect(Dialect):
    """SQLite 3.35 or later, in WAL mode."""

    begin_snapshot = "BEGIN DEFERRED"
    data_version = "PRAGMA data_version"
    has_wal = True
    rows_per_statement = 250
    lock_row = ""
    select_triggers = "SELECT name, sql FROM sqlite_master WHERE type = 'trigger'"
    drop_trigger = "DROP TRIGGER {}"
    triggers = {name: f"CREATE TRIGGER {name} {body.strip()}" for name, body in _TRIGGERS.items()}
    # SQLite's time functions have milliseconds.
    later = "max(%s, strftime('%%Y-%%m-%%d %%H:%%M:%%f', updated_at, '+0.001 seconds'))"

    def prepare(self, connection: BaseDatabaseWrapper) -> None:
        with connection.cursor() as cursor:
            cursor.execute("PRAGMA page_count")
            if cursor.fetchone()[0] == 0:
                # These act before there is a table only; set later, auto_vacuum would wait for the write lock.
                cursor.execute("PRAGMA page_size = 8192")
                cursor.execute("PRAGMA auto_vacuum = INCREMENTAL")
            for pragma in _PRAGMAS:
                cursor.execute(f"PRAGMA {pragma}")
            if connection.alias == SNAPSHOT_ALIAS:
                cursor.execute("PRAGMA query_only = ON")

    def create(self, connection: BaseDatabaseWrapper) -> None:
        file = Path(connection.settings_dict["NAME"])
        # One that is there is not opened: closing it would end SQLite's locks on it.
        if not file.exists():
            file.touch()
        reserve.fill(connection)

    def files_state(self, connection: BaseDatabaseWrapper) -> FilesState:
        return files_of(connection).state()

    def found_since_commit(self, driver: Any) -> dict[Any, Any]:
        [(version,)] = driver.execute(self.data_version).fetchall()
        if version != driver.version:
            driver.version, driver.found = version, {}
        found: dict[Any, Any] = driver.found
        return found

    def for_driver(self, sql: str) -> str:
        return with_question_marks(sql)

    def try_lock(self, connection: BaseDatabaseWrapper, key: int) -> bool:
        return locks.try_lock(locks.path_of(connection), key)

    def unlock(self, connection: BaseDatabaseWrapper, key: int) -> None:
        locks.unlock(locks.path_of(connection), key)

    def json_text(self, column: str) -> str:
        return column

    def json_array(self, column: str) -> str:
        return f"json_group_array({column})"

    def join_bytes(self, column: str) -> str:
        # As text in the database's encoding bytes stay as they are, zeros too.
        return f"CAST(group_concat({column}, '') AS BLOB)"

    def to_json(self, text: str) -> str:
        return text

    def to_time(self, value: str) -> str:
        return value

    @contextmanager
    def migration(self, connection: BaseDatabaseWrapper) -> Iterator[None]:
        # Django alters a table by making another in its place, for which foreign keys must be off. They can be turned
        # off only outside of a transaction.
        with (
            reserve.using_reserve(),
            connection.constraint_checks_disabled(),
            transaction.atomic(using=connection.alias),
        ):
            yield

    def create_trigger(self, name: str) -> str:
        return self.triggers[name]

    def failure(self, error: DatabaseError) -> Failure | None:
        primary = sqlite_copy.primary_code(error.__cause__)
        if primary in _BUSY:
            return Failure.BUSY
        # It could not make the file that readers and writers share, which is as large from the beginning.
        has_no_shared_file = getattr(error.__cause__, "sqlite_errorcode", None) == sqlite3.SQLITE_IOERR_SHMSIZE
        if primary == sqlite3.SQLITE_FULL or has_no_shared_file:
            return Failure.FULL
        if primary in sqlite_copy.DAMAGED:
            return Failure.DAMAGED
        return Failure.UNAVAILABLE if primary in _UNAVAILABLE else None

    def check(self, cursor: CursorWrapper) -> list[str]:
        cursor.execute("PRAGMA integrity_check")
        return [fault for (fault,) in cursor.fetchall() if fault != "ok"]

    def make_room(self, connection: BaseDatabaseWrapper) -> bool:
        reserve.empty(connection)
        with contextlib.suppress(DatabaseError), connection.cursor() as cursor:
            cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return True

    def version(self, connection: BaseDatabaseWrapper) -> str:
        return f"SQLite {sqlite3.sqlite_version}"

    def server_id(self, connection: BaseDatabaseWrapper) -> str:
        return ""

    def sizes(self, connection: BaseDatabaseWrapper) -> tuple[int, int | None]:
        file = Path(connection.settings_dict["NAME"])
        return file.stat().st_size, Path(f"{file}-wal").stat().st_size

    copy_name = "database.sqlite3"

    def copy(self, connection: BaseDatabaseWrapper, target: Path, advance: Callable[[int, int], None]) -> None:
        sqlite_copy.copy(connection, target, advance)

    def check_copy(
        self, connection: BaseDatabaseWrapper, file: Path, rows: Mapping[str, int], *, is_restored: bool
    ) -> list[str]:
        """A copy is a database, so it is read as one either way."""
        return sqlite_copy.check_copy(file, rows)

    def copy_folder(self, connection: BaseDatabaseWrapper) -> Path:
        return Path(os.path.realpath(connection.settings_dict["NAME"])).parent

    def has_tables(self, connection: BaseDatabaseWrapper) -> bool:
        return sqlite_copy.has_tables(connection)

    @contextmanager
    def exclusive_use(self, connection: BaseDatabaseWrapper) -> Iterator[bool]:
        """Keep nobody away: the lock of the data folder does."""
        yield not sqlite_copy.is_in_use(connection)

    def replace(self, connection: BaseDatabaseWrapper, copied: Path, then: Sequence[Statement]) -> None:
        sqlite_copy.change(copied, [(self.for_driver(sql), params) for sql, params in then])
        sqlite_copy.replace(connection, copied)

    def finish_replace(self, connection: BaseDatabaseWrapper) -> Path | None:
        return sqlite_copy.finish_replace(connection)

    def upkeep(self, connection: BaseDatabaseWrapper) -> None:
        """Return free pages to the file system, then checkpoint the WAL without blocking anybody. Where the disk is
        full, return all there is, and take the reserve's room again."""
        is_full = reserve.is_full(connection)
        step = _PAGES_PER_STEP_WHEN_FULL if is_full else _PAGES_PER_STEP
        with connection.cursor() as cursor:
            if is_full:
                # Steps can use the WAL's room again.
                cursor.execute("PRAGMA wal_checkpoint(PASSIVE)")
            while True:
                cursor.execute("PRAGMA freelist_count")
                free = cursor.fetchone()[0]
                cursor.execute("PRAGMA page_count")
                # A tenth of the file may stay free: it is used again by the next writes.
                is_little = free < _PAGES_PER_STEP or free * 10 < cursor.fetchone()[0]
                if is_little and not (is_full and free):
                    break
                # A cursor would stop after one page: the statement yields a row without columns for each.
                deadline = time.monotonic() + _SECONDS_TO_QUEUE
                with turn(locks.path_of(connection), deadline), connection.wrap_database_errors:
                    wait_for_writer(connection.connection, deadline)
                    connection.connection.executescript(f"PRAGMA incremental_vacuum({step})")
                cursor.execute("PRAGMA wal_checkpoint(PASSIVE)")
                cursor.execute("PRAGMA freelist_count")
                if cursor.fetchone()[0] >= free:
                    break  # made by another tool, without auto_vacuum; or its free pages are used as fast
            cursor.execute(f"PRAGMA wal_checkpoint({'TRUNCATE' if is_full else 'PASSIVE'})")
        reserve.fill(connection)

    def limit_wal(self, connection: BaseDatabaseWrapper, *, is_quiet: bool) -> None:
        with connection.cursor() as cursor:
            for _ in range(_STEPS):
                began = time.monotonic()
                cursor.execute("PRAGMA wal_checkpoint(PASSIVE)")
                is_busy, pages, _ = cursor.fetchone()
                is_quick = time.monotonic() - began < _QUICK_SECONDS
                if is_busy or is_quick or pages < _WAL_PAGES:
                    break
            is_long = pages >= _LONG_WAL_PAGES or (is_quick and pages >= _WAL_PAGES)
            if is_busy or not (is_quiet or is_long):
                return
            # Both let writers wait, and give up where readers are in the way for longer.
            cursor.execute("PRAGMA busy_timeout")
            before = cursor.fetchone()[0]
            cursor.execute(f"PRAGMA busy_timeout = {_TURN_MILLISECONDS}")
            try:
                for _ in range(_TURNS):
                    # Or it would lose the write lock to writers that wait for it.
                    deadline = time.monotonic() + _SECONDS_TO_QUEUE
                    with turn(locks.path_of(connection), deadline):
                        wait_for_writer(connection.connection, deadline)
                        with metrics.CHECKPOINT_SECONDS.time():
                            cursor.execute(f"PRAGMA wal_checkpoint({'TRUNCATE' if is_quiet else 'RESTART'})")
                            is_busy = cursor.fetchone()[0]
                    if not is_busy:
                        break
                    time.sleep(_PAUSE_SECONDS)
            finally:
                cursor.execute(f"PRAGMA busy_timeout = {before}")
