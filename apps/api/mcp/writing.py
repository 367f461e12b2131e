"""The tools that write. Each calls what the endpoint of the same meaning calls."""

from contextlib import suppress
from datetime import timedelta
from typing import Any

from django.utils import timezone

from apps.access.authorization import authorize, authorize_new_library
from apps.access.idempotency import unmarked
from apps.access.requests import Refused, current_principal
from apps.api.mcp.arguments import Forget, PutDocument, Remember, body_of
from apps.api.v1.chunks import ChunksDelete, delete_chunks
from apps.api.vector_json import validate
from apps.libraries import selectors
from apps.libraries.chunk_fields import timestamp
from apps.libraries.errors import Conflict, NotFound
from apps.libraries.inputs import ChunkInput, ChunksWrite, DocumentWrite, LibraryCreate
from apps.libraries.profile import record
from apps.libraries.services.documents import replace_document
from apps.libraries.services.libraries import create_library
from apps.libraries.services.partial import write_chunks


def remember(asked: Remember) -> dict[str, Any]:
    """Write one chunk, to a new library if that is asked for."""
    body = {"text": asked.text, "metadata": asked.metadata, "expires_at": asked.expires_at}
    if asked.ttl_seconds is not None:
        body["expires_at"] = timestamp(timezone.now() + timedelta(seconds=asked.ttl_seconds))
    if asked.id is not None:
        body["id"] = asked.id
    chunk = validate(body_of(body), ChunkInput)
    if asked.create_library:
        _create_library(asked.library)
    with record(wanted=False):
        written = write_chunks(library_id=asked.library, write=ChunksWrite(chunks=[chunk]), invalid={})
    expires_at = None if chunk.expires_at is None else timestamp(chunk.expires_at)
    return {"id": chunk.id, "created": written.created == 1, "expires_at": expires_at}


def _create_library(library_id: str) -> None:
    """Make the library unless it is there. Raises Refused for who may not."""
    with suppress(NotFound):
        selectors.library_row(library_id)
        return
    principal = current_principal.get()
    try:
        authorize(principal, "admin", library_id)
        authorize_new_library(principal, library_id)
    except Refused as refused:
        said = f"There is no library {library_id!r}, and create_library cannot make it: {refused.detail}"
        raise Refused(refused.code, said) from None
    # Another request may have made it meanwhile. A call that is repeated finds it, so it marks nothing.
    with suppress(Conflict), unmarked():
        create_library(create=validate(body_of({"id": library_id, "name": library_id}), LibraryCreate))


def forget(asked: Forget) -> dict[str, Any]:
    """Delete chunks."""
    named = {name: getattr(asked, name) for name in ("ids", "filter") if asked.is_set(name)}
    return {"deleted": delete_chunks(asked.library, validate(body_of(named), ChunksDelete))}


def put_document(asked: PutDocument) -> dict[str, Any]:
    """Make a document exactly this."""
    content = {name: getattr(asked, name) for name in asked.model_fields_set - {"library", "id"}}
    with record(wanted=False):
        data, is_new = replace_document(
            library_id=asked.library, document_id=asked.id, document=validate(body_of(content), DocumentWrite)
        )
    return {"id": data["id"], "is_new": is_new} | {
        name: data[name] for name in ("created", "updated", "unchanged", "deleted")
    }
