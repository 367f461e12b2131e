"""Listening: each worker takes its share of the connections.

All workers listen on the same sockets, and the system wakes them all. Who is quickest would take most: of eight clients
that connect at once, one worker often got all eight, and the other one had nothing to do. So a worker that has more
connections than another, by two, leaves the next one to it, for a moment.
"""

import asyncio
import contextlib
import logging
import mmap
import socket
from collections.abc import Callable
from typing import Any

logger = logging.getLogger(__name__)

# How many connections more than another worker has are no reason to wait, and what that one has to take the next one.
_SLACK = 1
_SECONDS_TO_TAKE = 0.001
_ABSENT = -1


class Shares:
    """How many connections each worker has, in memory that the master makes and workers inherit."""

    def __init__(self, columns: int) -> None:
        self._counts = memoryview(mmap.mmap(-1, 4 * columns)).cast("i")
        for column in range(columns):
            self.leave(column)

    def set(self, column: int, connections: int) -> None:
        """Tell the others how many connections the worker of `column` has."""
        self._counts[column] = connections

    def leave(self, column: int) -> None:
        """The worker of `column` takes no more."""
        self._counts[column] = _ABSENT

    def is_ahead(self, column: int, connections: int) -> bool:
        """Return whether another worker than that of `column` has far fewer than `connections`."""
        others = (count for i, count in enumerate(self._counts) if i != column)
        return any(count != _ABSENT and count + _SLACK < connections for count in others)


class Listener:
    """Takes connections from a listening socket, each for a `protocol`.

    `is_ahead` is given the number of connections that are coming, and tells whether another worker has far fewer than
    this one has with them.
    """

    def __init__(self, listening: socket.socket, protocol: Callable[[], Any], is_ahead: Callable[[int], bool]) -> None:
        self._socket, self._protocol, self._is_ahead = listening, protocol, is_ahead
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._waiting: asyncio.TimerHandle | None = None
        listening.setblocking(False)
        self._listen()

    def _listen(self) -> None:
        self._waiting = None
        self._loop.add_reader(self._socket, self._find)

    def _find(self) -> None:
        """A connection is there, or was until another worker took it."""
        if self._is_ahead(len(self._tasks)) or self._take() is None:
            self._loop.remove_reader(self._socket)
            self._waiting = self._loop.call_later(_SECONDS_TO_TAKE, self._take_what_is_left)

    def _take_what_is_left(self) -> None:
        self._take()
        self._listen()

    def _take(self) -> bool | None:
        """Take a connection; return False where there is none, and None where this process can have no more files."""
        try:
            taken, _ = self._socket.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return False
        except OSError as error:
            logger.error("no connection can be taken: %s", error)
            return None
        task = self._loop.create_task(self._connect(taken))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return True

    async def _connect(self, taken: socket.socket) -> None:
        # Some clients are gone by then.
        with contextlib.suppress(OSError):
            await self._loop.connect_accepted_socket(self._protocol, taken)

    async def close(self) -> None:
        """Take those that have connected already, which the system would reset when the last worker closes the socket,
        and no more."""
        self._loop.remove_reader(self._socket)
        if self._waiting is not None:
            self._waiting.cancel()
        while self._take() or self._tasks:
            await asyncio.gather(*self._tasks)
