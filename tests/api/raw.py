"""Requests byte by byte, for what an HTTP client would not send."""

import socket
from http.client import HTTPResponse

import httpx

from tests.server import Server


def exchange(server: Server, request: bytes, method: str = "GET", *, half_closed: bool = False) -> httpx.Response:
    """The response to `request`, which gets the admin key. `half_closed` ends the sending side after it, as a client
    that breaks off does."""
    [(name, value)] = server.authorization.items()
    request = request.replace(b"\r\nHost: ", f"\r\n{name}: {value}\r\nHost: ".encode(), 1)
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        connection.sendall(request)
        if half_closed:
            connection.shutdown(socket.SHUT_WR)
        response = HTTPResponse(connection, method=method)
        response.begin()
        body = response.read()
        # The body was decoded already.
        headers = [(name, value) for name, value in response.getheaders() if name != "Transfer-Encoding"]
        return httpx.Response(response.status, headers=headers, content=body)
