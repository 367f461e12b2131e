"""Jobs that a command does itself, so that the same command goes on where it was, and others see how far it is."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from django.db import connection

from apps.access.requests import current_principal
from apps.libraries.dialects import dialect_of
from apps.transfer.errors import TransferError
from apps.transfer.job_context import JobCancelled, JobContext
from apps.transfer.jobs import end_job
from apps.transfer.models import Job

# A number of locks, with the key of the job beside it.
_LOCKS = 1 << 56


@contextmanager
def running_command(kind: str, library: str, source: str, params: dict[str, Any]) -> Iterator[JobContext]:
    """The job of the command at hand: one that the same command has begun with the same source and has not ended, or a
    new one. It ends with the block, which sets its `result`; not where the block is interrupted. Raises OSError for a
    source that is not there, TransferError while another command runs the job."""
    params = params | _identity(source)
    # Of no data folder, so that no server runs it.
    found = Job.objects.filter(kind=kind, folder="", library=library, state=Job.State.RUNNING)
    row = next((job for job in found if job.params == params), None) if source != "-" else None
    if row is None:
        name = current_principal.get().name
        row = Job.objects.create(kind=kind, library=library, params=params, name=name)
    with sole_runner(row):
        job = JobContext(row)
        try:
            yield job
        except JobCancelled:
            raise
        except Exception as error:
            end_job(row, Job.State.FAILED, error=str(error), result=job.progress.get("report", {}))
            raise
        end_job(row, Job.State.DONE, result=job.progress.get("report", {}))


@contextmanager
def sole_runner(job: Job) -> Iterator[None]:
    """Keep other commands from a job in the block; `job` is as the last one has left it. Raises TransferError where
    another runs it, or has just ended it."""
    dialect = dialect_of(connection)
    if not dialect.try_lock(connection, _LOCKS + job.pk):
        raise TransferError(f"Another command runs the job {job.kind} {job.public_id} already.")
    try:
        job.refresh_from_db()
        if job.state != Job.State.RUNNING:
            raise TransferError(f"The job {job.kind} {job.public_id} has just ended: it is {job.state}.")
        yield
    finally:
        dialect.unlock(connection, _LOCKS + job.pk)


def _identity(source: str) -> dict[str, Any]:
    """What tells a source from another one, and from itself with other content."""
    if source == "-":
        return {"source": source}
    path = Path(source).resolve(strict=True)
    status = path.stat()
    return {"source": str(path)} | ({} if path.is_dir() else {"size": status.st_size, "modified": status.st_mtime_ns})
