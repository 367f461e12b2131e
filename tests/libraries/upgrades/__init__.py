"""Databases of earlier versions, as their own code made them, and the migration of a version to come.

The files are named by commits. All hold the same: a library `books` of dimension 3, with a document of two chunks and
two chunks without a document, of which one was changed and a third was deleted; and an empty library.
"""

from collections.abc import Callable
from pathlib import Path

from django.db import connection

# What the migration of the version to come does between its steps.
interruptions: list[Callable[[], None]] = []


def interrupt() -> None:
    for interruption in interruptions:
        interruption()


def dump(commit: str) -> str:
    """SQL that makes the database of a commit."""
    return (Path(__file__).parent / f"{commit}.{connection.vendor}.sql").read_text()
