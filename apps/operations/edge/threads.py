"""The threads that run requests. They live as long as their worker, and so do their database connections."""

import asyncio
import threading
import time
from collections.abc import Callable
from queue import SimpleQueue
from typing import TypeAlias

from apps.access.requests import Answer, Request

_Result: TypeAlias = "asyncio.Future[Answer]"


class Threads:
    """Runs requests for an event loop: one queue, and one wake-up of the loop for each answer."""

    def __init__(self, count: int, handle: Callable[[Request], Answer]) -> None:
        """`handle` must not raise."""
        self._handle = handle
        self._loop = asyncio.get_running_loop()
        self._waiting: SimpleQueue[tuple[Request, _Result]] = SimpleQueue()
        # What each busy thread does, and since when.
        self._running: dict[int, tuple[float, Request, _Result]] = {}
        for number in range(count):
            threading.Thread(target=self._work, args=(number,), name=f"request-{number}", daemon=True).start()

    def run(self, request: Request) -> _Result:
        """Run a request in the next thread that is free."""
        result: _Result = self._loop.create_future()
        self._waiting.put((request, result))
        return result

    def answer_overdue(self, seconds: float, answer: Callable[[Request], Answer]) -> bool:
        """Answer the requests that have run for longer than `seconds`; return whether there are any."""
        began = time.monotonic() - seconds
        overdue = [running for running in list(self._running.values()) if running[0] < began]
        for _, request, result in overdue:
            if not result.done():
                result.set_result(answer(request))
        return bool(overdue)

    def _work(self, number: int) -> None:
        while True:
            request, result = self._waiting.get()
            self._running[number] = (time.monotonic(), request, result)
            answer = self._handle(request)
            del self._running[number]
            self._loop.call_soon_threadsafe(_settle, result, answer)
            # Bodies must not live until the next request comes.
            del request, result, answer


def _settle(result: _Result, answer: Answer) -> None:
    if not result.done():
        result.set_result(answer)
