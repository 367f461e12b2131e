"""Connections of clients: uvicorn's, within limits of bytes and time, and with problem documents for what is no HTTP.

uvicorn's protocol on httptools has no limit on a head, none on the time of a slow client, and no end for trailers.
"""

import logging
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from apps.access.requests import Refused, current_request_id

logger = logging.getLogger(__name__)

# Seconds that a client has for a head, for a body and to take an answer; and one more for each so many bytes.
SECONDS = 10
BYTES_PER_SECOND = 1 << 14
# Seconds that a connection is kept for the next request.
IDLE_SECONDS = 30
_LONGEST_FIELD = 8190
_MOST_FIELDS = 100
# Bytes that may come without a byte of a body among them: a head, trailers, extensions of a chunk.
_LONGEST_HEAD = 1 << 16
# Requests that a client may send before it has the answer to the first.
_MOST_PIPELINED = 64
# How much a client may send after it was refused. To hang up earlier would break the answer that it has not read.
_MOST_UNREAD = 1 << 28


class Room:
    """What the connections of a worker take up: places, and bytes of bodies and answers."""

    def __init__(self, *, connections: int, kept_bytes: int, body_bytes: int) -> None:
        self.body_bytes = body_bytes
        self._most_connections = connections
        self._most_kept = kept_bytes
        self._kept = 0
        self._connections: dict[Connection, None] = {}

    def enter(self, connection: "Connection") -> None:
        """Take a connection in. When there is no place, the oldest one goes that no answer is being made for."""
        if len(self._connections) >= self._most_connections:
            others = [one for one in self._connections if not one.is_answering]
            (_oldest(others) if others else connection).hang_up()
        if not connection.transport.is_closing():
            self._connections[connection] = None

    def leave(self, connection: "Connection") -> None:
        self._connections.pop(connection, None)
        self.keep(connection, 0)

    def keep(self, connection: "Connection", size: int) -> bool:
        """Keep `size` bytes for a connection. When they are too many in all, the oldest slow ones give way; return
        False where `connection` itself is to."""
        self._kept += size - connection.kept
        connection.kept = size
        while self._kept > self._most_kept:
            slow = [one for one in self._connections if one.kept and not one.is_answering]
            if not slow or (oldest := _oldest(slow)) is connection:
                return False
            oldest.give_way()
        return True

    def tick(self) -> None:
        """A second has passed."""
        for connection in list(self._connections):
            connection.tick()


def _oldest(connections: "list[Connection]") -> "Connection":
    return max(connections, key=lambda one: one.age)


