"""Bodies of imports on their way to files of the data folder: too large for memory, and known to be allowed before
any of them is kept.

Threads write, so that a slow disk delays no other connection; the client waits meanwhile.
"""

import asyncio
import contextlib
import fcntl
import os
import re
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import BinaryIO

from django.conf import settings

_IMPORT = re.compile(rb"[^?]*/api/v1/libraries/[^/?]+/import(\?.*)?")
# Bytes in memory beyond which nothing more is read.
_MOST_WAITING = 1 << 20


def is_import(method: bytes, url: bytes) -> bool:
    """Whether a request, by its first line, is an import, whose body may be large."""
    return method == b"POST" and _IMPORT.fullmatch(url) is not None


def uploads_folder() -> Path:
    """Where bodies are until their requests are answered."""
    folder: Path = settings.DATA_DIR / "uploads"
    return folder


def delete_uploads() -> None:
    """Delete what requests have left that ended with their server; not what comes to another server on the folder."""
    for path in uploads_folder().glob("*"):
        with contextlib.suppress(FileNotFoundError, BlockingIOError), path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()


class Upload:
    """A body that is written to a file while it comes. `pause` and `resume` stop and continue the reading of it."""

    def __init__(self, pause: Callable[[], None], resume: Callable[[], None]) -> None:
        self._pause, self._resume = pause, resume
        self._waiting = bytearray()
        self._changed = asyncio.Event()
        self.has_ended = False
        self._task: asyncio.Task[None] | None = None
        self.path: Path | None = None
        self.size = 0

    def start(
        self, admit: Callable[[], Awaitable[None]], done: Callable[[], None], refuse: Callable[[Exception], None]
    ) -> None:
        """Ask `admit`, then write all that is added, then call `done`; or `refuse` with why not, whatever it is."""
        self._pause()
        self._task = asyncio.get_running_loop().create_task(self._run(admit, done, refuse))

    def add(self, data: bytes) -> None:
        """Add a part of the body."""
        self._waiting += data
        self.size += len(data)
        self._changed.set()
        if len(self._waiting) > _MOST_WAITING:
            self._pause()

    def end(self) -> None:
        """Tell that there is no more."""
        self.has_ended = True
        self._changed.set()

    def discard(self) -> None:
        """Forget the body."""
        if self._task is not None:
            self._task.cancel()
        if self.path is not None:
            self.path.unlink(missing_ok=True)

    async def _run(
        self, admit: Callable[[], Awaitable[None]], done: Callable[[], None], refuse: Callable[[Exception], None]
    ) -> None:
        try:
            await admit()
            file = self._open()
            try:
                self._resume()
                await self._write(file)
            finally:
                file.close()
        except Exception as error:
            self._task = None
            refuse(error)
        else:
            self._task = None
            done()

    def _open(self) -> BinaryIO:
        uploads_folder().mkdir(mode=0o700, exist_ok=True)
        descriptor, path = tempfile.mkstemp(dir=uploads_folder())
        # Locked for as long as it is open, against `delete_uploads`.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        self.path = Path(path)
        return os.fdopen(descriptor, "wb", buffering=0)

    async def _write(self, file: BinaryIO) -> None:
        while self._waiting or not self.has_ended:
            if not self._waiting:
                self._changed.clear()
                await self._changed.wait()
                continue
            data, self._waiting = bytes(self._waiting), bytearray()
            await asyncio.get_running_loop().run_in_executor(None, _write_all, file, data)
            self._resume()


def _write_all(file: BinaryIO, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]
