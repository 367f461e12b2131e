"""Counts that all workers of a host share: requests of the last minute by name, and requests that run now.

They lie in one file in memory, which the master makes before it forks and workers inherit. A worker that dies leaves no
lock behind, because the system releases it, and no running request, because the master clears the worker's counts.

There is one lock, so that all that a request counts is one step.

A window is a ring of the counts of 61 seconds: the one at hand and the 60 before it, so no span of 60 seconds ever has
more than the limit. Seconds are those since the start of the system, which no change of its clock moves.
"""

import ctypes
import fcntl
import mmap
import os
import struct
import tempfile
import threading
from collections.abc import Callable
from hashlib import blake2b
from time import monotonic
from typing import NamedTuple

SECONDS = 60
_RING = SECONDS + 1
# A name's digest, the second of the last count and the sum of all counts, and the counts of the seconds, each at its
# number modulo 61.
_HEAD, _COUNTS, _COUNT = struct.Struct("16sQQ"), struct.Struct(f"{_RING}I4x"), struct.Struct("I")
_WINDOW_BYTES = _HEAD.size + _COUNTS.size
_WINDOWS_OF_BUCKET = 8
_BUCKETS = 2048
_NOBODY = bytes(16)


class Hit(NamedTuple):
    """Whether a request was counted, how many more there may be now, and in how many seconds there may be another."""

    is_allowed: bool
    remaining: int
    wait: int


class _Lock:
    """A lock of processes and threads, for `with`; whoever has it may take it again. The system releases that of a
    process that dies."""

    # Calls that keep the interpreter's own lock. To give that up would mean to wait for it with this lock in hand, for
    # as long as another thread computes, and all other processes with it.
    _lockf = ctypes.PyDLL(None).lockf

    def __init__(self, file: int) -> None:
        self._file = file
        # Locks of files are a process's, so threads need one of their own.
        self.threads = threading.RLock()
        self._depth = 0

    def __enter__(self) -> None:
        self.threads.acquire()
        if not self._depth and self._lockf(self._file, os.F_TLOCK, 1):
            try:
                fcntl.lockf(self._file, fcntl.LOCK_EX, 1)
            except BaseException:
                self.threads.release()
                raise
        self._depth += 1

    def __exit__(self, *exception: object) -> None:
        self._depth -= 1
        if not self._depth:
            self._lockf(self._file, os.F_ULOCK, 1)
        self.threads.release()


