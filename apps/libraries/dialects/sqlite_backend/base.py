"""The backend: it creates no database, and uses one only while its files are in place."""

import sqlite3
import time
from functools import lru_cache
from typing import Any, cast
from urllib.parse import quote

from django.db import OperationalError
from django.db.backends.sqlite3 import base

from apps.libraries.dialects.sqlite_backend.files import Connection, DatabaseFiles, files_of
from apps.libraries.dialects.sqlite_backend.locks import path_of
from apps.libraries.dialects.sqlite_backend.turns import turn, wait_for_writer
from apps.libraries.dialects.sqlite_copy import primary_code

# A query of a fraction of a millisecond does not ask for the files again when another one just has.
_SECONDS_BETWEEN_CHECKS = 0.01
_WRITES = ("INSERT", "UPDATE", "DELETE", "REPLACE")

# They are stored as they are. Before Python 3.12, sqlite3 makes and drops an exception for each parameter of a type
# that has no adapter: a tenth of the instructions of an INSERT of chunks.
sqlite3.register_adapter(type(None), {}.get)  # type: ignore[arg-type]
sqlite3.register_adapter(bytes, bytes)


@lru_cache(maxsize=256)
def with_question_marks(query: str) -> str:
    """Return a statement with the driver's placeholders in place of Django's."""
    found: str = base.FORMAT_QMARK_REGEX.sub("?", query).replace("%%", "%")
    return found


class Cursor(base.SQLiteCursorWrapper):
    """Django's cursor, which converts a statement once: those that write many rows have thousands of parameters. One
    that writes by itself, in no transaction, takes its turn like these."""

    def convert_query(self, query: str, *, param_names: list[str] | None = None) -> str:
        if param_names is None:
            return with_question_marks(query)
        converted: str = super().convert_query(query, param_names=param_names)
        return converted

    def execute(self, query: str, params: Any = None) -> Any:
        connection = cast(Connection, self.connection)
        if connection.in_transaction or not query.startswith(_WRITES):
            return super().execute(query, params)
        deadline = time.monotonic() + connection.timeout
        with turn(connection.locks_path, deadline):
            wait_for_writer(connection, deadline)
            return super().execute(query, params)


class DatabaseWrapper(base.DatabaseWrapper):
    """A connection that looks at its files before it is used, before each transaction that may write, and after it."""

    # None while there is no connection.
    _files: DatabaseFiles | None = None

    def get_connection_params(self) -> dict[str, Any]:
        # A URI has a mode that creates no file.
        database = f"file://{quote(files_of(self).database)}?mode=rw"
        return super().get_connection_params() | {"database": database, "factory": Connection}

    def connect(self) -> None:
        files = files_of(self)
        with files.lock:
            files.before_open()
            try:
                super().connect()
                self.connection.locks_path = path_of(self)
                self.connection.timeout = self.settings_dict["OPTIONS"]["timeout"]
                # Whoever reads has all files open.
                self.connection.execute("SELECT 1 FROM sqlite_master").fetchone()
                files.note_open(self.connection)
            except BaseException:
                self.close()
                raise
            self._files = files

    def create_cursor(self, name: str | None = None) -> Cursor:
        cursor: Cursor = self.connection.cursor(factory=Cursor)
        return cursor

    def _close(self) -> None:
        files, self._files = self._files, None
        if files is None:
            super()._close()  # type: ignore[misc]
        else:
            with files.lock:
                files.note_close(self.connection)
                super()._close()  # type: ignore[misc]

    def close_if_health_check_failed(self) -> None:
        """Raise DatabaseUnusable where the files are not in place. Django calls this before it uses a connection."""
        # Within a transaction it would come between its end and the return to autocommit.
        if self._files is not None and self.autocommit:
            self._files.check(_SECONDS_BETWEEN_CHECKS)

    def _start_transaction_under_autocommit(self) -> None:
        if self._files is not None:
            self._files.check()
        if self.settings_dict["OPTIONS"]["transaction_mode"] == "IMMEDIATE":
            deadline = time.monotonic() + self.connection.timeout
            with turn(self.connection.locks_path, deadline):
                self._begin_until(deadline)
        else:
            super()._start_transaction_under_autocommit()  # type: ignore[misc]

    def _begin_until(self, deadline: float) -> None:
        """Begin a transaction as soon as no other writes. Raises OperationalError at the `deadline`."""
        # SQLite would wait longer and longer between its own tries.
        self.connection.execute("PRAGMA busy_timeout = 0")
        try:
            while True:
                wait_for_writer(self.connection, deadline)
                try:
                    return super()._start_transaction_under_autocommit()  # type: ignore[misc,no-any-return]
                except OperationalError as error:
                    # A program that does not queue was quicker.
                    if primary_code(error.__cause__) != sqlite3.SQLITE_BUSY or time.monotonic() >= deadline:
                        raise
        finally:
            self.connection.execute(f"PRAGMA busy_timeout = {1000 * self.connection.timeout}")

    def _commit(self) -> None:
        super()._commit()  # type: ignore[misc]
        # What was written to files that went away meanwhile must not be acknowledged.
        if self._files is not None:
            self._files.check()
