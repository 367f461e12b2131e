"""What happens to a database beside this program."""

import sqlite3
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
