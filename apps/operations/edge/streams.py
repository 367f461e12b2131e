"""Answers that are made while they are sent, each by a thread of its own, which ends with it.

A thread is some parts ahead of its client, and then waits. It is told when nobody takes them any more.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import Any

from django.db import connections

from apps.access.requests import Streamed

logger = logging.getLogger(__name__)

# Parts that are made before the client has taken those before.
_PARTS_AHEAD = 2
_BYTES_PER_SECOND = 1 << 14


def close(parts: Any) -> None:
    """End an iterable of WSGI's."""
    if hasattr(parts, "close"):
        parts.close()


class PartsUntil:
    """The parts of an answer; `then` is called when they are closed, sent or not."""

    def __init__(self, parts: Iterable[bytes], then: Callable[[], None]) -> None:
        self._parts, self._then = parts, then

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._parts)

    def close(self) -> None:
        try:
            close(self._parts)
        finally:
            self._then()


class BrokenOff(Exception):
    """An answer that did not come to its end; the message says why. `status` is what is noted of it."""

    def __init__(self, why: str, status: int) -> None:
        super().__init__(why)
        self.status = status


class Streams:
    """The streamed answers of an event loop, at most `most` at a time. One whose next part takes longer than `timeout`
    seconds to be made breaks off. A client has `patience` seconds to take a part, and more by the part's size."""

    def __init__(self, most: int, timeout: float, patience: float = 10.0) -> None:
        self._most, self._timeout, self._patience = most, timeout, patience
        self._running = 0

    @property
    def is_full(self) -> bool:
        """Whether there are as many as there may be."""
        return self._running >= self._most

    async def send(self, body: Streamed, send: Callable[[bytes], Awaitable[None]], is_gone: Callable[[], bool]) -> None:
        """Make a body and send it by `send`, which waits where the client is slow. Raise BrokenOff, which leaves `send`
        without an end."""
        flow = _Flow(asyncio.get_running_loop())
        self._running += 1
        threading.Thread(target=body.context.run, args=(flow.fill, body), name="stream", daemon=True).start()
        try:
            await self._send(flow, send, is_gone)
        except asyncio.CancelledError:
            raise BrokenOff("the server stops", 500) from None
        finally:
            self._running -= 1
            flow.stop()

    async def _send(self, flow: "_Flow", send: Callable[[bytes], Awaitable[None]], is_gone: Callable[[], bool]) -> None:
        patience = self._patience
        while True:
            try:
                async with asyncio.timeout(self._timeout):
                    part = await flow.take()
            except TimeoutError:
                raise BrokenOff(f"its next part took longer than {self._timeout:g} s", 500) from None
            if part is None:
                return
            if is_gone():
                raise BrokenOff("the client hung up", 499)
            began = time.monotonic()
            patience += len(part) / _BYTES_PER_SECOND
            try:
                async with asyncio.timeout(patience):
                    await send(part)
            except TimeoutError:
                raise BrokenOff("the client took too long", 499) from None
            patience = min(self._patience, patience - (time.monotonic() - began))


class _Flow:
    """The parts of one body, from the thread that makes them to the event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._parts: asyncio.Queue[bytes | BrokenOff | None] = asyncio.Queue()
        self._room = threading.Semaphore(_PARTS_AHEAD)
        self._is_stopped = False

    def fill(self, body: Streamed) -> None:
        """Make all parts, as long as they are taken. Runs in a thread."""
        try:
            for part in body.parts:
                if not self._put(part):
                    return
            self._put(None)
        except Exception:
            logger.exception("an answer broke off while it was made")
            self._put(BrokenOff("it could not be made", 500))
        finally:
            close(body.parts)
            connections.close_all()

    def _put(self, part: bytes | BrokenOff | None) -> bool:
        """Wait for room, and return whether anybody still takes parts."""
        self._room.acquire()
        if not self._is_stopped:
            self._loop.call_soon_threadsafe(self._parts.put_nowait, part)
        return not self._is_stopped

    async def take(self) -> bytes | None:
        """The next part; None at the end. Raises BrokenOff where there is no more, and it is not the end."""
        part = await self._parts.get()
        self._room.release()
        if isinstance(part, BrokenOff):
            raise part
        return part

    def stop(self) -> None:
        """Tell the thread that nothing is taken any more."""
        self._is_stopped = True
        self._room.release()
