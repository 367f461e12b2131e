"""The ASGI application around the WSGI one: takes a request whole, has a thread answer it, logs it and counts it."""

import asyncio
import logging
import shutil
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from contextvars import copy_context
from dataclasses import dataclass
from functools import cached_property, partial
from io import BytesIO
from typing import Any, TypeAlias

from asgiref.wsgi import WsgiToAsgiInstance
from django.conf import settings
from django.db import connections

from apps.access.authentication import ReadRows, recognize
from apps.access.authorization import authorize
from apps.access.forwarding import apply_forwarding
from apps.access.guard_rails import check_room
from apps.access.limits import admitted
from apps.access.requests import (
    ADMITTED,
    BODY_FILE,
    NOBODY,
    Answer,
    Principal,
    Refused,
    Request,
    Streamed,
    admit,
    answer,
    current_principal,
    current_request_id,
    identify,
)
from apps.operations.edge.notes import Notes, Outcome
from apps.operations.edge.streams import BrokenOff, PartsUntil, Streams, close
from apps.operations.edge.threads import Threads
from apps.search.snapshots import SnapshotAtHand, read_rows
from apps.telemetry.observation import Observation, current_observation
from apps.telemetry.trace import parse_trace

logger = logging.getLogger(__name__)

# Of a request that the edge answers itself, what answers it to whoever asks.
Route: TypeAlias = Callable[[Request], Callable[[Principal], Answer] | None]
# Nobody gets it; it is counted.
_GONE = Answer(499, [], b"")
_WITHOUT_BODY = (204, 304)
# Streamed answers of a worker. Each holds a snapshot, and takes its share of the processor from queries.
_MOST_STREAMS = 2
_LATER = {"Retry-After": "30"}
_TOO_MANY_STREAMS = Refused(
    "exhausted", f"This worker sends {_MOST_STREAMS} exports already. Try again.", {"Retry-After": "10"}
)


