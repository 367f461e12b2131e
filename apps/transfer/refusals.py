"""The rows that an import refuses, all of them, as a file of JSON lines."""

import contextlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Self

import orjson

from apps.transfer.errors import TransferError
from apps.transfer.job_context import JobContext


class RefusalFile:
    """A file that gets each row that a job refuses, once.

    It is written before a step is committed, whose progress says how much of the file counts. What is behind that, as
    of a step that was undone, is written over.
    """

    def __init__(self, path: Path, progress: Mapping[str, Any], *, is_restarted: bool = False) -> None:
        """Open the file to go on with it where `progress`, that of the job, has it; or make it. Raises TransferError
        where there is another one, OSError."""
        self.path = path.resolve()
        kept = progress.get("refusals", {})
        is_ours = kept.get("path") == str(self.path)
        self._file = self.path.open("ab")
        size = self._file.tell()
        if size and not is_ours:
            self._file.close()
            raise TransferError(f"{path} exists. Name another file for --report, or delete it.")
        self._size = self._end = min(kept["size"], size) if is_ours and not is_restarted else 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        # All that counts is on the disk. What a full one has not taken is tried again, and its error has been told.
        with contextlib.suppress(OSError):
            self._file.close()

    def write(self, refused: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
        """Write what a step has refused; return what the progress of the job is to keep. Raises TransferError."""
        lines = b"".join(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) for row in refused)
        try:
            self._file.truncate(self._size)
            if lines:
                self._file.write(lines)
                self._file.flush()
                os.fsync(self._file.fileno())
        except OSError as error:
            raise TransferError(f"{self.path} cannot be written: {error.strerror or error}.") from error
        self._end = self._size + len(lines)
        return {"path": str(self.path), "size": self._end}

    def keep(self) -> None:
        """Keep what was written last: its step is committed."""
        self._size = self._end

    def clear(self) -> None:
        """Begin the file again with the next write."""
        self._size = 0


def refusal_progress(
    refusals: RefusalFile | None, job: JobContext, refused: Iterable[Mapping[str, Any]] = ()
) -> dict[str, Any]:
    """Write what a step has refused, if there is a file for that; return what the progress of the job says of it."""
    if refusals is not None:
        return {"refusals": refusals.write(refused)}
    # A file of an earlier run: a later one may go on with it.
    return {"refusals": job.progress["refusals"]} if "refusals" in job.progress else {}
