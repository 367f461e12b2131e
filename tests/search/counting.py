"""What an act costs, counted: statements and rows of a snapshot, files and folders that are opened."""

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from django.db.backends.base.base import BaseDatabaseWrapper

from apps.search.snapshots import Snapshot


class Counting(Snapshot):
    """A snapshot that notes its queries, and counts the rows that they yield."""

    def __init__(self, connection: BaseDatabaseWrapper) -> None:
        super().__init__(connection)
        self.asked: list[str] = []
        self.count = 0

    def rows(self, sql: str, params: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        found = super().rows(sql, params)
        self.asked.append(sql)
        self.count += len(found)
        return found


_EVENTS = {"open", "os.listdir", "os.scandir"}
_opened: list[str] | None = None


def _hear(event: str, args: tuple[Any, ...]) -> None:
    if _opened is not None and event in _EVENTS:
        _opened.append(str(args[0]))


# A hook cannot be removed.
sys.addaudithook(_hear)


def opened_below(folder: Path, act: Callable[[], object]) -> list[str]:
    """The paths below `folder` of the files that `act` opens, and of the folders that it lists, or tries to."""
    global _opened
    _opened = []
    try:
        act()
        return [path for path in _opened if path.startswith(f"{folder}{os.sep}")]
    finally:
        _opened = None
