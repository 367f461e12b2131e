"""The interface of a dialect."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from enum import Enum
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar, Final, TypeAlias

from django.apps import apps
from django.db import transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.utils import CursorWrapper
from django.db.utils import DatabaseError

# The alias of the read-only connection on which a query holds one state of the database.
SNAPSHOT_ALIAS: Final = "snapshot"

# The columns of a library by which maintenance decides what is due.
MAINTAINED_COLUMNS: Final = (
    "public_id",
    "uid",
    "dimension",
    "metric",
    "index_type",
    "index_params",
    "generation",
    "unindexed",
    "manifest",
    "rebuild",
)

_PREFIX = "vectordb_"

# Beginnings of the names of tables of this program's, in this version and others.
_OWN_PREFIXES = (_PREFIX, "libraries_")
# Tables of the versions before those that begin with the prefix.
UNPREFIXED_TABLES: Final = frozenset({"library", "document", "chunk", "embedding", "reembedding", "change"})


def own_tables(connection: BaseDatabaseWrapper) -> list[str]:
    """Return the names of the tables that are this program's and Django's, those of other versions included; a database
    may have others, too."""
    ours = {model._meta.db_table for model in apps.get_models(include_auto_created=True)} | {"django_migrations"}
    names = connection.introspection.table_names()
    if _is_unprefixed(connection, names):
        ours |= UNPREFIXED_TABLES
    return sorted(name for name in names if name in ours or name.startswith(_OWN_PREFIXES))


def _is_unprefixed(connection: BaseDatabaseWrapper, names: Sequence[str]) -> bool:
    """Whether a table of so common a name as `library` is this program's: its migrations were applied, and the one that
    gave its tables the prefix was not."""
    if not {"library", "django_migrations"} <= set(names) or f"{_PREFIX}library" in names:
        return False
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM django_migrations WHERE app = 'libraries' AND name = '0001_initial'")
        return bool(cursor.fetchone()[0])


# SQL of every database, with %s for parameters, and these as the database takes them.
Statement: TypeAlias = tuple[str, Sequence[Any]]


class Failure(Enum):
    """A failure of the database that is no bug. All but DAMAGED may pass."""

    BUSY = "busy"
    FULL = "disk_full"
    UNAVAILABLE = "database_unavailable"
    DAMAGED = "database_damaged"


class FilesState(Enum):
    """What became of the database files that a process has open."""

    IN_PLACE = "in place"
    # They may come back, and are used again then.
    MISSING = "missing"
    # The process must end: the next one opens what is there.
    REPLACED = "replaced"


class Dialect(ABC):
    """The SQL and settings of one database."""

    # Begins a read-only transaction that sees one state of the database until COMMIT.
    begin_snapshot: ClassVar[str]
    # Yields another value than before, on the same connection, once another one has committed anything.
    data_version: ClassVar[str]
    # Ends a SELECT of a library's row so that the library's other writers wait.
    lock_row: ClassVar[str]
    # The time %s, or one just after the row's `updated_at` where that is later or the same.
    later: ClassVar[str]

    @abstractmethod
    def prepare(self, connection: BaseDatabaseWrapper) -> None:
        """Set what a new connection needs. Must take no lock that a writer may hold."""

    @abstractmethod
    def create(self, connection: BaseDatabaseWrapper) -> None:
        """Make the database where it is a file that is not there. Raises OSError."""

    @abstractmethod
    def files_state(self, connection: BaseDatabaseWrapper) -> FilesState:
        """Look at the files that this process has open."""

    def found_since_commit(self, driver: Any) -> dict[Any, Any]:
        """Return where to keep what statements find in a snapshot on the driver's connection: what the snapshot before
        has kept, where nothing was committed since, unless to ask for that takes as long as a statement."""
        return {}

    @abstractmethod
    def json_text(self, column: str) -> str:
        """Return an expression for a JSON column as text."""

    @abstractmethod
    def json_array(self, column: str) -> str:
        """Return an aggregate of a column of numbers, texts or times: an array of JSON as text, in the rows' order."""

    @abstractmethod
    def join_bytes(self, column: str) -> str:
        """Return an aggregate of a column of bytes: those of all rows, one behind the other, in the rows' order."""

    @abstractmethod
    def to_json(self, text: str) -> str:
        """Return an expression for JSON, which is stored, of the expression `text`."""

    @abstractmethod
    def to_time(self, value: str) -> str:
        """Return an expression for a time, which is stored, of the expression `value`, a parameter in VALUES."""

    @abstractmethod
    def for_driver(self, sql: str) -> str:
        """Return `sql`, with %s for parameters, in the parameter style of the driver."""

    @abstractmethod
    def try_lock(self, connection: BaseDatabaseWrapper, key: int) -> bool:
        """Try, without waiting, to lock a number below 2^59 among all that share the database, and return whether that
        succeeded: the key of a library for maintenance, or that of a request. The lock ends with `unlock`, the
        connection or the process. It saves work; correctness must not depend on it."""

    @abstractmethod
    def unlock(self, connection: BaseDatabaseWrapper, key: int) -> None:
        """Release a lock that `try_lock` got."""

    # How many rows one statement writes at most.
    rows_per_statement: ClassVar[int]

    def insert(
        self, cursor: CursorWrapper, statement: str, rows: Sequence[Sequence[Any]], end: str = ""
    ) -> list[tuple[Any, ...]]:
        """Run `statement` ("INSERT INTO t (...)") for many rows, each statement followed by `end` ("ON CONFLICT ...").
        Return what they are RETURNING."""
        returned = []
        for values, params in self.values(rows):
            cursor.execute(f"{statement} {values} {end}", params)
            if cursor.description is not None:
                returned += cursor.fetchall()
        return returned

    def values(self, rows: Sequence[Sequence[Any]]) -> Iterator[tuple[str, list[Any]]]:
        """The rows as lists of VALUES, each for one statement, and the parameters of each.

        Many rows a statement: on SQLite, each statement that fires triggers costs more than its row does.
        """
        for start in range(0, len(rows), self.rows_per_statement):
            some = rows[start : start + self.rows_per_statement]
            row = f"({', '.join(['%s'] * len(some[0]))})"
            yield f"VALUES {', '.join([row] * len(some))}", list(chain.from_iterable(some))

    @abstractmethod
    def migration(self, connection: BaseDatabaseWrapper) -> AbstractContextManager[None]:
        """Return a transaction in which the schema can be altered, by one process at a time."""

    # Names and definitions of the triggers, in the order in which they are created.
    triggers: ClassVar[dict[str, str]]
    # Selects names and definitions of the triggers there are, in the order in which a write locks their tables; without
    # a definition where one does not fire.
    select_triggers: ClassVar[str]
    # Drops the trigger {}.
    drop_trigger: ClassVar[str]

    @abstractmethod
    def create_trigger(self, name: str) -> str:
        """Return the statements that create one of `triggers`."""

    def install_triggers(self, connection: BaseDatabaseWrapper) -> None:
        """Make the triggers those of this version. Locks nothing where they are."""
        with transaction.atomic(using=connection.alias), connection.cursor() as cursor:
            if self._present(cursor) != self.triggers:
                self.drop_triggers(connection)
                for name in self.triggers:
                    cursor.execute(self.create_trigger(name))

    def drop_triggers(self, connection: BaseDatabaseWrapper) -> None:
        """Drop the triggers of this version and of earlier ones."""
        with connection.cursor() as cursor:
            for name in self._present(cursor):
                cursor.execute(self.drop_trigger.format(name))

    def missing_triggers(self, connection: BaseDatabaseWrapper) -> list[str]:
        """Return the names of triggers that should fire and do not."""
        with connection.cursor() as cursor:
            present = self._present(cursor)
        return sorted(name for name in self.triggers if present.get(name) is None)

    def _present(self, cursor: CursorWrapper) -> dict[str, str | None]:
        """Read the triggers of this version and of earlier ones, whose names had no prefix at first."""
        cursor.execute(self.select_triggers)
        return {
            name: definition
            for name, definition in cursor.fetchall()
            if name.startswith(_PREFIX) or _PREFIX + name in self.triggers
        }

    @abstractmethod
    def failure(self, error: DatabaseError) -> Failure | None:
        """Return the kind of a failure; None for another error, or one of another database."""

    @abstractmethod
    def check(self, cursor: CursorWrapper) -> list[str]:
        """Read all that is stored, and return what is damaged."""

    @abstractmethod
    def make_room(self, connection: BaseDatabaseWrapper) -> bool:
        """Make what room there can be for deletes on a full disk; return whether to try again."""

    @abstractmethod
    def version(self, connection: BaseDatabaseWrapper) -> str:
        """Return the name and the version of the database."""

    @abstractmethod
    def server_id(self, connection: BaseDatabaseWrapper) -> str:
        """Return what tells this database from those of other servers, and stays when a backup is restored into it;
        empty where it is a file in the data folder, or the server does not say."""

    @abstractmethod
    def sizes(self, connection: BaseDatabaseWrapper) -> tuple[int, int | None]:
        """Return the bytes of the database, and of its write-ahead log where that is a file of ours. Raises OSError."""

    # The name of the file that `copy` makes, in a backup.
    copy_name: ClassVar[str]

    @abstractmethod
    def copy(self, connection: BaseDatabaseWrapper, target: Path, advance: Callable[[int, int], None]) -> None:
        """Copy the state that the connection's open snapshot sees to a new file, while others write. `advance` is
        called with the bytes done and those there are, and may raise. Raise OSError, DatabaseError, LibraryError."""

    @abstractmethod
    def check_copy(
        self, connection: BaseDatabaseWrapper, file: Path, rows: Mapping[str, int], *, is_restored: bool
    ) -> list[str]:
        """Read a copy as a whole, and return what is wrong with it. With `is_restored`, it is a database that
        was restored, whose tables must have the numbers of `rows`."""

    @abstractmethod
    def copy_folder(self, connection: BaseDatabaseWrapper) -> Path:
        """Return the folder where a copy must lie for `replace`."""

    @abstractmethod
    def has_tables(self, connection: BaseDatabaseWrapper) -> bool:
        """Whether there is anything to lose in the database; also where that cannot be read."""

    @abstractmethod
    def exclusive_use(self, connection: BaseDatabaseWrapper) -> AbstractContextManager[bool]:
        """Keep other servers and restores away from the database while the block runs; gives False where another
        process uses it. This one must have no other connection. Raise DatabaseError."""

    @abstractmethod
    def replace(self, connection: BaseDatabaseWrapper, copied: Path, then: Sequence[Statement]) -> None:
        """Put a copy in the place of the database, changed by the statements `then`: all or nothing, also where the
        process dies. Called within `exclusive_use`. Raise OSError, LibraryError."""

    def finish_replace(self, connection: BaseDatabaseWrapper) -> Path | None:
        """Called when the old database was replaced, also by a process that died since: return where it is kept, if it
        is. Raise OSError."""
        return None

    @abstractmethod
    def upkeep(self, connection: BaseDatabaseWrapper) -> None:
        """Do periodic maintenance of the database, in steps that delay no writer for long."""

    # Whether `limit_wal` has anything to do.
    has_wal: ClassVar[bool] = False

    def limit_wal(self, connection: BaseDatabaseWrapper, *, is_quiet: bool) -> None:
        """Move what the write-ahead log holds into the database, so that its room is used again, without stopping
        writers for long; where `is_quiet`, nobody writing, give its room back."""
        raise NotImplementedError
