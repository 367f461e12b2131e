"""How a process that makes a job tells the one that starts jobs, which would otherwise look once a second: by a named
pipe beside the other files that processes share while they run. Nothing depends on it."""

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

from apps.telemetry.slots import runtime_folder


def tell_of_job() -> None:
    """Say that a job was made. Nothing happens where nobody waits for it."""
    with contextlib.suppress(OSError):
        pipe = os.open(_path(), os.O_WRONLY | os.O_NONBLOCK)
        try:
            os.write(pipe, b"\0")
        finally:
            os.close(pipe)


def wait_for_jobs(start: Callable[[], None]) -> None:
    """Call `start` whenever a job was made, for as long as the process lives. Return where there can be no pipe."""
    with contextlib.suppress(OSError):
        with contextlib.suppress(FileExistsError):
            os.mkfifo(_path(), 0o600)
        # Open for writing too: else it would end with whoever wrote last.
        pipe = os.open(_path(), os.O_RDWR)
        while os.read(pipe, 1 << 12):
            start()


def _path() -> Path:
    return runtime_folder() / "job-news"
