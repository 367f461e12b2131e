"""An AsyncClient with the face of a Client, so that one scenario tests both."""

import asyncio
import inspect
from typing import Any

from vectordb_client import AsyncListing


class Blocking:
    """`target` and all that comes of it, awaited in a loop of its own; an AsyncListing is a list."""

    def __init__(self, target: Any, loop: asyncio.AbstractEventLoop | None = None) -> None:
        self._target, self._loop = target, loop or asyncio.new_event_loop()

    def __getattr__(self, name: str) -> Any:
        return self._wrap(getattr(self._target, name))

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._wrap(self._target(*args, **kwargs))

    def __enter__(self) -> "Blocking":
        return self

    def __exit__(self, *exception: object) -> None:
        self._loop.run_until_complete(self._target.close())
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()

    def _wrap(self, value: Any) -> Any:
        if inspect.isawaitable(value):
            return self._wrap(self._loop.run_until_complete(value))
        if isinstance(value, AsyncListing):
            return [self._wrap(item) for item in self._loop.run_until_complete(value.all())]
        is_ours = type(value).__module__.startswith("vectordb_client") and hasattr(value, "_runner")
        return Blocking(value, self._loop) if is_ours or callable(value) else value
