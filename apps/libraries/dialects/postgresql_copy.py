"""Copies of a PostgreSQL database, by its own programs: pg_dump, pg_restore and psql."""

import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from django.db.backends.base.base import BaseDatabaseWrapper
from psycopg.conninfo import make_conninfo

from apps.libraries.dialects.base import own_tables
from apps.libraries.errors import Conflict

_SECONDS_BETWEEN_LOOKS = 0.1
# What libpq is given otherwise, or is not libpq's.
_NOT_SHOWN = ("password", "options", "cursor_factory", "context", "prepare_threshold", "client_encoding")


def copy(connection: BaseDatabaseWrapper, target: Path, advance: Callable[[int, int], None]) -> None:
    """Dump the state that the connection's open transaction sees to a new file, in PostgreSQL's custom format. Raise
    OSError, Conflict where the program is missing or fails."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_export_snapshot(), pg_database_size(current_database())")
        snapshot, size = cursor.fetchone()
    options = ["--format=custom", "--no-owner", "--no-privileges", f"--snapshot={snapshot}", f"--file={target}"]
    _run(connection, "pg_dump", options, lambda: advance(target.stat().st_size if target.exists() else 0, size))


def check_copy(connection: BaseDatabaseWrapper, file: Path, rows: Mapping[str, int], *, is_restored: bool) -> list[str]:
    """Read a dump's contents; with `is_restored`, restore it into a database that is made for that, and compare the
    numbers of rows. Return what is wrong."""
    try:
        if not is_restored:
            _run(None, "pg_restore", ["--file", os.devnull, str(file)])
            return []
        name = f"vectordb_restore_test_{os.urandom(8).hex()}"
        with connection.cursor() as cursor:
            cursor.execute(f"CREATE DATABASE {name}")
            try:
                _run(
                    connection, "pg_restore", ["--no-owner", "--no-privileges", "--exit-on-error", str(file)], name=name
                )
                found = _psql(connection, "\n".join(f"SELECT count(*) FROM {table};" for table in rows), name=name)
            finally:
                cursor.execute(f"DROP DATABASE {name} WITH (FORCE)")
    except Conflict as error:
        return [str(error)]
    pairs = zip(rows.items(), found.split(), strict=True)
    return [f"{table} has {count} rows, not {wanted}" for (table, wanted), count in pairs if int(count) != wanted]


def has_tables(connection: BaseDatabaseWrapper) -> bool:
    """Whether the database has any of our tables."""
    return bool(own_tables(connection))


def is_in_use(connection: BaseDatabaseWrapper) -> bool:
    """Whether anybody else is connected to the database."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() "
            "AND backend_type = 'client backend'"
        )
        return bool(cursor.fetchone()[0])


def replace(connection: BaseDatabaseWrapper, copied: Path) -> None:
    """Put a dump in the place of what the database has of ours, in one transaction. Raise Conflict."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT oid::regprocedure FROM pg_proc WHERE pronamespace = current_schema()::regnamespace "
            "AND proname LIKE 'vectordb\\_%%'"
        )
        drops = [f"DROP FUNCTION IF EXISTS {name} CASCADE;" for (name,) in cursor.fetchall()]
    quote = connection.ops.quote_name
    drops = [*(f"DROP TABLE IF EXISTS {quote(name)} CASCADE;" for name in own_tables(connection)), *drops]
    connection.close()
    with tempfile.NamedTemporaryFile("w", suffix=".sql", dir=copied.parent) as script:
        script.write("\n".join(["SET client_min_messages = warning;", *drops]))
        script.flush()
        sql = copied.with_name(f"{copied.name}.sql")
        try:
            _run(None, "pg_restore", ["--no-owner", "--no-privileges", "--file", str(sql), str(copied)])
            _psql(connection, "", files=[script.name, str(sql)])
        finally:
            sql.unlink(missing_ok=True)


def _psql(connection: BaseDatabaseWrapper, sql: str, *, files: Sequence[str] = (), name: str | None = None) -> str:
    """Run statements in one transaction; return what they select, a row a line."""
    options = ["--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--single-transaction", "--set=ON_ERROR_STOP=1"]
    options += [f"--file={file}" for file in files] if files else ["--file=-"]
    return _run(connection, "psql", options, name=name, text=sql)


def _run(
    connection: BaseDatabaseWrapper | None,
    program: str,
    options: Sequence[str],
    advance: Callable[[], None] = lambda: None,
    *,
    name: str | None = None,
    text: str = "",
) -> str:
    """Run a program of PostgreSQL's against a connection's database, or the one of that `name`; return what it prints.
    The password is in its environment, where no list of processes shows it."""
    environ: dict[str, Any] = dict(os.environ)
    command = [program, *options]
    if connection is not None:
        params = connection.get_connection_params()
        if params.get("password"):
            environ["PGPASSWORD"] = params["password"]
        known = {key: value for key, value in params.items() if key not in _NOT_SHOWN}
        command.insert(1, f"--dbname={make_conninfo(**known | ({'dbname': name} if name else {}))}")
    try:
        with tempfile.TemporaryFile() as printed, tempfile.TemporaryFile() as told:
            process = subprocess.Popen(command, env=environ, stdin=subprocess.PIPE, stdout=printed, stderr=told)
            try:
                assert process.stdin is not None
                process.stdin.write(text.encode())
                process.stdin.close()
                while process.poll() is None:
                    advance()
                    time.sleep(_SECONDS_BETWEEN_LOOKS)
            finally:
                process.kill()
                process.wait()
            printed.seek(0)
            told.seek(0)
            if process.returncode:
                why = told.read().decode(errors="replace").strip().splitlines() or [f"status {process.returncode}"]
                raise Conflict(f"{program} failed: {' '.join(why[:2])}")
            return printed.read().decode()
    except FileNotFoundError:
        raise Conflict(
            f"The program {program} is not there. Install PostgreSQL's client programs, of the database's version or a "
            "later one."
        ) from None
