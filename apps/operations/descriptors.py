"""How many files and connections a process may have open."""

import contextlib
import resource


def raise_open_file_limit() -> None:
    """Raise the limit as far as a process may, for itself and its children: the usual one is of the time of select."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # macOS names no hard limit, and refuses to go that far.
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
