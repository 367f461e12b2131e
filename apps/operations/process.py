"""What a process may open, and which one maintains a data folder."""

import contextlib
import resource
from contextlib import AbstractContextManager

from django.conf import settings

from apps.telemetry.slots import try_lock


def raise_open_file_limit() -> None:
    """Raise the limit as far as the system allows, for this process and its children; the usual one is low."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # macOS names no hard limit, and refuses to go that far.
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def maintenance_lock() -> AbstractContextManager[bool]:
    """Try to lock the data folder for maintenance while the block runs; gives False where another process has it."""
    return try_lock(settings.DATA_DIR / "maintain.lock")
