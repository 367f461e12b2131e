"""The threads that run requests. They live as long as their worker, and so do their database connections.

Writes wait for one another in the database, each in its thread. Where there are several threads, one of them runs no
writes, so that queries need not wait for all writes that are there.
"""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from typing import TypeAlias

from apps.access.limits import may_write
from apps.access.requests import Answer, Request
from apps.operations.process import switch_threads_often

_Future: TypeAlias = "asyncio.Future[Answer]"
_Waiting: TypeAlias = tuple[Request, _Future, bool]


class Threads:
    """Runs requests for an event loop: one queue, and one wake-up of the loop for each answer."""

    def __init__(self, count: int, handle: Callable[[Request], Answer]) -> None:
        """`handle` must not raise."""
        self._handle = handle
        self._waiting: SimpleQueue[_Waiting] = SimpleQueue()
        self._lock = threading.Lock()
        # How many writes may be in the queue or in threads; those that come beside wait here.
        self._most_writes = self._free_for_writes = max(1, count - 1)
        self._later: deque[_Waiting] = deque()
        # What is run, and since when.
        self._running: dict[_Future, tuple[Request, float]] = {}
        for number in range(count):
            threading.Thread(target=self._work, name=f"request-{number}", daemon=True).start()

    def run(self, request: Request) -> _Future:
        """Run a request in the next thread that is free."""
        future: _Future = asyncio.get_running_loop().create_future()
        is_write = may_write(request.scope["method"], request.scope["path"])
        if is_write and not self._takes_write((request, future, True)):
            return future
        self._waiting.put((request, future, is_write))
        return future

    @property
    def running(self) -> int:
        """The number of requests that a thread is answering."""
        return len(self._running)

    @property
    def waiting(self) -> int:
        """The number of requests that wait for a thread."""
        return self._waiting.qsize() + len(self._later)

    def _takes_write(self, write: _Waiting) -> bool:
        """Return whether a write may run now; else it runs after others."""
        with self._lock:
            if self._free_for_writes:
                self._set_free_for_writes(self._free_for_writes - 1)
                return True
            self._later.append(write)
            return False

    def _end_write(self) -> None:
        with self._lock:
            if self._later:
                self._waiting.put(self._later.popleft())
            else:
                self._set_free_for_writes(self._free_for_writes + 1)

    def _set_free_for_writes(self, number: int) -> None:
        switch_threads_often(number < self._most_writes)
        self._free_for_writes = number

    def overdue(self, seconds: float) -> list[tuple[Request, _Future]]:
        """The requests that have run for longer than `seconds`, and the futures of their answers."""
        latest = time.monotonic() - seconds
        return [(request, future) for future, (request, began) in list(self._running.items()) if began < latest]

    def _work(self) -> None:
        while True:
            request, future, is_write = self._waiting.get()
            self._running[future] = (request, time.monotonic())
            answer = self._handle(request)
            del self._running[future]
            if is_write:
                self._end_write()
            future.get_loop().call_soon_threadsafe(_settle, future, answer)
            # Bodies must not live until the next request comes.
            del request, future, answer


def _settle(future: _Future, answer: Answer) -> None:
    if not future.done():
        future.set_result(answer)
