"""Imports as jobs: each batch is committed with how far the job is, so it goes on where it was."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from django.db import transaction

from apps.access.authorization import authorize, authorize_new_library
from apps.access.requests import current_principal
from apps.libraries import selectors
from apps.libraries.errors import Invalid, NotFound
from apps.libraries.imported import Mode
from apps.transfer.formats import format_of
from apps.transfer.importing import Report, import_source, open_library
from apps.transfer.job_context import JobContext
from apps.transfer.jobs import create_job, job_folder
from apps.transfer.models import Job, new_job_id
from apps.transfer.rows import Batch, Source

_FILE: Final = "file"


def request_import(
    *, library_id: str, format: str, mode: Mode, create: bool, columns: dict[str, str], put: Callable[[Path], None]
) -> Job:
    """Make the job of an import into a library, which is made first if it is not there and `create` says so. `put`
    makes the file at a path, on the disk of the data folder. Raises NotFound, Invalid where the file cannot be one of
    the format or of the library, ModelMismatch, Refused where whoever asks may not make the library, OSError."""
    if not create:
        selectors.library_row(library_id)
    job_id = new_job_id()
    folder = job_folder(job_id)
    folder.mkdir(parents=True)
    try:
        put(folder / _FILE)
        with (folder / _FILE).open("rb") as file:
            # Kept until the file is closed: the reader of a table would close it when it is dropped, with a warning.
            source = format_of(format).read(file, columns=columns)
        size = (folder / _FILE).stat().st_size
        params = {"format": format, "mode": mode, "columns": columns, "size": size}
        # Both or neither: an Idempotency-Key says that a request was carried out.
        with transaction.atomic():
            open_or_create(library_id, source.library, create=create)
            return create_job(kind="import", library=library_id, params=params, job_id=job_id)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def open_or_create(library_id: str, library: Any, *, create: bool) -> None:
    """Open or make the library of an import, as far as whoever asks may."""
    try:
        open_library(library_id, library, create=False)
    except NotFound:
        if not create:
            raise
        principal = current_principal.get()
        authorize(principal, "admin")
        authorize_new_library(principal, library_id)
        open_library(library_id, library, create=True)


def run_import(job: JobContext) -> dict[str, Any]:
    """Import the file of a job; return the report."""
    with (job_folder(job.id) / _FILE).open("rb") as file:
        if os.fstat(file.fileno()).st_size != job.params["size"]:
            # It was accepted before the system had all of it on the disk.
            raise Invalid("The file is not whole any more, as after a power cut. Send it again.")
        source = format_of(job.params["format"]).read(file, resume_at(job), job.params["columns"])
        report = report_of(job)
        for after, _ in import_as(job, source, job.params["mode"]):
            report = after
    return report.data()


def report_of(job: JobContext) -> Report:
    """The report of what a job has imported by now."""
    return Report.of(job.progress.get("report", {}))


def resume_at(job: JobContext) -> Any:
    """What the source of a job is given to go on; None at first."""
    return job.progress.get("next")


def import_as(job: JobContext, source: Source, mode: Mode) -> Iterator[tuple[Report, Batch]]:
    """Import a source, opened at `resume_at`, with the progress of a job; yields as `import_source`."""

    def save(report: Report, batch: Batch) -> None:
        job.advance(batch.done, source.total, {"next": batch.next, "report": report.data()})

    yield from import_source(library_id=job.library, source=source, mode=mode, report=report_of(job), save=save)
