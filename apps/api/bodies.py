"""From a request's body to a typed input: media type, JSON, fields; a fault of each has its own error."""

import re

from django.http import HttpRequest, UnreadablePostError
from pydantic import ValidationError

from apps.api.errors import Problem, chunk_faults
from apps.api.vector_json import Body, validate
from apps.libraries.errors import Fault
from apps.libraries.inputs import ChunksWrite, InvalidChunk, PartialChunksWrite


def parse(request: HttpRequest, model: type[Body], *, empty: bytes | None = None) -> Body:
    """The request's JSON body as `model`; `empty` is the body of a request without one. Raises Problem, or
    pydantic's ValidationError."""
    if empty is not None and not read(request).strip():
        return validate(empty, model)
    return validate(json_body(request), model)


def parse_chunks(request: HttpRequest) -> tuple[ChunksWrite, dict[int, list[Fault]]]:
    """The request's body as chunks to write, and what is wrong with those that cannot be parsed, by their numbers, if
    the request has them skipped. Raises as `parse`."""
    body = json_body(request)
    try:
        return validate(body, ChunksWrite), {}
    except ValidationError as error:
        # Parsed a second time, so that what parses at once takes no longer.
        try:
            write = validate(body, PartialChunksWrite)
        except ValidationError:
            raise error from None
    invalid = [(i, chunk) for i, chunk in enumerate(write.chunks) if isinstance(chunk, InvalidChunk)]
    return write, {i: chunk_faults(chunk.error, i) for i, chunk in invalid}


def json_body(request: HttpRequest) -> bytes:
    """The request's body, which is not empty and says that it is JSON; raises Problem."""
    content_type = request.META.get("CONTENT_TYPE", "")
    media_type = content_type.partition(";")[0].strip().lower()
    encoding = request.META.get("HTTP_CONTENT_ENCODING", "identity")
    charset = (request.content_params or {}).get("charset", "utf-8").lower()
    is_json = re.fullmatch(r"application/(json|.+\+json)", media_type) and charset in ("utf-8", "utf8")
    if not is_json or encoding.lower() != "identity":
        got = f"Content-Type {content_type!r}" if not is_json else f"Content-Encoding {encoding!r}"
        detail = f"The body must be JSON in UTF-8: send the header Content-Type: application/json. Got {got}."
        raise Problem("unsupported_media_type", detail, headers={"Accept": "application/json"})
    body = read(request)
    if not body.strip():
        raise Problem("malformed", "The body is empty; send a JSON object.")
    return body


def read(request: HttpRequest) -> bytes:
    """The whole body; raises Problem `malformed` when the client breaks off, RequestDataTooBig past the limit."""
    try:
        return request.body
    except UnreadablePostError:
        raise Problem("malformed", "The body broke off, or took too long to arrive.") from None
