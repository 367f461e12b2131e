"""How processes share their metrics: each has a slot, a small file in memory that it writes once a second.

A process holds the lock of its slot for as long as it lives. The one that replaces it gets the slot and goes on from
the numbers in it, so that counters never step back when a process is killed (what it counted in its last second is
lost), and there are never more files than there were processes at one time. Files are replaced whole, so readers take
no lock.
"""

import contextlib
import fcntl
import hashlib
import logging
import os
import shutil
import stat
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import orjson
from django.conf import settings

from apps.ownership import hand_over
from apps.telemetry import instruments, metrics
from apps.telemetry.instruments import Instrument, Series

logger = logging.getLogger(__name__)

_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108  (the folder in it is our own, or is not used)
_SECONDS_BETWEEN_WRITES = 1.0
# A process that has not written for so long has ended, or hangs.
_SECONDS_GAUGES_LAST = 10.0


@cache
def runtime_folder() -> Path:
    """The folder of what processes share only while they run: in memory where there is such a place, so that nothing
    waits for a disk or needs room on it. Only this user can read it."""
    name = hashlib.sha256(f"{settings.DATA_DIR}:{os.geteuid()}".encode()).hexdigest()[:16]
    for folder in (_SHARED_MEMORY / f"vectordb-{name}", settings.DATA_DIR / "run"):
        with contextlib.suppress(OSError):
            folder.mkdir(mode=0o700, exist_ok=True)
            found = folder.lstat()
            if stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o77:
                return folder
    # The data folder cannot be written either: a place of this process alone.
    return Path(tempfile.mkdtemp(prefix="vectordb-"))


def clear() -> None:
    """Remove from the runtime folder what processes have left that have ended; called when a server starts, and when it
    ends. What belongs to no single process stays as long as another server on the data folder uses it."""
    is_used = False
    for path in _folder().glob("*.lock"):
        with try_lock(path) as is_locked:
            if is_locked:
                path.with_suffix(".json").unlink(missing_ok=True)
                path.unlink(missing_ok=True)
            is_used |= not is_locked
    if is_used:
        return
    for path in runtime_folder().iterdir():
        if path.is_dir() and path != _folder():
            shutil.rmtree(path, ignore_errors=True)
        elif not path.is_dir():
            path.unlink(missing_ok=True)
    for folder in (_folder(), runtime_folder()):
        with contextlib.suppress(OSError):
            folder.rmdir()


class Slot:
    """The slot of this process, which must not fork while it has one. `name` is that of the process in gauges."""

    def __init__(self, role: str, refresh: Callable[[], None]) -> None:
        """Take the first slot of a `role` that is free. `refresh` sets gauges; it is called before each write."""
        self._refresh, self._lock = refresh, threading.Lock()
        number = 0
        while not self._take(f"{role}-{number}"):
            number += 1
        before = _read(self._path)
        instruments.begin_with(before["numbers"] if before else {})

    def _take(self, name: str) -> bool:
        path = _folder() / f"{name}.lock"
        self._file = open(path, "w")  # noqa: SIM115  (it is held until the process ends)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.close()
            return False
        if not path.exists() or os.fstat(self._file.fileno()).st_ino != path.stat().st_ino:
            return self._take(name)  # a server that ended has just removed it
        self.name, self._path = name, path.with_suffix(".json")
        return True

    def write(self) -> None:
        """Write the numbers of now. Raises OSError."""
        with self._lock:
            self._refresh()
            draft = self._path.with_suffix(".draft")
            # Wall clocks step.
            content = {"written_at": time.monotonic(), "numbers": instruments.numbers()}
            draft.write_bytes(orjson.dumps(content))
            draft.replace(self._path)

    def write_for_ever(self) -> None:
        """Write once a second."""
        is_told = False
        while True:
            try:
                self.write()
                is_told = False
            except Exception as error:
                if not is_told:
                    is_bug = not isinstance(error, OSError)
                    logger.warning("metrics of this process cannot be shared: %s", error, exc_info=is_bug)
                is_told = True
            time.sleep(_SECONDS_BETWEEN_WRITES)


_own: Slot | None = None


def share(role: str, refresh: Callable[[], None]) -> None:
    """Share the metrics of this process from now on; called once, after a fork."""
    global _own
    if settings.METRICS == "off":
        return
    _own = Slot(role, refresh)
    metrics.STARTS.add(1, role)
    threading.Thread(target=_own.write_for_ever, name="metrics", daemon=True).start()


def flush() -> None:
    """Share what was counted since the last write, if that can be written."""
    if _own is not None:
        with contextlib.suppress(OSError):
            _own.write()


def collect() -> dict[str, Series]:
    """The numbers of all processes, by the names of instruments: counts added up, those of processes that have ended
    too, and gauges of those that live."""
    found: dict[str, Series] = {}
    if _own is not None:
        # Where it cannot be written, what it has of a moment ago is told.
        flush()
    else:
        _add(found, {name: dict(series) for name, series in instruments.numbers().items()}, None)
    for path in sorted(_folder().glob("*.json")):
        content = _read(path)
        if content is not None:
            is_alive = time.monotonic() - content["written_at"] < _SECONDS_GAUGES_LAST
            _add(found, content["numbers"], path.stem if is_alive else None)
    return found


def _add(found: dict[str, Series], numbers: dict[str, Series], process: str | None) -> None:
    """Add numbers to those that are `found`; gauges only of a `process`."""
    for name, series in numbers.items():
        one, total = Instrument.by_name[name], found.setdefault(name, {})
        if one.kind == "gauge" and process is None:
            continue
        for labels, values in series.items():
            if one.labels[:1] == ("process",):
                labels = (process or "", *labels)
            before = total.get(labels)
            total[labels] = values if before is None else [a + b for a, b in zip(before, values, strict=True)]


def _folder() -> Path:
    folder = runtime_folder() / "metrics"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def _read(path: Path) -> dict[str, Any] | None:
    """What a slot holds of the instruments that there are; None where it is not there, or damaged."""
    try:
        content = orjson.loads(path.read_bytes())
        numbers: dict[str, Series] = {}
        for name, series in content["numbers"].items():
            one = Instrument.by_name.get(name)
            if one is not None:
                # Another version may have counted otherwise.
                numbers[name] = {tuple(labels): values for labels, values in series if len(values) == one.size}
        return {"written_at": float(content["written_at"]), "numbers": numbers}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


@contextlib.contextmanager
def try_lock(path: Path, *, is_shared: bool = False) -> Iterator[bool]:
    """Try to lock a file, which is made, while the block runs; gives False where another process has it. Several may
    have a shared lock, and processes that are forked in the block keep it."""
    with open(path, "w") as file:
        hand_over(path)
        try:
            fcntl.flock(file, (fcntl.LOCK_SH if is_shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
