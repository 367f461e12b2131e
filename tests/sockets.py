"""Clients byte by byte, for what an HTTP client would not do."""

import socket
from contextlib import ExitStack
from http.client import HTTPResponse

import httpx

from tests.server import Server

JSON_HEAD = b"POST /api/v1/libraries HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


def connect(server: Server, stack: ExitStack, sent: bytes = b"") -> socket.socket:
    """A client that has sent something; closed with `stack`."""
    connection = stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=60))
    connection.sendall(sent)
    return connection


def read_response(connection: socket.socket, method: str = "GET") -> httpx.Response:
    """The next response, and nothing behind it."""
    response = HTTPResponse(connection, method=method)
    # Its own reader would take what follows, too.
    response.fp = connection.makefile("rb", buffering=0)
    response.begin()
    body = bytearray()
    while len(body) < (response.length or 0) and (piece := response.fp.read(response.length - len(body))):
        body += piece
    return httpx.Response(response.status, headers=response.getheaders(), content=bytes(body))


def read_all(connection: socket.socket) -> bytes:
    """All that comes until the other side hangs up."""
    pieces = []
    while piece := connection.recv(1 << 16):
        pieces.append(piece)
    return b"".join(pieces)


def is_open(connection: socket.socket) -> bool:
    """Whether the server has neither hung up nor sent anything."""
    connection.setblocking(False)
    try:
        return not connection.recv(1, socket.MSG_PEEK) and False
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        connection.settimeout(60)
