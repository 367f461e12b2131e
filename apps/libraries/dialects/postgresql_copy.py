"""Copies of a PostgreSQL database, by its own programs: pg_dump, pg_restore and psql."""

import os
import secrets
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from django.db.backends.base.base import BaseDatabaseWrapper

from apps.libraries.dialects.base import UNPREFIXED_TABLES, Statement, own_tables
from apps.libraries.dialects.postgresql_use import SCRATCH_LOCK, WAIT, hand_over
from apps.libraries.errors import Conflict

_SECONDS_BETWEEN_LOOKS = 0.1
# How a file in the custom format begins.
_MAGIC = b"PGDMP"
# What libpq is given otherwise, or is not libpq's.
_NOT_SHOWN = ("password", "options", "cursor_factory", "context", "prepare_threshold", "client_encoding")
# Those of triggers had no prefix as long as their tables had none.
_OWN_FUNCTIONS = """
    SELECT oid::regprocedure FROM pg_proc
    WHERE pronamespace = current_schema()::regnamespace AND (proname LIKE 'vectordb\\_%%' OR EXISTS (
        SELECT FROM pg_trigger JOIN pg_class ON tgrelid = pg_class.oid
        WHERE tgfoid = pg_proc.oid AND tgname = proname AND relname = ANY(%s)
            AND relnamespace = current_schema()::regnamespace))"""


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
    with file.open("rb") as dump:
        if dump.read(len(_MAGIC)) != _MAGIC:
            return ["the dump is not in the custom format of pg_dump, in which backups are"]
    try:
        if not is_restored:
            _run(None, "pg_restore", ["--format=custom", "--file", os.devnull, str(file)])
            return []
        with _scratch_database(connection) as name:
            _run(connection, "pg_restore", ["--no-owner", "--no-privileges", "--exit-on-error", str(file)], name=name)
            found = _psql(connection, "\n".join(f"SELECT count(*) FROM {table};" for table in rows), name=name)
    except Conflict as error:
        return [str(error)]
    pairs = zip(rows.items(), found.split(), strict=True)
    return [f"{table} has {count} rows, not {wanted}" for (table, wanted), count in pairs if int(count) != wanted]


@contextmanager
def _scratch_database(connection: BaseDatabaseWrapper) -> Iterator[str]:
    """Make a database for the block. Databases that processes have left that died in theirs are dropped."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT oid FROM pg_database WHERE datname = current_database()")
        prefix = f"vectordb_restore_test_{cursor.fetchone()[0]}_"
        cursor.execute(f"SELECT pg_try_advisory_lock{SCRATCH_LOCK}")
        (has_none_else,) = cursor.fetchone()
        if has_none_else:
            cursor.execute("SELECT datname FROM pg_database WHERE starts_with(datname, %s)", [prefix])
            for (left,) in cursor.fetchall():
                cursor.execute(f"DROP DATABASE IF EXISTS {left} WITH (FORCE)")
        cursor.execute(f"SELECT pg_advisory_lock_shared{SCRATCH_LOCK}")
        if has_none_else:
            cursor.execute(f"SELECT pg_advisory_unlock{SCRATCH_LOCK}")
        name = f"{prefix}{secrets.token_hex(8)}"
        try:
            cursor.execute(f"CREATE DATABASE {name}")
            yield name
        finally:
            cursor.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
            cursor.execute(f"SELECT pg_advisory_unlock_shared{SCRATCH_LOCK}")


def has_tables(connection: BaseDatabaseWrapper) -> bool:
    """Whether the database has any of our tables."""
    return bool(own_tables(connection))


def replace(connection: BaseDatabaseWrapper, copied: Path, then: Sequence[Statement]) -> None:
    """Put a dump in the place of what the database has of ours, and run statements, in one transaction. Raise Conflict.

    pg_restore makes a script of it, which psql runs: no program of theirs does both in one transaction. What is in the
    script may be by anybody, so psql is restricted to SQL from its first line on, until the key is told.

    Should this process die, psql goes on by itself, so it is psql that has the lock of the database by then."""
    from psycopg import ClientCursor  # SQLite's users need not wait for it at each start

    _check_restricts()
    tables = own_tables(connection)
    with connection.cursor() as cursor:
        cursor.execute(_OWN_FUNCTIONS, [sorted(UNPREFIXED_TABLES.intersection(tables))])
        drops = [f"DROP FUNCTION IF EXISTS {name} CASCADE;" for (name,) in cursor.fetchall()]
        bind = ClientCursor(connection.connection).mogrify
        statements = [f"{bind(sql, params)};" for sql, params in then]
    quote = connection.ops.quote_name
    drops = [*(f"DROP TABLE IF EXISTS {quote(name)} CASCADE;" for name in tables), *drops]
    before, script, after = (copied.with_name(f"{copied.name}.{name}.sql") for name in ("before", "dump", "after"))
    before.write_text("\n".join([WAIT, "SET client_min_messages = warning;", *drops]))
    # A dump sets its own.
    after.write_text("\n".join(["RESET search_path;", *statements]))
    options = ["--format=custom", "--no-owner", "--no-privileges", f"--restrict-key={secrets.token_hex(16)}"]
    try:
        _run(None, "pg_restore", [*options, f"--file={script}", str(copied)])
        _psql(connection, "", files=[before, script, after], advance=lambda: hand_over(connection))
    finally:
        for file in (before, script, after):
            file.unlink(missing_ok=True)


def _check_restricts() -> None:
    """Raise Conflict for programs that let a script run commands of the system."""
    for program, option, feature in (
        ("pg_restore", "--help", "--restrict-key"),
        ("psql", "--help=commands", "\\restrict"),
    ):
        if feature not in _run(None, program, [option]):
            raise Conflict(
                f"{program} is too old to keep a backup from running commands on this machine. Install PostgreSQL's "
                "client programs of version 14.19, 15.14, 16.10, 17.6 or later."
            )


def _psql(
    connection: BaseDatabaseWrapper,
    sql: str,
    *,
    files: Sequence[Path] = (),
    name: str | None = None,
    advance: Callable[[], None] = lambda: None,
) -> str:
    """Run statements in one transaction; return what they select, a row a line."""
    options = ["--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--single-transaction", "--set=ON_ERROR_STOP=1"]
    options += [f"--file={file}" for file in files] if files else ["--file=-"]
    return _run(connection, "psql", options, advance, name=name, text=sql)


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
        from psycopg.conninfo import make_conninfo

        known = {key: value for key, value in params.items() if key not in _NOT_SHOWN}
        command.insert(1, f"--dbname={make_conninfo(**known | ({'dbname': name} if name else {}))}")
    try:
        # Files, not pipes: a program that ends before it has read all, or that says much, ends with its reason.
        with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as printed, tempfile.TemporaryFile() as told:
            given.write(text.encode())
            given.seek(0)
            process = subprocess.Popen(command, env=environ, stdin=given, stdout=printed, stderr=told)
            try:
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
