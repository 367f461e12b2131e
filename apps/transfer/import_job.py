"""Imports as jobs: each batch is committed with how far the job is, so it goes on where it was."""

import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from apps.access.authorization import authorize, authorize_new_library
from apps.access.requests import current_principal
from apps.access.transactions import write_transaction
from apps.libraries import selectors
from apps.libraries.errors import Fault, Invalid, NotFound
from apps.libraries.imported import Mode
from apps.libraries.models import Library
from apps.transfer.formats import format_of
from apps.transfer.importing import Report, import_source, make_library, open_library, refusal
from apps.transfer.job_context import JobContext
from apps.transfer.jobs import create_job, job_folder
from apps.transfer.models import Job, new_job_id
from apps.transfer.refusals import RefusalFile, refusal_progress
from apps.transfer.rows import Batch, LibraryData, Source, json_value

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
        with write_transaction():
            library, is_made = open_or_make(library_id, source.library, create=create)
            return create_job(
                kind="import",
                library=library_id,
                library_uid=library.uid,
                made_library=is_made,
                params=params,
                job_id=job_id,
            )
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def open_or_make(library_id: str, library: LibraryData, *, create: bool) -> tuple[Library, bool]:
    """Open or make the library of an import, as far as whoever asks may; return it, and whether it was made."""
    try:
        return open_library(library_id, library, create=False), False
    except NotFound:
        if not create:
            raise
        principal = current_principal.get()
        authorize(principal, "admin")
        authorize_new_library(principal, library_id)
        return make_library(library_id, library), True


def run_import(job: JobContext) -> dict[str, Any]:
    """Import the file of a job; return the report."""
    job.bind(selectors.library_row(job.library))
    with (job_folder(job.id) / _FILE).open("rb") as file:
        # Jobs of earlier versions do not know it.
        size = os.fstat(file.fileno()).st_size
        if job.params.get("size", size) != size:
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


def stored_report(job: JobContext) -> Report:
    """The report of what a job has imported by now, as the database has it: its last step may have been undone."""
    return Report.of(Job.objects.get(public_id=job.id).progress.get("report", {}))


def resume_at(job: JobContext) -> Any:
    """What the source of a job is given to go on; None at first."""
    return job.progress.get("next")


def rows_before(job: JobContext) -> int:
    """The number of rows of its file that a job has read by now."""
    rows: int = job.progress.get("rows", 0)
    return rows


def import_as(
    job: JobContext, source: Source, mode: Mode, refusals: RefusalFile | None = None
) -> Iterator[tuple[Report, Batch]]:
    """Import a source, opened at `resume_at`, with the progress of a job; yields as `import_source`. Rows that are
    refused are written to `refusals`."""
    rows = rows_before(job)

    if refusals is not None:
        job.advance(job.done, source.total, job.progress | refusal_progress(refusals, job))

    def save(report: Report, batch: Batch, faults: Mapping[str, Sequence[Fault]]) -> None:
        progress = {"next": batch.next, "rows": rows + batch.row_count, "report": report.data()}
        progress |= refusal_progress(refusals, job, (_refusal(batch, at, found) for at, found in faults.items()))
        job.advance(batch.done, source.total, progress)

    for report, batch in import_source(
        library_id=job.library, source=source, mode=mode, report=report_of(job), save=save
    ):
        rows += batch.row_count
        if refusals is not None:
            refusals.keep()
        yield report, batch


def _refusal(batch: Batch, at: str, faults: Sequence[Fault]) -> dict[str, Any]:
    """A refused row, with its id if it has one."""
    row: Any = batch.chunks.get(at) or batch.documents.get(at) or {}
    return refusal(at, faults) | ({} if row.get("id") is None else {"id": json_value(row["id"])})
