"""Connections of clients: uvicorn's, within limits of bytes and time, and with problem documents for what is no HTTP.

uvicorn's protocol on httptools has no limit on a head, none on the time of a slow client, and no end for trailers. A
request is started when it is here whole; those that a client sends ahead wait in uvicorn's `pipeline`, oldest last. At
any time a connection is in one of these states, each with its own deadline:

IDLE        No request has begun. At the deadline the connection ends.
RECEIVING   A request has begun, and all before it are answered. At the deadline it is refused.
ANSWERING   A thread answers a request. There is no deadline here: threads have their own.
DELIVERING  The client has not taken its answer yet, so nothing is read from it. At the deadline the answer breaks off.
REFUSED     A request was refused, and the client was told so. What it sends is thrown away until it hangs up: to hang
            up before would break the answer that it has not read. At the deadline the connection ends.
"""

import logging
import socket
import struct
from collections.abc import Callable, Collection
from dataclasses import dataclass
from enum import Enum
from functools import partial
from math import inf
from time import monotonic
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from apps.access.forwarding import address_of
from apps.access.requests import Answer, Refused, current_request_id
from apps.operations.edge.uploads import Upload, is_import

logger = logging.getLogger(__name__)

State = Enum("State", ["IDLE", "RECEIVING", "ANSWERING", "DELIVERING", "REFUSED"])
# Seconds from entering a state to its deadline. Each _BYTES_PER_SECOND of a body or an answer add a second.
_SECONDS = {State.IDLE: 30, State.RECEIVING: 10, State.ANSWERING: inf, State.DELIVERING: 10, State.REFUSED: 30}
_BYTES_PER_SECOND = 1 << 14
# What an idle client has at the end of the worker: a request may be on its way, and a hang-up would fail it.
_SECONDS_TO_LEAVE = 3
_LONGEST_FIELD = 8190
_MOST_HEADERS = 100
# Bytes that may come without a byte of a body among them: a head, trailers, extensions of a chunk.
_LONGEST_HEAD = 1 << 16
# Requests that a client may send before it has the answer to the first.
_MOST_PIPELINED = 64
_TOO_MUCH_KEPT = Refused("exhausted", "The server keeps too many bytes of requests and answers. Try again.")
_TOO_SLOW = Refused("request_timeout", "The request did not arrive within 10 s, and 1 s more for each 16,384 bytes.")


@dataclass
class Room:
    """What the connections of a worker may take up together. Those with the earliest deadlines give way when it is too
    much. `kept_bytes` are of bodies and answers, but not of bodies that go to files, of `import_bytes` at most.
    `tell_connections` is told how many there are."""

    connections: int
    kept_bytes: int
    body_bytes: int
    import_bytes: int
    tell_connections: Callable[[int], None]
    _uncounted: int = 0

    def keep(self, size: int, connections: "Collection[Connection]") -> None:
        """Find room for `size` bytes more. All are counted once a megabyte."""
        self._uncounted += size
        if self._uncounted < 1 << 20:
            return
        self._uncounted = 0
        excess = sum(one.kept for one in connections) - self.kept_bytes
        for one in sorted(connections, key=lambda one: one.deadline):
            if excess > 0 and one.kept and one.state is not State.ANSWERING:
                excess -= one.kept
                one.give_way(_TOO_MUCH_KEPT)


