"""A database that the disk has damaged is written to no more, by any process, until it was checked and is sound.

The file `database_damaged` in the data folder says so; whoever meets the damage makes it.
"""

import contextlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.utils import OperationalError

from apps.installation import PROGRAM
from apps.libraries.dialects import reserve
from apps.libraries.dialects.base import Failure

REMEDY = f"Restore a backup; `{PROGRAM} check_database` says what is damaged."
DAMAGED = f"The database {{name}} is damaged, and nothing is written to it. {REMEDY}"
FULL = (
    "The disk of the database {name} is full; nothing was written. Make room there, or delete chunks, a few hundred at "
    "a time, documents or libraries, then try again."
)
_READS = ("SELECT", "PRAGMA", "EXPLAIN")


class DatabaseUnusable(OperationalError):
    """The server itself refuses to use the database, for `failure`; the message is for clients."""

    def __init__(self, failure: Failure, detail: str) -> None:
        super().__init__(detail)
        self.failure = failure


@cache
def _note() -> Path:
    return Path(settings.DATA_DIR, "database_damaged")


def is_damaged() -> bool:
    """Return True where damage was met."""
    return _note().exists()


def note_damage(detail: str) -> None:
    """Let nobody write any more. A disk that does not even take this file takes no write either."""
    with contextlib.suppress(OSError):
        _note().write_text(f"{detail}\n{REMEDY}\n", encoding="utf-8")


def forget_damage() -> None:
    """Let writes be made again: the database is sound."""
    _note().unlink(missing_ok=True)


def refuse_writes(execute: Callable[..., Any], sql: str, params: Any, many: bool, context: Any) -> Any:
    """An execute wrapper of Django's: raise DatabaseUnusable for what may write into a damaged database, and for what
    may not take the room of its reserve."""
    connection = context["connection"]
    is_sqlite = connection.vendor == "sqlite"
    # On SQLite it is asked once a transaction: the statement that begins one comes by here too.
    is_asked = not is_sqlite or not connection.in_atomic_block
    if is_asked and not str(sql).lstrip().startswith(_READS):
        if is_damaged():
            raise _refusal(Failure.DAMAGED, DAMAGED, connection)
        if is_sqlite and not reserve.may_use() and reserve.is_full(connection):
            raise _refusal(Failure.FULL, FULL, connection)
    return execute(sql, params, many, context)


def _refusal(failure: Failure, detail: str, connection: BaseDatabaseWrapper) -> DatabaseUnusable:
    return DatabaseUnusable(failure, detail.format(name=Path(connection.settings_dict["NAME"]).name))