class Connection(HttpToolsProtocol):
    """A client's connection."""

    def __init__(self, *args: Any, room: Room, **options: Any) -> None:
        super().__init__(*args, **options)
        self._room = room
        # Seconds since what it does has changed, and the bytes of the body that has come.
        self.age = 0
        self._received = 0
        # Bytes of the body, or of what is unsent of the answer.
        self.kept = 0
        # Bytes since the last one of a body, or since the last request.
        self._unparsed = 0
        self._in_head = False
        self._in_message = False
        self._offers_upgrade = False
        # The request that the application answers.
        self._running: Any = None
        # Takes no further request.
        self._is_last = False
        # Is refused, so nothing that comes is read; by what, until that was said.
        self._is_deaf = False
        self._refusal: Refused | None = None
        self._has_ended = False

    @property
    def is_answering(self) -> bool:
        """Whether a request is here whole, and its answer is being made."""
        return self._running is not None and not self._running.more_body

    @property
    def is_idle(self) -> bool:
        """Whether the client has its answer, if it takes it, and has not begun another request."""
        return not (self._in_message or self._unparsed or self._running or self._is_deaf or self.kept)

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._room.enter(self)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._running = None
        self._room.leave(self)

    def data_received(self, data: bytes) -> None:
        if self._is_deaf:
            self._received += len(data)
            if self._received > _MOST_UNREAD:
                self.transport.abort()
            return
        self._unparsed += len(data)
        try:
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as stop:
                self._decline_upgrade(data[stop.args[0] :])
            if self._unparsed > _LONGEST_HEAD:
                raise Refused("malformed", f"The head, or what stands beside the body, has over {_LONGEST_HEAD} bytes.")
        except Refused as refused:
            self._refuse(refused)
        except httptools.HttpParserError as error:
            cause = error.__context__
            self._refuse(cause if isinstance(cause, Refused) else Refused("malformed", f"This is no HTTP: {error}."))

    def eof_received(self) -> bool:  # type: ignore[override]
        self._has_ended = self._is_last = True
        if self.is_answering:
            self.cycle.keep_alive = False
            return True
        if not self._is_deaf and (self._in_message or self._unparsed):
            self._refuse(Refused("malformed", "The request broke off before its end."))
        return False

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._running is None and self.kept:
            self._room.keep(self, 0)
            self._go_on()

    def shutdown(self) -> None:
        """Take no further request, except one that is on its way."""
        self._is_last = True
        if self.is_idle:
            self.age = 0
        elif self.cycle is not None:
            self.cycle.keep_alive = False

    def tick(self) -> None:
        """A second has passed: end what takes too long."""
        self.age += 1
        if self.is_answering:
            return
        if self.is_idle and not self.transport.is_closing():
            if self.age > (1 if self._is_last else IDLE_SECONDS):
                self.transport.close()
            return
        taken = self.kept - self.transport.get_write_buffer_size() if self._running is None else 0
        if self.age <= SECONDS + (self._received + max(taken, 0)) // BYTES_PER_SECOND:
            return
        if (self.kept and self._running is None) or self._is_deaf or self.transport.is_closing():
            self.hang_up()
        else:
            detail = f"The request did not arrive within {SECONDS} s, and 1 s more for each {BYTES_PER_SECOND} bytes."
            self._refuse(Refused("request_timeout", detail))

    def give_way(self) -> None:
        """Release what is kept for it."""
        if self._running is None:
            self.hang_up()
        else:
            self._refuse(_TOO_MUCH_KEPT)

    def hang_up(self) -> None:
        """End at once."""
        if self._running is None and self.kept:
            token = current_request_id.set(self.cycle.scope["state"].get("request_id", "-"))
            unsent = self.transport.get_write_buffer_size()
            logger.warning("an answer broke off, %d bytes before its end: too slow, or too many bytes are kept", unsent)
            current_request_id.reset(token)
        self._room.leave(self)
        self.transport.abort()

    # What the parser calls.

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head = self._in_message = True
        self._received = 0
        if self._running is None:
            self.age = 0

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        if len(self.url) > _LONGEST_FIELD:
            raise Refused("malformed", f"The request line has more than {_LONGEST_FIELD} bytes.")

    def on_header(self, name: bytes, value: bytes) -> None:
        # Trailers say nothing, and a name with an underscore could pass for another one.
        if not self._in_head or b"_" in name:
            return
        if len(self.headers) >= _MOST_FIELDS or len(name) + len(value) > _LONGEST_FIELD:
            raise Refused("malformed", f"Over {_MOST_FIELDS} headers, or one of over {_LONGEST_FIELD} bytes.")
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._offers_upgrade = self.parser.should_upgrade()
        if self._offers_upgrade:
            return
        self._check_head()
        super().on_headers_complete()
        if self._is_last:
            self.cycle.keep_alive = False
        if len(self.pipeline) > _MOST_PIPELINED:
            raise Refused("malformed", f"More than {_MOST_PIPELINED} requests came before the first was answered.")

    def on_body(self, body: bytes) -> None:
        self._unparsed = 0
        self._received += len(body)
        self._check_size(self._received)
        if not self._room.keep(self, self.kept + len(body)):
            raise _TOO_MUCH_KEPT
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._in_message = False
        self._unparsed = 0
        if not self._offers_upgrade:
            super().on_message_complete()

    def _check_head(self) -> None:
        headers = dict(self.headers)
        version = self.parser.get_http_version()
        if version == "1.0":
            # Its clients know no answer before the answer.
            self.expect_100_continue = False
        hosts = [value for name, value in self.headers if name == b"host"]
        if not self.url.startswith(b"/"):
            # The target's own host is the one that counts.
            _, separator, rest = self.url.partition(b"://")
            if not separator:
                raise Refused("malformed", "The request's target is neither a path nor a URL.")
            self.headers[:] = [(name, value) for name, value in self.headers if name != b"host"]
            self.headers.append((b"host", rest.partition(b"/")[0].partition(b"?")[0]))
        elif len(hosts) != 1 and (hosts or version != "1.0"):
            raise Refused("malformed", f"The request has {len(hosts)} Host headers; it must have one.")
        if headers.get(b"transfer-encoding", b"chunked").lower() != b"chunked":
            raise Refused("malformed", "The only Transfer-Encoding that is understood is chunked.")
        self._check_size(int(headers.get(b"content-length", 0)))

    def _check_size(self, size: int) -> None:
        if size > (limit := self._room.body_bytes):
            detail = f"The body must have at most {limit} bytes (limit VECTORDB_MAX_BODY_BYTES)."
            raise Refused("body_too_large", detail)

    def _decline_upgrade(self, rest: bytes) -> None:
        """Go on with the `rest` after the head of a request that offers another protocol. A server may ignore that;
        httptools takes it for accepted, and the body for the other protocol's, unless it reads a head without it."""
        method = self.parser.get_method()
        if method == b"CONNECT":
            raise Refused("malformed", "This server is no proxy.")
        lines = [b"%b %b HTTP/%b" % (method, self.url, self.parser.get_http_version().encode())]
        lines += [b"%b: %b" % header for header in self.headers if header[0] != b"upgrade"]
        self.parser = httptools.HttpRequestParser(self)
        self.parser.feed_data(b"\r\n".join([*lines, b"\r\n"]) + rest)

    # The course of a request.

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        self._running = cycle
        self.age = 0
        super()._start_asgi_task(cycle, app)

    def on_response_complete(self) -> None:
        self._running = None
        self.age = self._received = 0
        unsent = self.transport.get_write_buffer_size() if self.flow.write_paused else 0
        if not self._room.keep(self, unsent):
            self.hang_up()
        elif unsent:
            # The next request waits until the client has this answer.
            self.flow.pause_reading()
        else:
            self._go_on()

    def _go_on(self) -> None:
        """What follows an answer."""
        if self.transport.is_closing():
            return
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        elif self._refusal is not None:
            self._say(self._refusal)
        else:
            self.flow.resume_reading()

    def _refuse(self, refused: Refused) -> None:
        """Read nothing more, and say why when what came before is answered."""
        self._is_deaf = self._is_last = True
        if self._running is not None and self._running.more_body:
            # The application waits for the rest of this one.
            self._running.disconnected = True
            self._running.message_event.set()
            self._running.body = bytearray()
            self._running = None
            self._room.keep(self, 0)
        elif self.pipeline and self.pipeline[0][0].more_body:
            self.pipeline.popleft()
        if self._running is not None or self.kept:
            self._refusal = refused
        else:
            self._say(refused)

    def _say(self, refused: Refused) -> None:
        """Answer that a request is refused; hang up when the client has."""
        answer = self.app.refuse(refused)
        headers = [*self.server_state.default_headers, *answer.headers, (b"connection", b"close")]
        lines = [STATUS_LINE[answer.status], *(b"%b: %b\r\n" % header for header in headers), b"\r\n", answer.body]
        self.transport.write(b"".join(lines))
        self.age = self._received = 0
        if self._has_ended:
            self.transport.close()
        else:
            self.transport.write_eof()
            self.flow.resume_reading()


_TOO_MUCH_KEPT = Refused("exhausted", "The server keeps too many bytes of requests and answers. Try again.")
