"""How many files and connections a process may have open."""

import contextlib
import resource


def raise_open_file_limit() -> None:
    """Raise the limit as far as the system allows, for this process and its children; the usual one is low."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # macOS names no hard limit, and refuses to go that far.
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
