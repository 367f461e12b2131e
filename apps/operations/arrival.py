"""How much of an HTTP request has arrived.

Only where it ends is looked at; what it says is gunicorn's to read and refuse. A request that makes no sense counts as
whole, and so does one whose body will be refused for its size: there is nothing to wait for.
"""

import re

_END = b"\r\n\r\n"
# Past these gunicorn refuses, in the default of its settings.
_LONGEST_HEAD = 1 << 20
_LONGEST_LINE = 1 << 13
# How much of a chunked body over the limit is there when it is handled: who reads it by blocks sees the limit passed.
_MORE_THAN_A_BLOCK = 1 << 17

_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d{1,18})[ \t]*\r\n", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding:[^\r\n]*chunked", re.IGNORECASE)
_CONTINUE = re.compile(rb"\r\nexpect:[ \t]*100-continue", re.IGNORECASE)
_CHUNK_SIZE = re.compile(rb"[0-9a-fA-F]+")


class Arrival:
    """The bytes of a request so far; `waits_for_continue` once its client sends no body before it is told to."""

    def __init__(self, most_bytes: int) -> None:
        self.data = bytearray()
        self.waits_for_continue = False
        self._most_bytes = most_bytes
        self._head_is_whole = False
        self._is_chunked = False
        # Where the body ends; of a chunked one, where the next chunk begins.
        self._place = 0
        self._in_chunks = 0

    def add(self, piece: bytes) -> bool:
        """Whether the request is whole with `piece`."""
        start = max(0, len(self.data) - len(_END) + 1)
        self.data += piece
        if not self._head_is_whole:
            end = self.data.find(_END, start)
            if end < 0:
                return len(self.data) > _LONGEST_HEAD
            self._read_head(end)
        return self._has_last_chunk() if self._is_chunked else len(self.data) >= self._place

    def _read_head(self, end: int) -> None:
        head = self.data[: end + 2]
        self._head_is_whole = True
        self._place = end + len(_END)
        self._is_chunked = _CHUNKED.search(head) is not None
        length = _LENGTH.search(head)
        if length is not None and not self._is_chunked and int(length[1]) <= self._most_bytes:
            self._place += int(length[1])
        has_body = self._is_chunked or self._place > end + len(_END)
        self.waits_for_continue = has_body and _CONTINUE.search(head) is not None

    def _has_last_chunk(self) -> bool:
        while True:
            line_end = self.data.find(b"\r\n", self._place, self._place + _LONGEST_LINE)
            if line_end < 0:
                return len(self.data) - self._place >= _LONGEST_LINE
            digits = _CHUNK_SIZE.match(self.data, self._place)
            if digits is None:
                return True
            size = int(digits[0], 16)
            if size == 0:
                # Trailers may follow.
                return self.data.find(_END, line_end) >= 0 or len(self.data) - line_end > _LONGEST_HEAD
            start = line_end + 2
            here = min(size, len(self.data) - start)
            if self._in_chunks + here > self._most_bytes + _MORE_THAN_A_BLOCK:
                return True
            if len(self.data) < start + size + 2:
                return False
            self._in_chunks += size
            self._place = start + size + 2
