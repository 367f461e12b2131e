"""Databases of earlier versions, as their own code made them, and the migration of a version to come.

The files are named by commits. All hold the same: a library `books` of dimension 3, with a document of two chunks and
two chunks without a document, of which one was changed and a third was deleted; and an empty library.
"""

import re
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


def triggers(commit: str) -> str:
    """SQL that makes the triggers alone; on PostgreSQL their functions may be there, of another version."""
    ends = {"sqlite": r"\n +END;$", "postgresql": r"(?:\$\$|\(\));$"}
    statement = rf"^CREATE (?:TRIGGER|FUNCTION) .*?{ends[connection.vendor]}"
    found = re.findall(statement, dump(commit), re.DOTALL | re.MULTILINE)
    return "\n".join(found).replace("CREATE FUNCTION", "CREATE OR REPLACE FUNCTION")
