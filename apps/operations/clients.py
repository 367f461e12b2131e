"""The clients of a worker, none of which it waits for.

A request is handled when all of it is here, and its answer leaves as fast as the client takes it. In between, a
connection is an entry in a selector, with the bytes it has sent or is to get. So a client that is slow, or means to be,
costs no time but memory, of which there is a limit. One that exceeds its time is hung up on; when places or memory run
out, so is the one that came first.

Usually a request is there with its connection, and its answer fits the socket's buffer: then the selector never hears
of the connection.
"""

import logging
import os
import selectors
import socket
import time
from collections.abc import Callable, Iterable
from enum import Enum, auto
from functools import partial
from typing import Any, Protocol

from apps.operations.arrival import Arrival
from vectordb.logs import current_request_id

logger = logging.getLogger(__name__)

# Seconds that a client has to send its request, and again to take the answer; and one more for each so many bytes.
SECONDS = 10
BYTES_A_SECOND = 1 << 14
_MOST_CLIENTS = 500
# Many clients send head and body apart: to wait for the other part a moment is quicker than to come back for it.
_PATIENCE = 0.001
_BLOCK = 1 << 16
# After as many, others have their turn.
_BLOCKS_AT_A_TIME = 16
# How much a client may send that nobody reads. To hang up earlier would break the answer that it has not read.
_MOST_UNREAD = 1 << 28
_TICK = 1.0
# Seconds in which nobody is taken in after the system has refused to, and at least between two lines of the log on it.
_REST = 0.5
_SECONDS_BETWEEN_WARNINGS = 60
# The end of the stream comes with the last bytes: each would wake the client by itself.
_END_FOLLOWS = getattr(socket, "MSG_MORE", 0)
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Handler(Protocol):
    """Makes the answers."""

    def answer(self, request: Arrival, server: Any, client: Any) -> bytes:
        """The answer to a request, headers and all; empty where there is none. The others are both ends' addresses.
        It raises what shall end the worker, and nothing else."""

    def too_late(self) -> bytes:
        """The answer to a client that has not sent all of its request in time."""


class _State(Enum):
    RECEIVING = auto()
    SENDING = auto()
    # The answer has left, and the client still sends what nobody reads.
    DRAINING = auto()


class Connection:
    """A client: its request while it arrives, then its answer while it leaves."""

    def __init__(self, client: socket.socket, arrival: Arrival, answer: Callable[[Arrival], bytes]) -> None:
        client.settimeout(_PATIENCE)
        self.socket = client
        # What `Clients` knows of it: the event that it waits for, and the bytes that were kept for it.
        self.event = 0
        self.counted = 0
        # Seconds in its state; only those in which the worker had time for it.
        self.age = 0
        self._moved = 0
        self._arrival = arrival
        self._answer = answer
        self._is_told_to_continue = False
        # Whether more of the request is on its way, perhaps.
        self._expects_more = False
        self._unsent = memoryview(b"")
        self.request_id = ""
        self._state = _State.RECEIVING

    @property
    def kept(self) -> int:
        """The bytes that are kept for it."""
        return len(self._arrival.data) + len(self._unsent)

    @property
    def unsent(self) -> int:
        """The bytes of its answer that have not left."""
        return len(self._unsent)

    @property
    def has_begun(self) -> bool:
        """Whether anything of its request has come."""
        return self._state is not _State.RECEIVING or self._moved > 0

    @property
    def is_overdue(self) -> bool:
        return self.age > SECONDS + self._moved // BYTES_A_SECOND

    def step(self) -> int:
        """Do what can be done now; answers the event to wait for, or 0 at the end. OSError when the client is gone."""
        if self._state is _State.RECEIVING:
            try:
                if not self._receive():
                    return selectors.EVENT_READ
            except (BlockingIOError, TimeoutError):
                # Who has waited for it once is told of what comes next.
                self.socket.setblocking(False)
                return selectors.EVENT_READ
            self._begin_to_send(self._answer(self._arrival))
        if self._state is _State.SENDING:
            try:
                self._send()
            except BlockingIOError:
                return selectors.EVENT_WRITE
        return selectors.EVENT_READ if self._drain() else 0

    def refuse(self, answer: bytes) -> int:
        """What `step` does, for a client that is overdue."""
        if self._state is not _State.RECEIVING or not self.has_begun:
            return 0
        self._begin_to_send(answer)
        return self.step()

    def _receive(self) -> bool:
        """Whether the request can be handled: it is whole, or the client sends no more of it."""
        for _ in range(_BLOCKS_AT_A_TIME):
            piece = self.socket.recv(_BLOCK)
            self._moved += len(piece)
            if not piece or self._arrival.add(piece):
                return True
            if self._arrival.waits_for_continue and not self._is_told_to_continue:
                self._is_told_to_continue = True
                self.socket.send(_CONTINUE)
        return False

    def _begin_to_send(self, answer: bytes) -> None:
        self.socket.setblocking(False)
        self._arrival.data = bytearray()
        self._expects_more = not self._arrival.is_complete
        self._unsent = memoryview(answer)
        self.request_id = current_request_id.get()
        self._enter(_State.SENDING)

    def _send(self) -> None:
        while self._unsent:
            sent = self.socket.send(self._unsent, _END_FOLLOWS)
            self._unsent = self._unsent[sent:]
            self._moved += sent
        self._enter(_State.DRAINING)
        if self._expects_more:
            self.socket.shutdown(socket.SHUT_WR)

    def _drain(self) -> bool:
        """Whether the client may still send what nobody reads. Closed before it is here, the connection would break,
        and the answer with it."""
        for _ in range(_BLOCKS_AT_A_TIME):
            try:
                piece = self.socket.recv(_BLOCK)
            except BlockingIOError:
                return self._expects_more
            if not piece or self._moved > _MOST_UNREAD:
                return False
            if not self._expects_more:
                self._expects_more = True
                self.socket.shutdown(socket.SHUT_WR)
            self._moved += len(piece)
        return True

    def _enter(self, state: _State) -> None:
        self._state = state
        self.age = 0
        self._moved = 0


