"""How much of an HTTP request has arrived, and what it says where it is a usual one.

llhttp, the parser of Node.js, finds where a request ends (package httptools, some two microseconds a request). What it
cannot read is gunicorn's to refuse: it counts as whole, and so does a request whose body will be refused for its size:
there is nothing to wait for.
"""

import io
from typing import Any

import httptools

# Past this gunicorn refuses a head, in the default of its settings.
_LONGEST_HEAD = 1 << 20
# How much of a chunked body over the limit is there when it is handled: who reads it by blocks sees the limit passed.
_MORE_THAN_A_BLOCK = 1 << 17
_WITHOUT_PREFIX = frozenset(["CONTENT_TYPE", "CONTENT_LENGTH"])


class Arrival:
    """The bytes of a request so far; `waits_for_continue` once its client sends no body before it is told to.

    What counts as whole `is_complete` too, unless it is to be refused."""

    def __init__(self, most_bytes: int) -> None:
        self.data = bytearray()
        self.waits_for_continue = False
        self._most_bytes = most_bytes
        self._url = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._head_is_whole = False
        self._in_body = 0
        self._is_too_large = False
        self.is_complete = False
        self._offers_upgrade = False
        self._parser = httptools.HttpRequestParser(self)

    def add(self, piece: bytes) -> bool:
        """Whether the request is whole with `piece`."""
        self.data += piece
        try:
            try:
                self._parser.feed_data(piece)
            except httptools.HttpParserUpgrade as stop:
                if not self._offers_upgrade:
                    return True
                self._decline_upgrade(piece[stop.args[0] :])
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            # What follows a complete request is refused too, and read by nobody.
            return True
        return self.is_complete or self._is_too_large or not (self._head_is_whole or len(self.data) <= _LONGEST_HEAD)

    def environ(self) -> dict[str, Any] | None:
        """What WSGI's environment says of the request itself, if it is complete and plain: of HTTP/1.1, its body not in
        chunks, no header twice, none whose name has an underscore."""
        if not self.is_complete or self._parser.get_http_version() != "1.1":
            return None
        path, _, query = self._url.decode("latin-1").partition("?")
        environ: dict[str, Any] = {"PATH_INFO": path, "QUERY_STRING": query}
        environ["REQUEST_METHOD"] = self._parser.get_method().decode("latin-1")
        for name, value in self._headers:
            variable = name.decode("latin-1").upper().replace("-", "_")
            variable = variable if variable in _WITHOUT_PREFIX else f"HTTP_{variable}"
            if variable in environ or b"_" in name:
                return None
            environ[variable] = value.decode("latin-1")
        body = memoryview(self.data)[self.data.find(b"\r\n\r\n") + 4 :]
        if len(body) != self._in_body or "HTTP_TRANSFER_ENCODING" in environ:
            return None
        environ["wsgi.input"] = io.BytesIO(body)
        return environ

    def _decline_upgrade(self, rest: bytes) -> None:
        """Go on with the `rest` after the head of a request that offers another protocol. A server may pass that over;
        llhttp takes it for accepted, and the body for the other protocol's, unless it is read after a head without."""
        lines = [b"%b %b HTTP/%b" % (self._parser.get_method(), self._url, self._parser.get_http_version().encode())]
        lines += [b"%b: %b" % header for header in self._headers if header[0].lower() != b"upgrade"]
        self._url = b""
        self._headers = []
        self.is_complete = False
        self._parser = httptools.HttpRequestParser(self)
        self._parser.feed_data(b"\r\n".join([*lines, b"\r\n"]) + rest)

    # What the parser calls.

    def on_url(self, part: bytes) -> None:
        self._url += part

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        self._head_is_whole = True
        # Not where it is another request, which follows the first.
        self._offers_upgrade = not self.is_complete and self._parser.should_upgrade()
        headers = {name.lower(): value for name, value in self._headers}
        length = int(headers.get(b"content-length", 0))
        self._is_too_large = length > self._most_bytes
        has_body = length > 0 or b"transfer-encoding" in headers
        expects = headers.get(b"expect", b"").lower().startswith(b"100-continue")
        # A client of HTTP/1.0 knows no answer before the answer.
        expects = expects and self._parser.get_http_version() != "1.0"
        self.waits_for_continue = expects and has_body and not self._is_too_large

    def on_body(self, part: bytes) -> None:
        self._in_body += len(part)
        self._is_too_large |= self._in_body > self._most_bytes + _MORE_THAN_A_BLOCK

    def on_message_complete(self) -> None:
        self.is_complete = True
