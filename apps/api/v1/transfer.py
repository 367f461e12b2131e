"""A library as a file, and files into a library."""

import os
from pathlib import Path
from typing import Annotated, Literal

from django.http import StreamingHttpResponse
from pydantic import BeforeValidator, Field, WithJsonSchema
from rest_framework.parsers import BaseParser
from rest_framework.request import Request
from rest_framework.response import Response

from apps.access.requests import BODY_FILE
from apps.api.bodies import read
from apps.api.errors import Problem
from apps.api.parameters import Parameters
from apps.api.v1 import examples, schemas
from apps.api.v1.base import ApiView, path_to, respond
from apps.api.v1.operation import operation
from apps.libraries import selectors
from apps.libraries.fields import NotNull, validation_error
from apps.libraries.imported import Mode
from apps.transfer.exporting import export_library
from apps.transfer.formats import FORMATS, MEDIA_TYPES, format_of
from apps.transfer.formats.tables import parse_columns
from apps.transfer.import_job import request_import
from apps.transfer.jobs import job_data


def _parse_switch(text: str) -> bool:
    if text not in ("true", "false"):
        raise validation_error("must be true or false")
    return text == "true"


class ExportParameters(Parameters):
    """What to make of a library."""

    format: Literal["jsonl", "zip", "parquet"] = Field("jsonl", description="The format of the file.")


class ImportParameters(Parameters):
    """How to read a file."""

    format: Annotated[Literal["jsonl", "zip", "parquet", "csv"] | None, NotNull()] = Field(
        None, description="The format of the file; left out, the Content-Type says it."
    )
    mode: Mode = Field(
        "upsert", description="`upsert` replaces rows whose ids are in use, `insert` refuses them, `skip` leaves them."
    )
    create: Annotated[
        bool,
        BeforeValidator(_parse_switch),
        WithJsonSchema({"type": "boolean"}),
    ] = Field(False, description="Whether to make the library where it is not there, which needs the scope admin.")
    columns: Annotated[
        dict[str, str],
        BeforeValidator(parse_columns),
        WithJsonSchema({"type": "string"}),
    ] = Field({}, description="What a table's columns are called, such as `text=body,vector=emb`.")


class Export(ApiView):
    """The library as one file: its own fields, its documents, and its chunks with their vectors, all of one state."""

    parameters = ExportParameters
    query: ExportParameters

    @operation(
        "export_library",
        "Export a library",
        ("application/x-ndjson", "application/zip", "application/vnd.apache.parquet"),
        description="It is sent while it is read, from one snapshot, and has no length. An answer that breaks off has "
        "no end, in HTTP and in the file.",
    )
    def get(self, request: Request, library_id: str) -> StreamingHttpResponse:
        format = format_of(self.query.format)
        selectors.library_row(library_id)
        parts = export_library(library_id=library_id, format=format)
        name = f"{library_id}.{self.query.format}".encode("ascii", "replace").decode().replace('"', "_")
        headers = {"Content-Disposition": f'attachment; filename="{name}"'}
        return StreamingHttpResponse(parts, content_type=format.media_type, headers=headers)


class Import(ApiView):
    """POST a file to write its rows to the library. A job does it; what it refuses is in its result."""

    example_bodies = {"POST": examples.IMPORT}
    # For what the page's form sends, and the answer to OPTIONS; nothing is parsed here.
    parser_classes = tuple(type("FileParser", (BaseParser,), {"media_type": media_type}) for media_type in MEDIA_TYPES)
    parameters = ImportParameters
    query: ImportParameters

    @operation(
        "import_rows",
        "Import a file",
        schemas.Job,
        tuple(MEDIA_TYPES),
        statuses=(202,),
    )
    def post(self, request: Request, library_id: str) -> Response:
        format = self.query.format or _format_by_type(request.META.get("CONTENT_TYPE", ""))

        def put(path: Path) -> None:
            if BODY_FILE in request.META:
                os.rename(request.META[BODY_FILE], path)
            elif content := read(request._request):
                path.write_bytes(content)
            else:
                raise Problem("malformed", "The body is empty; send the file.")

        job = request_import(
            library_id=library_id,
            format=format,
            mode=self.query.mode,
            create=self.query.create,
            columns=self.query.columns,
            put=put,
        )
        return respond(job_data(job), 202, path_to("jobs", job.public_id))


def _format_by_type(content_type: str) -> str:
    media_type = content_type.partition(";")[0].strip().lower()
    if media_type not in MEDIA_TYPES:
        known = ", ".join(MEDIA_TYPES)
        detail = f"Say which format the file has: ?format= one of {', '.join(FORMATS)}, or a Content-Type of {known}."
        raise Problem("unsupported_media_type", f"{detail} Got {content_type!r}.")
    return MEDIA_TYPES[media_type]
