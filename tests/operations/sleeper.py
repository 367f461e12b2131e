"""An application behind the HTTP edge that does what the query of a request's URL says: sleep for that time, or fail.

It answers which process it is. `/routed` is answered by the route, everything else by the WSGI application, of which
`/length/N` says that the answer has N bytes.
"""

import os
import time
from collections.abc import Callable
from typing import Any

import django

django.setup()

from apps.access.requests import Answer, Principal, Request  # noqa: E402
from apps.access.requests import answer as answer_of  # noqa: E402
from apps.api.errors import refuse  # noqa: E402
from apps.operations.edge.application import Edge  # noqa: E402

THREADS = 2
TIMEOUT = 3


def _obey(query: str) -> bytes:
    if query == "exit":
        raise SystemExit(1)
    if query == "bug":
        raise StopIteration
    time.sleep(float(query or 0))
    return str(os.getpid()).encode()


def _route(request: Request) -> Callable[[Principal], Answer] | None:
    if request.scope["path"] != "/routed":
        return None
    return lambda _: answer_of(200, b"text/plain", _obey(request.scope["query_string"].decode()))


def _wsgi(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
    answer = _obey(environ["QUERY_STRING"])
    _, _, length = environ["PATH_INFO"].partition("/length/")
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", length or str(len(answer)))])
    return [answer]


application = Edge(_wsgi, _route, refuse, threads=THREADS, timeout=TIMEOUT)
