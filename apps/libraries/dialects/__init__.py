"""What SQLite and PostgreSQL do differently, behind one interface. Only these modules hold SQL of one database.

Triggers keep the change log and delete what belongs to a deleted row. They are dropped before migrations and installed
after them: SQLite reads all triggers when a table is renamed, and Django alters a table by making another in its place.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.utils import DatabaseError

from apps.libraries.dialects import reserve
from apps.libraries.dialects.base import SNAPSHOT_ALIAS, Dialect, Failure, FilesState, Statement, own_tables
from apps.libraries.dialects.damage import (
    REMEDY,
    DatabaseUnusable,
    forget_damage,
    is_damaged,
    note_damage,
    refuse_writes,
)
from apps.libraries.dialects.postgresql import PostgreSQLDialect
from apps.libraries.dialects.sqlite import SQLiteDialect

__all__ = [
    "SNAPSHOT_ALIAS",
    "Dialect",
    "Failure",
    "FilesState",
    "Statement",
    "check_database",
    "create_database",
    "database_files",
    "database_name",
    "dialect_of",
    "drop_triggers",
    "failure_of",
    "frees_room",
    "install_triggers",
    "is_damaged",
    "is_full",
    "make_data_folder",
    "note_if_damaged",
    "own_tables",
    "prepare_connection",
    "sentence_of",
]

_P = ParamSpec("_P")
_R = TypeVar("_R")

_DIALECTS: dict[str, Dialect] = {"sqlite": SQLiteDialect(), "postgresql": PostgreSQLDialect()}


def dialect_of(connection: BaseDatabaseWrapper) -> Dialect:
    """Return the dialect of a Django connection."""
    return _DIALECTS[connection.vendor]


def failure_of(error: DatabaseError) -> Failure | None:
    """Return the kind of a failure that is no bug; None for any other error."""
    if isinstance(error, DatabaseUnusable):
        return error.failure
    for dialect in _DIALECTS.values():
        failure = dialect.failure(error)
        if failure is not None:
            return failure
    return None


def database_name() -> str:
    """Return the file of the database, or its name on PostgreSQL."""
    return str(connections["default"].settings_dict["NAME"])


def sentence_of(error: DatabaseError) -> str:
    """Return what a command says of a database that it cannot use."""
    failure, remedy = failure_of(error), ""
    if failure is Failure.DAMAGED:
        remedy = f" {REMEDY}"
    elif failure is Failure.FULL and not isinstance(error, DatabaseUnusable):
        # The server's own refusal says more.
        remedy = " Make room on its disk, and try again."
    return f"The database cannot be used: {database_name()}: {str(error).rstrip('.')}.{remedy}"


def note_if_damaged(error: BaseException) -> None:
    """Stop all writes where an error says that the database is damaged."""
    if isinstance(error, DatabaseError) and failure_of(error) is Failure.DAMAGED and not is_damaged():
        note_damage(f"{database_name()}: {error}")


def frees_room(delete: Callable[_P, _R]) -> Callable[_P, _R]:
    """A decorator of deletes: on a full disk, try again in the room of the reserve."""

    @wraps(delete)
    def run(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        with reserve.using_reserve():
            try:
                return delete(*args, **kwargs)
            except DatabaseError as error:
                connection = connections["default"]
                if failure_of(error) is not Failure.FULL or not dialect_of(connection).make_room(connection):
                    raise
            return delete(*args, **kwargs)

    return run


def is_full() -> bool:
    """Return True while the disk of the database takes nothing but deletes."""
    return reserve.is_full(connections["default"])


def check_database() -> list[str]:
    """Read all that is stored; return what is damaged. Then all writes stop, else they go on."""
    connection = connections[SNAPSHOT_ALIAS]
    try:
        with connection.cursor() as cursor:
            faults = dialect_of(connection).check(cursor)
    except DatabaseError as error:
        if failure_of(error) is not Failure.DAMAGED:
            raise
        faults = [str(error)]
    if faults:
        note_damage(f"{database_name()}: {faults[0]}")
    else:
        forget_damage()
    return faults


def make_data_folder() -> None:
    """Make the data folder, readable by its owner only, where it is not there. Raises ImproperlyConfigured."""
    with _explaining_data_dir():
        settings.DATA_DIR.mkdir(mode=0o700, parents=True, exist_ok=True)


def create_database(connection: BaseDatabaseWrapper) -> None:
    """Make the data folder and the database in it, where they are not there. Nothing else makes them: a folder that was
    moved away from under a server is not made again. Raises ImproperlyConfigured."""
    make_data_folder()
    with _explaining_data_dir():
        dialect_of(connection).create(connection)


@contextlib.contextmanager
def _explaining_data_dir() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ImproperlyConfigured(
            f"VECTORDB_DATA_DIR={str(settings.DATA_DIR)!r} cannot be used: {error.strerror or error}. Name a folder "
            "that can be created and written."
        ) from None


def database_files() -> FilesState:
    """Return what became of the database files that this process has open, if any."""
    connection = connections["default"]
    return dialect_of(connection).files_state(connection)


def prepare_connection(*, connection: BaseDatabaseWrapper, **kwargs: Any) -> None:
    """Receiver of `connection_created`: set what a new connection needs."""
    if refuse_writes not in connection.execute_wrappers:
        connection.execute_wrappers.append(refuse_writes)
    try:
        dialect_of(connection).prepare(connection)
    except DatabaseError:
        # It would be used as it is.
        connection.close()
        raise


def drop_triggers(*, using: str, plan: Sequence[Any], **kwargs: Any) -> None:
    """Receiver of `pre_migrate`: drop the triggers where a migration is to be applied."""
    if plan:
        dialect_of(connections[using]).drop_triggers(connections[using])


def install_triggers(*, using: str, **kwargs: Any) -> None:
    """Receiver of `post_migrate`: make sure that the triggers are there."""
    dialect_of(connections[using]).install_triggers(connections[using])
