"""A request and its answer as every door of the server has them; how a request gets its id, and is admitted."""

import logging
import random
import re
from collections.abc import Iterable, Mapping
from contextvars import Context, ContextVar
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NamedTuple

from django.conf import settings
from django.http.request import split_domain_port, validate_host

from apps.engine.metadata.filters import Filter
from apps.telemetry.observation import Observation

# Where the environment of WSGI has the id and the principal of a request that the HTTP edge has admitted.
ADMITTED = "vectordb.admitted"
# Where it has the path of a file that holds a body that is too large for memory. Whoever keeps the file moves it.
BODY_FILE = "vectordb.body_file"
ID_HEADER = "X-Request-ID"
# Headers of every response that does not say otherwise. No page needs a script or a style that is not a file of this
# server's own.
FIXED_HEADERS = {
    # Nobody between, nor a browser after the logout, keeps what a key or a session may read.
    "Cache-Control": "no-store",
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
}
if settings.TLS:
    FIXED_HEADERS["Strict-Transport-Security"] = f"max-age={settings.SECURE_HSTS_SECONDS}"
SAFE_METHODS = frozenset(("GET", "HEAD", "OPTIONS", "TRACE"))
_SANE_ID = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")

current_request_id: ContextVar[str] = ContextVar("request_id", default="-")


class RequestIdFilter(logging.Filter):
    """Gives log records the id of the request at hand as `request_id`."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.request_id = current_request_id.get()
        return True


@dataclass(eq=False)
class Refused(Exception):
    """A request that is not let in. `code` is a stable code of the API's errors; `headers` go with the answer."""

    code: str
    detail: str
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks, and what they may.

    Without `scopes` it is nobody: no credential was presented, or none that the request needs. `key_id` is empty for
    users, commands and the server itself. `libraries` holds ids of libraries, and beginnings of ids with an asterisk
    behind; None for all. The limits are the key's own, None for those of the settings. Only search tokens have a
    `filter`, which is ANDed to whatever they ask, and an `include`, which is all that they may read. `proof` is what a
    key or token was checked by, or what the key of a job must reach.
    """

    name: str
    scopes: frozenset[str] = frozenset()
    key_id: str = ""
    libraries: tuple[str, ...] | None = None
    reads_per_minute: int | None = None
    writes_per_minute: int | None = None
    is_search_token: bool = False
    filter: Filter | None = None
    include: tuple[str, ...] | None = None
    proof: Any = field(default=None, repr=False)


# Maintenance, and commands.
SERVER = Principal("server", frozenset(["admin"]))
# Whoever asks a server with VECTORDB_AUTH=off.
ANYONE = Principal("anyone", frozenset(["admin"]))
# Whoever has presented nothing yet.
NOBODY = Principal("nobody")
current_principal: ContextVar[Principal] = ContextVar("principal", default=SERVER)


class Request(NamedTuple):
    """A request that is here whole and was admitted. `scope` is ASGI's; `headers` has lower names;
    `observation` is what is noted about it.

    Without a `principal` Django is to admit it: it may be for a page of another origin, whose browser Django tells so.
    """

    id: str
    principal: Principal | None
    scope: Mapping[str, Any]
    headers: Mapping[bytes, bytes]
    body: bytes
    observation: Observation


class Streamed(NamedTuple):
    """A body that is made while it is sent: an iterable, and the context of the request, to iterate in."""

    parts: Iterable[bytes]
    context: Context


class Answer(NamedTuple):
    """A response: whole, or but for a body that is streamed."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes | Streamed


_FIXED_HEADERS = [(name.lower().encode(), value.encode()) for name, value in FIXED_HEADERS.items()]


def identify(given: str) -> str:
    """Return the id that the client gave its request if it is a sane one, else a new one. Log lines carry it."""
    # No secret; and the system's random numbers would give up the interpreter's lock.
    request_id = given if _SANE_ID.fullmatch(given) else f"{random.getrandbits(128):032x}"
    current_request_id.set(request_id)
    return request_id


def answer(status: int, content_type: bytes, body: bytes, **headers: str) -> Answer:
    """Return the answer to the request at hand, with the headers of every response."""
    own = [
        (b"content-type", content_type),
        (b"content-length", b"%d" % len(body)),
        (b"x-request-id", current_request_id.get().encode()),
    ]
    own += [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    return Answer(status, own + _FIXED_HEADERS, body)


def admit(method: str, host: str, *, site: str, origin: str) -> Principal:
    """Return who asks, as long as no credential was looked at. Raise Refused for a host that is not served here, and
    for a change that a foreign page asks for.

    `site` and `origin` are the headers Sec-Fetch-Site and Origin, empty where absent: browsers send them, and no page
    can forge them. Pages of VECTORDB_CORS_ORIGINS may ask for changes. The check of the host keeps web pages away, too:
    a page whose name was rebound to a loopback address could otherwise read and delete everything.
    """
    if not _is_served(host):
        raise Refused(
            "host_not_allowed", f"The request's Host header, {host[:100]!r}, is not among VECTORDB_ALLOWED_HOSTS."
        )
    if method not in SAFE_METHODS and origin.lower() not in settings.CORS_ALLOWED_ORIGINS:
        if site and site not in ("same-origin", "none"):
            raise Refused(
                "forbidden", f"A page of another origin may not change anything here (Sec-Fetch-Site: {site})."
            )
        if origin and origin.partition("://")[2].lower() != host.lower():
            raise Refused("forbidden", f"A page of the origin {origin} may not change anything at {host}.")
    return NOBODY if settings.AUTH else ANYONE


@lru_cache(maxsize=256)
def _is_served(host: str) -> bool:
    domain, _ = split_domain_port(host)
    return bool(domain) and validate_host(domain, settings.ALLOWED_HOSTS)
