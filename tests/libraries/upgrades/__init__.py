"""Databases of earlier versions, as their own code made them, and the migration of a version to come.

The files are named by commits. All hold the same: a library `books` of dimension 3, with a document of two chunks and
two chunks without a document, of which one was changed and a third was deleted; and an empty library.

Archives are data folders, whole but for locks and the reserve, as `serve` of a commit left them on SQLite: libraries of
three index types with files, behind which rows were changed, deleted and added; keys, and the backup of a version that
made some. `answers.json` has queries, and what was answered to them then.
"""

import json
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from django.db import connection

# What the migration of the version to come does between its steps.
interruptions: list[Callable[[], None]] = []


def interrupt() -> None:
    for interruption in interruptions:
        interruption()


def dump(commit: str) -> str:
    """SQL that makes the database of a commit."""
    return (Path(__file__).parent / f"{commit}.{connection.vendor}.sql").read_text()


def unpack_folder(commit: str, folder: Path) -> list[dict[str, Any]]:
    """Unpack the data folder of a commit; return the queries of each library, and their results."""
    with zipfile.ZipFile(Path(__file__).parent / f"{commit}.zip") as archive:
        archive.extractall(folder)
    answers: list[dict[str, Any]] = json.loads((folder / "answers.json").read_text())
    return answers


def triggers(commit: str) -> str:
    """SQL that makes the triggers alone; on PostgreSQL their functions may be there, of another version."""
    ends = {"sqlite": r"\n +END;$", "postgresql": r"(?:\$\$|\(\));$"}
    statement = rf"^CREATE (?:TRIGGER|FUNCTION) .*?{ends[connection.vendor]}"
    found = re.findall(statement, dump(commit), re.DOTALL | re.MULTILINE)
    return "\n".join(found).replace("CREATE FUNCTION", "CREATE OR REPLACE FUNCTION")