class SharedCounters:
    """Counts for `columns` processes that run at most `running` requests each. Methods take some microseconds."""

    def __init__(self, columns: int, running: int, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._rows = max(256, 2 * columns * running)
        self._row = struct.Struct(f"16s{columns}I")
        self._running_at = _BUCKETS * _WINDOWS_OF_BUCKET * _WINDOW_BYTES
        size = self._running_at + self._rows * self._row.size
        self._file = _file_in_memory()
        os.ftruncate(self._file, size)
        self._memory = mmap.mmap(self._file, size)
        # Held for one step, of all processes, of whatever is counted in its block.
        self.locked = _Lock(self._file)
        self.column = 0

    def hit(self, name: str, limit: int, *, is_counted: bool = True) -> Hit:
        """Count a request under `name`, unless `limit` of them were counted in the last minute. Unless it `is_counted`,
        only say whether it would be."""
        digest, now = _digest(name), int(self._clock())
        bucket = int.from_bytes(digest[:8]) % _BUCKETS
        with self.locked:
            offset = self._window(bucket * _WINDOWS_OF_BUCKET * _WINDOW_BYTES, digest)
            found, last, used = _HEAD.unpack_from(self._memory, offset)
            if found != digest or last != now:
                used = self._turn(offset + _HEAD.size, last, now)
            is_allowed = used < limit
            is_counted = is_counted and is_allowed
            used += is_counted
            _HEAD.pack_into(self._memory, offset, digest, now, used)
            if is_counted:
                self._add(offset + _HEAD.size + _COUNT.size * (now % _RING), 1)
            counts = [] if used < limit else [*_COUNTS.unpack_from(self._memory, offset + _HEAD.size)]
        wait = seconds_until_free(_by_age(counts, now), used, limit) if counts else 0
        return Hit(is_allowed, max(0, limit - used), wait)

    def _turn(self, ring: int, last: int, now: int) -> int:
        """Forget the counts of seconds that are over; return the sum of the others."""
        counts = list(_COUNTS.unpack_from(self._memory, ring))
        for second in range(max(last, now - _RING) + 1, now + 1):
            counts[second % _RING] = 0
        _COUNTS.pack_into(self._memory, ring, *counts)
        return sum(counts)

    def _window(self, start: int, digest: bytes) -> int:
        """The offset of the window of `digest` in the bucket at `start`: its own, or else the one that was idle for
        longest. Where that is not empty yet, its counts stay: to be forgotten must not let anybody have more."""
        offsets = range(start, start + _WINDOWS_OF_BUCKET * _WINDOW_BYTES, _WINDOW_BYTES)
        for offset in offsets:
            if self._memory[offset : offset + 16] == digest:
                return offset
        return min(offsets, key=lambda offset: _HEAD.unpack_from(self._memory, offset)[1])

    def enter(self, name: str, limit: int) -> bool:
        """Count a running request under `name`, unless `limit` of them run; then it is to `leave`."""
        digest = _digest(name)
        with self.locked:
            offset = self._row_of(digest)
            found, *counts = self._row.unpack_from(self._memory, offset)
            if found == digest and sum(counts) >= limit:
                return False
            self._memory[offset : offset + 16] = digest
            self._add(self._own(offset), 1)
        return True

    def leave(self, name: str) -> None:
        """A request that had entered under `name` has ended."""
        # No other process writes to this one's column, and the row keeps its name until the request has left.
        with self.locked.threads:
            self._add(self._own(self._row_of(_digest(name))), -1)

    def _own(self, row: int) -> int:
        return row + 16 + _COUNT.size * self.column

    def _add(self, offset: int, change: int) -> None:
        (count,) = _COUNT.unpack_from(self._memory, offset)
        _COUNT.pack_into(self._memory, offset, count + change)

    def clear(self, column: int) -> None:
        """Forget the running requests of a process that has ended."""
        with self.locked:
            for row in range(self._rows):
                _COUNT.pack_into(self._memory, self._running_at + row * self._row.size + 16 + 4 * column, 0)

    def _row_of(self, digest: bytes) -> int:
        """The offset of the row of `digest`, or else of one under which nothing runs: there are twice as many rows as
        requests that may run. A name keeps its row until another one needs it."""
        first, free = int.from_bytes(digest[:8]), -1
        for i in range(self._rows):
            offset = self._running_at + (first + i) % self._rows * self._row.size
            found = self._memory[offset : offset + 16]
            if found == digest:
                return offset
            if free < 0 and not any(self._row.unpack_from(self._memory, offset)[1:]):
                free = offset
            if found == _NOBODY:
                break
        return free


def seconds_until_free(counts: list[int], used: int, limit: int) -> int:
    """In how many seconds fewer than `limit` of `used` requests are left, if `counts` has those of each second, the
    oldest first, of which one ends with every second."""
    for i, count in enumerate(counts):
        if used < limit:
            return i
        used -= count
    return len(counts)


def _by_age(counts: list[int], now: int) -> list[int]:
    oldest = (now + 1) % _RING
    return counts[oldest:] + counts[:oldest]


def _digest(name: str) -> bytes:
    return blake2b(name.encode(), digest_size=16).digest()


def _file_in_memory() -> int:
    """The descriptor of a file that has no name, and that processes inherit."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("vectordb-counters")
    file, path = tempfile.mkstemp()
    os.unlink(path)
    return file