class Clients:
    """The connections of a worker, and the sockets that they come from."""

    def __init__(
        self, listeners: Iterable[Any], wakeup: int, handler: Handler, *, most_bytes: int, most_body_bytes: int
    ) -> None:
        """`wakeup` is a pipe that something is written to in order to end the wait. At most `most_bytes` are kept of
        requests and answers; a request whose body has more than `most_body_bytes` is handled as soon as that shows."""
        self._handler = handler
        self._most_bytes = most_bytes
        self._most_body_bytes = most_body_bytes
        self._kept = 0
        self._waiting: dict[Connection, None] = {}
        self._next_tick = 0.0
        self._selector = selectors.DefaultSelector()
        self._selector.register(wakeup, selectors.EVENT_READ, partial(os.read, wakeup, 1 << 10))
        self._listeners = list(listeners)
        self._is_listening = False
        self._rests_until = 0.0
        self._warns_from = 0.0
        for listener in self._listeners:
            listener.setblocking(False)
        self._listen()

    def serve(self, seconds: float) -> None:
        """Do what can be done, waiting for that up to `seconds`."""
        if not self._is_listening and self._listeners:
            seconds = min(seconds, _REST)
        for key, _ in self._selector.select(min(seconds, _TICK) if self._waiting else seconds):
            key.data()
        if not self._is_listening and time.monotonic() >= self._rests_until:
            self._listen()
        if self._waiting:
            self._look_at_the_clock()

    def finish(self, seconds: float) -> None:
        """Take nobody in any more, and serve those who have begun for up to `seconds`."""
        self._stop_listening()
        while self._listeners:
            self._listeners.pop().close()
        for connection in list(self._waiting):
            if not connection.has_begun:
                self._drop(connection)
        end = time.monotonic() + seconds
        while self._waiting and (left := end - time.monotonic()) > 0:
            self.serve(left)

    def _listen(self) -> None:
        for listener in self._listeners:
            accept = partial(self._accept, listener, listener.getsockname())
            self._selector.register(listener, selectors.EVENT_READ, accept)
        self._is_listening = True

    def _stop_listening(self) -> None:
        if self._is_listening:
            for listener in self._listeners:
                self._selector.unregister(listener)
        self._is_listening = False

    def _rest(self, error: OSError) -> None:
        """Take nobody in for a moment: who could not be taken in is still there, and asking again at once would be all
        that the worker does."""
        self._stop_listening()
        now = time.monotonic()
        self._rests_until = now + _REST
        if now >= self._warns_from:
            self._warns_from = now + _SECONDS_BETWEEN_WARNINGS
            logger.warning("no client can be taken in for a moment: %s", error)

    def _accept(self, listener: Any, server: Any) -> None:
        try:
            client, address = listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            # Another worker was quicker, or the client has left.
            return
        except OSError as error:
            # Usually there are no file descriptors left.
            self._rest(error)
            return
        answer = partial(self._handler.answer, server=server, client=address)
        connection = Connection(client, Arrival(self._most_body_bytes), answer)
        self._advance(connection, connection.step)

    def _advance(self, connection: Connection, step: Callable[[], int]) -> None:
        try:
            event = step()
        except OSError:
            event = 0
        if not event:
            self._drop(connection)
            return
        if connection not in self._waiting:
            self._waiting[connection] = None
            self._selector.register(connection.socket, event, partial(self._meet, connection))
        elif event != connection.event:
            self._selector.modify(connection.socket, event, partial(self._meet, connection))
        connection.event = event
        self._kept += connection.kept - connection.counted
        connection.counted = connection.kept
        while self._kept > self._most_bytes or len(self._waiting) > _MOST_CLIENTS:
            self._make_room(next(iter(self._waiting)))

    def _meet(self, connection: Connection) -> None:
        # It may have had to go a moment ago.
        if connection in self._waiting:
            self._advance(connection, connection.step)

    def _make_room(self, connection: Connection) -> None:
        """Hang up on a client for the sake of others."""
        if connection.unsent:
            current_request_id.set(connection.request_id)
            logger.warning(
                "an answer broke off, %d bytes before its end: %d bytes are kept for %d clients",
                connection.unsent,
                self._kept,
                len(self._waiting),
            )
        self._drop(connection)

    def _drop(self, connection: Connection) -> None:
        if connection in self._waiting:
            del self._waiting[connection]
            self._selector.unregister(connection.socket)
            self._kept -= connection.counted
        connection.socket.close()

    def _look_at_the_clock(self) -> None:
        now = time.monotonic()
        if now < self._next_tick:
            return
        self._next_tick = now + _TICK
        for connection in list(self._waiting):
            connection.age += 1
            if connection.is_overdue:
                self._advance(connection, partial(connection.refuse, self._handler.too_late()))
