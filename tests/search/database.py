"""What happens to a database beside this program."""

import contextlib
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from django.db import connection

from apps.libraries.models import Chunk


def execute(sql: str, *params: Any) -> None:
    """What a person with a database shell does."""
    with connection.cursor() as cursor:
        cursor.execute(sql, params)


def grow_log(rounds: int) -> None:
    """Add an entry for each chunk to the log, `rounds` times."""
    for _ in range(rounds):
        Chunk.objects.filter(library__public_id="a").update(position=1)


def copy_database(source: str | Path, target: str | Path) -> None:
    """Copy a SQLite database as its own backup does."""
    with closing(sqlite3.connect(source)) as from_, closing(sqlite3.connect(target)) as to:
        from_.backup(to)


@contextlib.contextmanager
def refused(what: str) -> Iterator[None]:
    """Let SQLite refuse a kind of write, such as "UPDATE ON vectordb_chunk", while the block runs."""
    execute(f"CREATE TRIGGER refuse BEFORE {what} BEGIN SELECT RAISE(ABORT, 'not today'); END")
    try:
        yield
    finally:
        execute("DROP TRIGGER refuse")
