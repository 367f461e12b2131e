"""Files that are checked before they are used: each by its size and its xxh3 checksum."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import xxhash

from apps.engine.errors import Damaged, is_exhaustion

_BLOCK_BYTES = 1 << 22


@dataclass(frozen=True)
class FileRecord:
    """A file as it must be: its size and its xxh3_64 checksum in hexadecimal."""

    bytes: int
    xxh3: str

    @classmethod
    def of(cls, path: Path) -> "FileRecord":
        """The record of the file as it is. Raises OSError."""
        digest, size = xxhash.xxh3_64(), 0
        with open(path, "rb") as file:
            while block := file.read(_BLOCK_BYTES):
                digest.update(block)
                size += len(block)
        return cls(size, digest.hexdigest())


def sync_file(path: Path) -> FileRecord:
    """Sync a file to the disk; return its record. Raises OSError."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())
    return FileRecord.of(path)


def check_file(path: Path, expected: FileRecord) -> None:
    """Raise Damaged unless the file is as `expected`."""
    name = f"{path.parent.name}/{path.name}"
    with raise_damaged(name):
        found = FileRecord.of(path)
    if found != expected:
        raise Damaged(f"{name} does not have its size or checksum")


@contextmanager
def raise_damaged(name: str) -> Iterator[None]:
    """Raise what goes wrong while `name` is read as Damaged, unless the process has run out of means to read it."""
    try:
        yield
    except Damaged:
        raise
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RuntimeError) as error:
        if is_exhaustion(error):
            raise
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise Damaged(f"{name} cannot be read: {reason}") from error
