"""Parts of files as files, and output that is taken away while it is written."""

import io
import os
from collections.abc import Iterator
from typing import BinaryIO, Final

# More than any reader asks for at once but for a list of contents, which is refused then.
MOST_AT_ONCE: Final = 4 << 20
# To copy is quicker than to send one part more.
_BYTES_PER_PART: Final = 1 << 20


class Section(io.RawIOBase):
    """Bytes of a file from `start` on, which can be sought in. Refuses to read very much at once."""

    def __init__(self, file: BinaryIO, start: int, size: int) -> None:
        self._file, self._start, self._size, self._at = file, start, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        if self._at < 0:
            raise OSError("negative seek position")
        return self._at

    def read(self, size: int | None = -1) -> bytes:
        left = max(0, self._size - self._at)
        size = left if size is None or size < 0 else min(size, left)
        if size > MOST_AT_ONCE:
            raise ValueError(f"{size} bytes at once are more than any part of an export has")
        self._file.seek(self._start + self._at)
        found = self._file.read(size)
        self._at += len(found)
        return found

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        found = self.read(len(buffer))
        buffer[: len(found)] = found
        return len(found)


class Outflow(io.RawIOBase):
    """Output that cannot be sought in; `take` gives what was written since."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._written = 0

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._written

    def seekable(self) -> bool:
        return False

    def write(self, data: bytes) -> int:  # type: ignore[override]
        self._parts.append(bytes(data))
        self._written += len(data)
        return len(data)

    def take(self) -> Iterator[bytes]:
        """What was written up to now, since the last time, in parts of some size."""
        parts, self._parts = self._parts, []
        return _join(parts)


def _join(parts: list[bytes]) -> Iterator[bytes]:
    some: list[bytes] = []
    size = 0
    for part in parts:
        some.append(part)
        size += len(part)
        if size >= _BYTES_PER_PART:
            yield b"".join(some)
            some, size = [], 0
    yield b"".join(some)
