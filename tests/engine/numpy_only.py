"""Searches by numpy alone."""

from collections.abc import Iterator
from contextlib import contextmanager

from apps.engine import kernels


@contextmanager
def numpy_only() -> Iterator[None]:
    """Run the block as in a process that has not loaded the kernels yet; load them behind it."""
    kernels.unload()
    try:
        yield
    finally:
        kernels.load()