class Connection(HttpToolsProtocol):
    """A client's connection."""

    def __init__(self, *args: Any, room: Room, **options: Any) -> None:
        super().__init__(*args, **options)
        self._room = room
        # Bytes since the last one of a body, or since the last request.
        self._unparsed = 0
        # The request that is answered, or was the last one.
        self._running: Any = None
        # Of it, and of its answer.
        self._body_bytes = self._unsent = 0
        self._unsent_id = "-"
        # The body of an import that goes to a file, until its request is answered.
        self._upload: Upload | None = None
        # Takes no request but one that is on its way.
        self._is_last = False
        # Why nothing is read any more. It is said when what came before is answered.
        self._refusal: Exception | None = None
        self._enter(State.IDLE)

    def _enter(self, state: State) -> None:
        self.state = state
        self.deadline = monotonic() + _SECONDS[state]

    @property
    def kept(self) -> int:
        """Bytes of bodies and of what is unsent."""
        waiting = sum(len(cycle.body) for cycle, _ in self.pipeline)
        return waiting + self._body_bytes + self.transport.get_write_buffer_size()

    # What the transport and the server call.

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._room.tell_connections(len(self.connections))
        if len(self.connections) > self._room.connections:
            min(self.connections, key=lambda one: one.deadline).hang_up()  # type: ignore[union-attr]

    def connection_lost(self, exc: Exception | None) -> None:
        # uvicorn tells the latest request that its client is gone; the one that is answered must know.
        self.cycle = self._running
        super().connection_lost(exc)
        self._room.tell_connections(len(self.connections))
        # They refer to this connection, and so their bodies would stay until the garbage collector comes.
        self.pipeline.clear()
        self.cycle = None  # type: ignore[assignment]
        self._discard_upload()

    def data_received(self, data: bytes) -> None:
        if self._refusal is not None:
            return
        self._unparsed += len(data)
        try:
            while True:
                try:
                    self.parser.feed_data(data)
                    break
                except httptools.HttpParserUpgrade as stop:
                    data = self._head_without_upgrade() + data[stop.args[0] :]
                    self.parser = httptools.HttpRequestParser(self)
        except httptools.HttpParserError as error:
            cause = error.__context__
            self._refuse(cause if isinstance(cause, Refused) else Refused("malformed", f"This is no HTTP: {error}."))
        if self._unparsed > _LONGEST_HEAD and self._refusal is None:
            what = "The head, or what stands beside the body,"
            self._refuse(Refused("malformed", f"{what} has more than {_LONGEST_HEAD} bytes."))

    def eof_received(self) -> bool:  # type: ignore[override]
        """Return whether there is still something to answer; otherwise the connection ends."""
        is_complete = self._upload is not None and self._upload.has_ended
        if not is_complete and (self.state is State.RECEIVING or (self.pipeline and self.pipeline[0][0].more_body)):
            self._refuse(Refused("malformed", "The request broke off before its end."))
        self._is_last = True
        return self.state is State.ANSWERING or bool(self.pipeline)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self.state is State.DELIVERING:
            self._go_on()

    def shutdown(self) -> None:
        if self._is_last:
            return
        self._is_last = True
        if self.state is State.IDLE:
            self.deadline = monotonic() + _SECONDS_TO_LEAVE
        elif self.cycle is not None:
            self.cycle.keep_alive = False

    def tick(self) -> None:
        """End what takes too long; called every second."""
        if self.state is State.DELIVERING:
            taken = self._unsent - self.transport.get_write_buffer_size()
            self._unsent -= taken
            self.deadline += taken / _BYTES_PER_SECOND
        if monotonic() > self.deadline:
            self.give_way(_TOO_SLOW)

    def give_way(self, refused: Refused) -> None:
        """Release what is kept for this connection."""
        if self.state is State.RECEIVING:
            self._refuse(refused)
        else:
            self.hang_up()

    def hang_up(self) -> None:
        """End at once."""
        if self.state is State.DELIVERING and (unsent := self.transport.get_write_buffer_size()):
            token = current_request_id.set(self._unsent_id)
            logger.warning("an answer broke off, %d bytes before its end: too slow, or too many bytes are kept", unsent)
            current_request_id.reset(token)
        self.transport.abort()

    def _break_off(self) -> None:
        """End in the middle of an answer, by a reset: a client of HTTP/1.0 takes a mere end for that of the answer."""
        self._running.disconnected = True
        if (raw := self.transport.get_extra_info("socket")) is not None:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()

    # What the parser calls.

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["state"] |= {
            "is_gone": self.transport.is_closing,
            "break_off": self._break_off,
            "send_whole": self._send_whole,
        }
        if self.state is State.IDLE:
            self._enter(State.RECEIVING)

    def on_header(self, name: bytes, value: bytes) -> None:
        if len(self.headers) >= _MOST_HEADERS:
            raise Refused("malformed", f"The request has more than {_MOST_HEADERS} headers.")
        if len(name) + len(value) > _LONGEST_FIELD:
            raise Refused("malformed", f"A header has more than {_LONGEST_FIELD} bytes.")
        # A name with an underscore could pass for another one.
        if b"_" not in name:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._check_head()
        if self.parser.should_upgrade():
            return
        super().on_headers_complete()
        # What follows are trailers, which are no headers.
        self.headers = []
        self.cycle.keep_alive = self.cycle.keep_alive and not self._is_last
        if len(self.pipeline) > _MOST_PIPELINED:
            raise Refused("malformed", f"More than {_MOST_PIPELINED} requests came before the first was answered.")
        if self._is_upload():
            self._start_upload()
        elif self.state is State.RECEIVING:
            self._go_on()

    def on_body(self, body: bytes) -> None:
        if self._refusal is not None:
            return
        self._unparsed = 0
        self.deadline += len(body) / _BYTES_PER_SECOND
        if self._upload is not None and not self._upload.has_ended:
            self._check_size(self._upload.size + len(body))
            self._upload.add(body)
            return
        self._check_size(len(self.cycle.body) + len(body))
        self.cycle.body += body
        if self.state is not State.RECEIVING:
            self.flow.pause_reading()
        self._room.keep(len(body), self.connections)  # type: ignore[arg-type]

    def on_message_complete(self) -> None:
        if self.parser.should_upgrade():
            return
        self._unparsed = 0
        if self._upload is not None and not self._upload.has_ended:
            self._upload.end()
            return
        super().on_message_complete()
        if self.state is State.RECEIVING:
            self._go_on()

    def _check_head(self) -> None:
        if len(self.url) > _LONGEST_FIELD:
            raise Refused("malformed", f"The request line has more than {_LONGEST_FIELD} bytes.")
        is_1_0 = self.parser.get_http_version() == "1.0"
        if is_1_0:
            # Its clients know no answer before the answer.
            self.expect_100_continue = False
        hosts = [value for name, value in self.headers if name == b"host"]
        if len(hosts) != 1 and (hosts or not is_1_0):
            raise Refused("malformed", f"The request has {len(hosts)} Host headers; it must have one.")
        if not self.url.startswith(b"/"):
            # The target's own host is the one that counts.
            _, separator, target = self.url.partition(b"://")
            if not separator:
                raise Refused("malformed", "The request's target is neither a path nor a URL.")
            host, _, path = target.partition(b"/")
            self.url = b"/" + path
            self.headers[:] = [*(header for header in self.headers if header[0] != b"host"), (b"host", host)]
        if any(name == b"transfer-encoding" and value.lower() != b"chunked" for name, value in self.headers):
            raise Refused("malformed", "The only Transfer-Encoding that is understood is chunked.")
        self._check_size(self._content_length)

    @property
    def _content_length(self) -> int:
        return int(dict(self.scope["headers"]).get(b"content-length", 0))

    def _check_size(self, size: int) -> None:
        limit, name = self._room.body_bytes, "VECTORDB_MAX_BODY_BYTES"
        if size > limit and is_import(self.parser.get_method(), self.url):
            limit, name = self._room.import_bytes, "VECTORDB_MAX_IMPORT_BYTES"
        if size > limit:
            raise Refused("body_too_large", f"The body must have at most {limit} bytes (limit {name}).")

    # The body of an import.

    def _is_upload(self) -> bool:
        """Whether the request whose head is here has a body that may be too large for memory."""
        if not is_import(self.parser.get_method(), self.url):
            return False
        is_chunked = any(name == b"transfer-encoding" for name, _ in self.scope["headers"])
        return is_chunked or self._content_length > self._room.body_bytes

    def _start_upload(self) -> None:
        if self.state is not State.RECEIVING:
            raise Refused("malformed", "A large import must be sent when what was sent before it is answered.")
        cycle, scope = self.cycle, self.scope
        self._upload = upload = Upload(self.flow.pause_reading, self._read_upload)

        def start() -> None:
            scope["state"] |= {"body_file": upload.path, "body_size": upload.size}
            cycle.more_body = False
            cycle.message_event.set()
            self._go_on()

        def refuse(error: Exception) -> None:
            self.pipeline.clear()
            self._refuse(error)

        upload.start(partial(self.app.admit_upload, scope), start, refuse)

    def _read_upload(self) -> None:
        """Read on, once the body is let in, and whenever there is room."""
        if self._upload is not None and self.pipeline:
            cycle = self.pipeline[-1][0]
            if cycle.waiting_for_100_continue:
                self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                cycle.waiting_for_100_continue = False
            self.flow.resume_reading()

    def _discard_upload(self) -> None:
        if self._upload is not None:
            self._upload.discard()
            self._upload = None

    def _head_without_upgrade(self) -> bytes:
        """The head of a request that offers another protocol, without the offer. A server may ignore that; httptools
        takes it for accepted, and what follows the head for the other protocol's."""
        lines = [b"%b %b HTTP/%b" % (self.parser.get_method(), self.url, self.parser.get_http_version().encode())]
        lines += [b"%b: %b" % header for header in self.headers if header[0] != b"upgrade"]
        return b"\r\n".join([*lines, b"\r\n"])

    # The course of a request.

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        """Where uvicorn would start a request whose head is here, wait for the rest."""
        self.pipeline.appendleft((cycle, app))

    def _send_whole(self, answer: Answer) -> None:
        """Send the whole answer to the request that runs. uvicorn would take two messages for it, and look through each
        header twice."""
        cycle = self._running
        if cycle.disconnected:
            return
        cycle.response_started = cycle.response_complete = True
        self._write(answer, has_body=cycle.scope["method"] != "HEAD", is_last=not cycle.keep_alive)
        if not cycle.keep_alive:
            self.transport.close()
        cycle.on_response()

    def _write(self, answer: Answer, *, has_body: bool, is_last: bool) -> None:
        assert isinstance(answer.body, bytes)
        headers = [*self.server_state.default_headers, *answer.headers]
        if is_last:
            headers.append((b"connection", b"close"))
        lines = [STATUS_LINE[answer.status], *[b"%b: %b\r\n" % header for header in headers], b"\r\n"]
        self.transport.write(b"".join([*lines, answer.body] if has_body else lines))

    def on_response_complete(self) -> None:
        self._body_bytes = 0
        if not self.flow.write_paused and not self.transport.is_closing():
            self._go_on()
            return
        self._enter(State.DELIVERING)
        self.flow.pause_reading()
        self._unsent, self._unsent_id = self.transport.get_write_buffer_size(), current_request_id.get()
        self._room.keep(self._unsent, self.connections)  # type: ignore[arg-type]

    def _go_on(self) -> None:
        """Begin with what is next."""
        if self.transport.is_closing():
            return
        if self.pipeline and not self.pipeline[-1][0].more_body:
            self._enter(State.ANSWERING)
            self._running, app = self.pipeline.pop()
            # Its file is the application's from here on.
            self._upload = None
            self._body_bytes = len(self._running.body)
            super()._start_asgi_task(self._running, app)
        elif self.pipeline:
            self._enter(State.RECEIVING)
            self.flow.resume_reading()
            if self.cycle.waiting_for_100_continue:
                self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                self.cycle.waiting_for_100_continue = False
        elif self._refusal is not None:
            self._tell_refusal(self._refusal)
        elif self._is_last:
            self.transport.close()
        else:
            self._enter(State.IDLE)
            self.flow.resume_reading()

    def _refuse(self, why: Exception) -> None:
        """Read nothing more, and say why when what came before is answered."""
        self._refusal = why
        self._discard_upload()
        if self.pipeline and self.pipeline[0][0].more_body:
            self.pipeline.popleft()[0].body.clear()
        if self.state in (State.IDLE, State.RECEIVING):
            self._go_on()

    def _tell_refusal(self, why: Exception) -> None:
        peer = self.client[0] if self.client is not None else ""
        address = address_of(peer, () if self.scope is None else self.scope["headers"])
        self._write(self.app.refuse(why, address), has_body=True, is_last=True)
        self.transport.write_eof()
        self._enter(State.REFUSED)
        self.flow.resume_reading()
