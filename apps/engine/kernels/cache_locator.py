"""Where numba keeps compiled kernels; apps/engine/kernels/cache.py names this class to it."""

from collections.abc import Callable
from typing import Any, Self

from numba.core.caching import InTreeCacheLocator

from apps.engine.kernels.cache import fingerprint, folder


class Locator(InTreeCacheLocator):
    """One folder for all, whether or not this process may write there: numba's own class wants to, even to read."""

    @classmethod
    def from_function(cls, py_func: Callable[..., Any], py_file: str) -> Self:
        return cls(py_func, py_file)

    def get_cache_path(self) -> str:
        return str(folder())

    def get_source_stamp(self) -> str:
        """What cached code must agree with: the content of all sources, which are compiled into each other, in place of
        the time of a function's own."""
        return fingerprint()