@dataclass(eq=False)
class Edge:
    """Answers by `route` the requests that it knows, and by the application `wsgi` all others.

    `explain` makes the answer to an exception. A request may run for `timeout` seconds in one of `threads`.
    """

    wsgi: Callable[..., Iterable[bytes]]
    route: Route
    explain: Callable[[BaseException], Answer]
    threads: int
    timeout: float

    @cached_property
    def threads_running(self) -> Threads:
        """The threads, which are started when they are first asked for."""
        return Threads(self.threads, self._run)

    @cached_property
    def _streams(self) -> Streams:
        return Streams(_MOST_STREAMS, self.timeout)

    @cached_property
    def _notes(self) -> Notes:
        return Notes()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer a request whose body is here whole."""
        began = time.perf_counter()
        body = (await receive()).get("body", b"")
        apply_forwarding(scope)
        headers = dict(scope["headers"])
        request_id = identify(headers.get(b"x-request-id", b"").decode("latin-1"))
        observation = Observation()
        if b"traceparent" in headers:
            parent, state = (headers.get(name, b"").decode("latin-1") for name in (b"traceparent", b"tracestate"))
            observation.trace = parse_trace(parent, state)
        current_observation.set(observation)
        try:
            is_cross_origin = bool(settings.CORS_ALLOWED_ORIGINS) and b"origin" in headers
            principal = None if is_cross_origin else _admit(scope, headers)
            if principal and scope["path"] == "/health" and scope["method"] in ("GET", "HEAD"):
                # In the loop, so that it is answered while all threads are busy.
                reply, observation.route = answer(200, b"application/json", b'{"status":"ok"}'), "/health"
            else:
                reply = await self.threads_running.run(
                    Request(request_id, principal, scope, headers, body, observation)
                )
        except Refused as refused:
            reply = self.explain(refused)
        except asyncio.CancelledError:
            reply = self.explain(Refused("exhausted", "The server stops. Send the request again."))
        finally:
            if "body_file" in scope["state"]:
                # Whoever keeps it has moved it.
                scope["state"]["body_file"].unlink(missing_ok=True)
        received = scope["state"].get("body_size", len(body))
        del body
        if observation.trace is not None:
            # Of the draft of the standard's next level; version 1 tells the client nothing.
            reply = reply._replace(headers=[*reply.headers, (b"traceresponse", observation.trace.parent.encode())])
        if isinstance(reply.body, Streamed) and (scope["method"] == "HEAD" or self._streams.is_full):
            close(reply.body.parts)
            reply = reply._replace(body=b"") if scope["method"] == "HEAD" else self.explain(_TOO_MANY_STREAMS)
        if isinstance(reply.body, Streamed):
            status, sent = await self._stream(reply, reply.body, scope, send)
        else:
            scope["state"]["send_whole"](reply)
            status, sent = reply.status, len(reply.body)
        outcome = Outcome(status, received, sent)
        seconds = time.perf_counter() - began
        self._notes.take(observation, request_id, scope["client"][0], scope["method"], outcome, seconds)

    async def _stream(self, reply: Answer, streamed: Streamed, scope: Any, send: Any) -> tuple[int, int]:
        """Send an answer whose body is `streamed`. Return the status to be noted, and the number of bytes."""
        await send({"type": "http.response.start", "status": reply.status, "headers": reply.headers})
        sent = 0

        async def send_part(part: bytes) -> None:
            nonlocal sent
            await send({"type": "http.response.body", "body": part, "more_body": True})
            sent += len(part)

        try:
            await self._streams.send(streamed, send_part, scope["state"]["is_gone"])
        except BrokenOff as error:
            logger.warning("an answer broke off after %d bytes: %s", sent, error)
            # Without an end, so that nobody takes it for whole.
            scope["state"]["break_off"]()
            return error.status, sent
        await send({"type": "http.response.body", "body": b""})
        return reply.status, sent

    async def admit_upload(self, scope: Any) -> None:
        """Return if a body may be written to the disk whose request has no more than a head yet. Raise Refused."""
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, copy_context().run, _admit_upload, scope)

    def refuse(self, why: Exception, address: str) -> Answer:
        """Return the answer to a request of the client at `address` that could not be received."""
        request_id = identify("")
        reply = self.explain(why)
        self._notes.take(Observation(), request_id, address, "", Outcome(reply.status, 0, len(reply.body)), 0)
        return reply

    def answer_overdue(self) -> bool:
        """Answer the requests that run for too long; return whether there are any, and so this worker is to end."""
        overdue = self.threads_running.overdue(self.timeout)
        for request, future in overdue:
            if not future.done():
                current_request_id.set(request.id)
                logger.warning("a request took longer than %g s; its worker ends", self.timeout)
                detail = f"The request took longer than VECTORDB_REQUEST_TIMEOUT, {self.timeout:g} s."
                future.set_result(self.explain(Refused("internal_error", detail)))
        return bool(overdue)

    def _run(self, request: Request) -> Answer:
        """In a thread."""
        if request.scope["state"]["is_gone"]():
            return _GONE
        current_request_id.set(request.id)
        current_observation.set(request.observation)
        try:
            # What Django admits is within its limits there.
            if request.principal is None:
                return self._run_wsgi(request)
            # Not whoever this thread's last request was of.
            current_principal.set(request.principal)
            if (own := self.route(request)) is not None:
                with SnapshotAtHand() as rows:
                    principal = _recognize(request.scope, request.headers, request.principal, rows)
                    # Whoever has no key may have a session, which Django looks after.
                    if principal is not NOBODY:
                        return _answer_admitted(request, principal, partial(own, principal))
            principal = _recognize(request.scope, request.headers, request.principal, read_rows)
            run = partial(self._run_wsgi, request._replace(principal=principal))
            return _answer_admitted(request, principal, run)
        except BaseException as error:
            return self.explain(error)

    def _run_wsgi(self, request: Request) -> Answer:
        translation: Any = WsgiToAsgiInstance(self.wsgi)  # type: ignore[no-untyped-call]
        translation.scope = request.scope
        stream = BytesIO(request.body)
        environ = translation.build_environ(request.scope, stream)
        # The body is here, however it came.
        environ.pop("HTTP_TRANSFER_ENCODING", None)
        environ |= {"CONTENT_LENGTH": str(len(request.body)), ADMITTED: (request.id, request.principal)}
        if "body_file" in request.scope["state"]:
            environ[BODY_FILE] = request.scope["state"]["body_file"]
        started: list[Any] = []
        parts: Any = self.wsgi(environ, lambda status, headers, *_: started.append((status, headers)))
        status, headers = started[-1]
        code = int(status[:3])
        encoded = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers]
        body: bytes | Streamed
        if code in _WITHOUT_BODY or any(name == b"content-length" for name, _ in encoded):
            try:
                body = b"".join(parts)
            finally:
                close(parts)
            if code not in _WITHOUT_BODY and request.scope["method"] != "HEAD":
                # A file's is from when the server started, and another length would be a part of the next answer.
                encoded = [header for header in encoded if header[0] != b"content-length"]
                encoded.append((b"content-length", b"%d" % len(body)))
        else:
            body = Streamed(parts, copy_context())
        # What refers to it may wait for the garbage collector; the body must not.
        stream.close()
        return Answer(code, encoded, body)


def _answer_admitted(request: Request, principal: Principal, run: Callable[[], Answer]) -> Answer:
    """Answer a request within the limits of whoever asks. Raise Refused, and what `run` raises."""
    request.observation.key = principal.key_id or principal.name
    scope = request.scope
    with ExitStack() as running:
        headers = running.enter_context(admitted(principal, scope["client"][0], scope["method"], scope["path"]))
        reply = run()
        if isinstance(reply.body, Streamed):
            # It runs until its client has it.
            until_sent = PartsUntil(reply.body.parts, running.pop_all().close)
            reply = reply._replace(body=reply.body._replace(parts=until_sent))
    reply.headers.extend((name.lower().encode(), value.encode()) for name, value in headers.items())
    return reply


def _admit(scope: Mapping[str, Any], headers: Mapping[bytes, bytes]) -> Principal:
    # Only HTTP/1.0 has requests without a host.
    host = headers[b"host"].decode("latin-1") if b"host" in headers else scope["server"][0]
    site, origin = (headers.get(name, b"").decode("latin-1") for name in (b"sec-fetch-site", b"origin"))
    return admit(scope["method"], host, site=site, origin=origin)


def _admit_upload(scope: Any) -> None:
    """In a thread. What comes by a session needs no file: a page's form has no large ones."""
    scope = dict(scope)
    apply_forwarding(scope)
    headers = dict(scope["headers"])
    try:
        principal = _recognize(scope, headers, _admit(scope, headers), read_rows)
        authorize(principal, "write", scope["path"].split("/")[4])
        check_room()
        if int(headers.get(b"content-length", 0)) > shutil.disk_usage(settings.DATA_DIR).free:
            raise Refused("disk_full", "The disk of the data folder has less room than the body needs.", _LATER)
    finally:
        connections.close_all()


def _recognize(
    scope: Mapping[str, Any], headers: Mapping[bytes, bytes], principal: Principal, rows: ReadRows
) -> Principal:
    authorization, api_key = (headers.get(name, b"").decode("latin-1") for name in (b"authorization", b"x-api-key"))
    return recognize(principal, scope["path"], scope["client"][0], authorization, api_key, rows)
