"""The threads that run requests. They live as long as their worker, and so do their database connections."""

import asyncio
import threading
import time
from collections.abc import Callable
from queue import SimpleQueue
from typing import TypeAlias

from apps.access.requests import Answer, Request

_Future: TypeAlias = "asyncio.Future[Answer]"


class Threads:
    """Runs requests for an event loop: one queue, and one wake-up of the loop for each answer."""

    def __init__(self, count: int, handle: Callable[[Request], Answer]) -> None:
        """`handle` must not raise."""
        self._handle = handle
        self._waiting: SimpleQueue[tuple[Request, _Future]] = SimpleQueue()
        # What is run, and since when.
        self._running: dict[_Future, tuple[Request, float]] = {}
        for number in range(count):
            threading.Thread(target=self._work, name=f"request-{number}", daemon=True).start()

    def run(self, request: Request) -> _Future:
        """Run a request in the next thread that is free."""
        future: _Future = asyncio.get_running_loop().create_future()
        self._waiting.put((request, future))
        return future

    def overdue(self, seconds: float) -> list[tuple[Request, _Future]]:
        """The requests that have run for longer than `seconds`, and the futures of their answers."""
        latest = time.monotonic() - seconds
        return [(request, future) for future, (request, began) in list(self._running.items()) if began < latest]

    def _work(self) -> None:
        while True:
            request, future = self._waiting.get()
            self._running[future] = (request, time.monotonic())
            answer = self._handle(request)
            del self._running[future]
            future.get_loop().call_soon_threadsafe(_settle, future, answer)
            # Bodies must not live until the next request comes.
            del request, future, answer


def _settle(future: _Future, answer: Answer) -> None:
    if not future.done():
        future.set_result(answer)
