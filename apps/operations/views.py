"""/health: the process answers. /ready: it can serve."""

import os
import tempfile

import orjson
from django.conf import settings
from django.db import DatabaseError, connection
from django.http import HttpRequest, HttpResponse
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_safe

from apps.installation import PROGRAM
from apps.libraries.dialects import dialect_of, is_damaged, note_if_damaged
from apps.libraries.schema import Schema, list_migrations


@csrf_exempt
@require_safe
def health(request: HttpRequest) -> HttpResponse:
    """200 while the process answers at all."""
    return HttpResponse(orjson.dumps({"status": "ok"}), content_type="application/json")


@csrf_exempt
@require_safe
def ready(request: HttpRequest) -> HttpResponse:
    """200 when requests can be served, 503 with what is missing otherwise."""
    checks = {"database": _database(), "data_dir": _data_dir(), "index": _index_dir()}
    ok = all(check == "ok" for check in checks.values())
    response = HttpResponse(
        orjson.dumps({"status": "ready" if ok else "not ready", "checks": checks}),
        content_type="application/json",
        status=200 if ok else 503,
    )
    if not ok:
        response.headers["Retry-After"] = "5"
    return response


def _database() -> str:
    try:
        schema = Schema(connection)
        if schema.unknown:
            return f"was migrated by a newer version of the server ({list_migrations(schema.unknown)}): start that one"
        if schema.pending:
            return f"{len(schema.pending)} migrations are not applied: run {PROGRAM} migrate"
        missing = dialect_of(connection).missing_triggers(connection)
    except DatabaseError as error:
        note_if_damaged(error)
        return f"is damaged: {error}" if is_damaged() else f"does not answer: {error}"
    if is_damaged():
        return f"is damaged: restore a backup; {PROGRAM} check_database says what is damaged"
    return f"triggers are missing ({', '.join(missing)}): run {PROGRAM} migrate" if missing else "ok"


def _data_dir() -> str:
    writable = os.access(settings.DATA_DIR, os.R_OK | os.W_OK | os.X_OK)
    return "ok" if writable else "VECTORDB_DATA_DIR cannot be written"


def _index_dir() -> str:
    """Whether an index file could be written; the disk may be full, or the folder something else."""
    # It is made with its first file.
    folder = settings.INDEX_DIR if settings.INDEX_DIR.exists() else settings.DATA_DIR
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"\0" * 4096)
            file.flush()
    except OSError as error:
        return f"index files cannot be written: {error.strerror or error}"
    return "ok"
