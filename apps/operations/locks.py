"""One process maintains a data folder at a time, by a lock on a file that ends with the process."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager

from django.conf import settings


@contextmanager
def maintenance_lock() -> Iterator[bool]:
    """Try to lock the data folder for maintenance while the block runs; gives False where another process has it."""
    with open(settings.DATA_DIR / "maintain.lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
