"""One process maintains a data folder at a time, by a lock on a file that ends with the process."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager

from django.conf import settings


@contextmanager
def only_one_maintains() -> Iterator[bool]:
    """Whether this process may maintain the data folder, for as long as the block runs."""
    with open(settings.DATA_DIR / "maintain.lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
