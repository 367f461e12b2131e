"""From request bytes to a typed input: media type, size, JSON, fields; each refused with its own answer."""

from typing import Any

from django.conf import settings
from django.http import HttpRequest, UnreadablePostError
from gunicorn.http.errors import ParseException

from apps.api.errors import Problem
from apps.api.vector_json import Body, validate

_BLOCK = 1 << 16
# How much of a refused body is still read.
_DRAIN = 1 << 28


def parse(request: HttpRequest, model: type[Body], *, empty: bytes | None = None) -> Body:
    """The request's JSON body as `model`, `empty` standing in for none; raises Problem, or pydantic's
    ValidationError."""
    if empty is not None and not read(request).strip():
        return validate(empty, model)
    return validate(json_body(request), model)


def json_body(request: HttpRequest) -> bytes:
    """The request's body, which is not empty and says that it is JSON; raises Problem."""
    content_type = request.META.get("CONTENT_TYPE", "")
    media_type = content_type.partition(";")[0].strip().lower()
    encoding = request.META.get("HTTP_CONTENT_ENCODING", "identity")
    is_json = media_type == "application/json" or (
        media_type.startswith("application/") and media_type.endswith("+json")
    )
    is_json = is_json and (request.content_params or {}).get("charset", "utf-8").lower() in ("utf-8", "utf8")
    if not is_json or encoding.lower() != "identity":
        got = f"Content-Type {content_type!r}" if not is_json else f"Content-Encoding {encoding!r}"
        detail = f"The body must be JSON in UTF-8: send the header Content-Type: application/json. Got {got}."
        raise Problem("unsupported_media_type", detail, headers={"Accept": "application/json"})
    body = read(request)
    if not body.strip():
        raise Problem("malformed", "The body is empty; send a JSON object.")
    return body


def read(request: HttpRequest) -> bytes:
    """The whole body; raises Problem `body_too_large` past the limit, `malformed` when the client breaks off."""
    limit = settings.LIMITS.body_bytes
    declared = request.META.get("CONTENT_LENGTH")
    if declared and int(declared) > limit:
        raise _too_large(limit)
    if declared or "chunked" not in request.META.get("HTTP_TRANSFER_ENCODING", "").lower():
        try:
            body = request.body
        except UnreadablePostError:
            raise Problem("malformed", "The body broke off, or took too long to arrive.") from None
        if declared and len(body) < int(declared):
            raise Problem("malformed", f"The body ended after {len(body)} of {declared} bytes.")
        return body
    # Django reads nothing without a Content-Length; the server behind it decodes the chunks.
    stream = request.META["wsgi.input"]
    blocks, size = [], 0
    while block := _next_block(stream):
        size += len(block)
        if size > limit:
            raise _too_large(limit)
        blocks.append(block)
    return b"".join(blocks)


def _next_block(stream: Any) -> bytes:
    try:
        block: bytes = stream.read(_BLOCK)
    except (OSError, ParseException):
        detail = "The body broke off, took too long to arrive, or its chunked transfer encoding makes no sense."
        raise Problem("malformed", detail) from None
    return block


def _too_large(limit: int) -> Problem:
    return Problem("body_too_large", f"The body must have at most {limit} bytes (limit VECTORDB_MAX_BODY_BYTES).")


def drain(request: HttpRequest) -> None:
    """Read what is left of the body of a request that is refused: a client that is busy sending sees no answer."""
    if getattr(request, "_read_started", False):
        return
    is_chunked = "chunked" in request.META.get("HTTP_TRANSFER_ENCODING", "").lower()
    left = _DRAIN if is_chunked else min(int(request.META.get("CONTENT_LENGTH") or 0), _DRAIN)
    try:
        while left > 0 and (block := request.META["wsgi.input"].read(min(left, _BLOCK))):
            left -= len(block)
    except (OSError, ParseException):
        pass
