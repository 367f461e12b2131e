"""What a process may open, and which one maintains a data folder."""

import contextlib
import fcntl
import resource
from collections.abc import Iterator

from django.conf import settings


def raise_open_file_limit() -> None:
    """Raise the limit as far as the system allows, for this process and its children; the usual one is low."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # macOS names no hard limit, and refuses to go that far.
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


@contextlib.contextmanager
def maintenance_lock() -> Iterator[bool]:
    """Try to lock the data folder for maintenance while the block runs; gives False where another process has it."""
    with open(settings.DATA_DIR / "maintain.lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
