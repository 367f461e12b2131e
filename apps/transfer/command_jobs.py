"""Jobs that a command does itself, so that the same command goes on where it was, and others see how far it is."""

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from django.db import DatabaseError, connection, transaction

from apps.embeddings.errors import EmbeddingError
from apps.libraries.dialects import database_name, dialect_of
from apps.libraries.models import Library
from apps.transfer.errors import TransferError, sentence_of_system
from apps.transfer.job_context import JobCancelled, JobContext
from apps.transfer.jobs import create_job, end_job, fail_job
from apps.transfer.models import Job

logger = logging.getLogger(__name__)

# A number of locks, with the key of the job beside it.
_LOCKS = 1 << 56
# Errors of a source, of a provider and of the database: the same command may get further later.
_MAY_PASS = (JobCancelled, TransferError, EmbeddingError, DatabaseError)


def find_command_job(kind: str, library: str, params: dict[str, Any]) -> Job | None:
    """Return the job that the same command has begun and not ended, if there is one and its library is still there."""
    there = set(Library.objects.filter(public_id=library).values_list("uid", flat=True)) | {""}
    return next((job for job in _running_jobs(kind, library, params) if job.library_uid in there), None)


def _running_jobs(kind: str, library: str, params: dict[str, Any]) -> Iterator[Job]:
    # Of no data folder, so that no server runs it.
    jobs = Job.objects.filter(kind=kind, library=library, folder="", state=Job.State.RUNNING)
    return (job for job in jobs.order_by("-pk") if job.params == params)


@contextmanager
def running_command(
    kind: str,
    library: str,
    params: dict[str, Any],
    *,
    total: int | None = None,
    restart: bool = False,
    is_repeatable: bool = True,
) -> Iterator[JobContext]:
    """The job of the command at hand: the one of `find_command_job`, or a new one where there is none, or with
    `restart`. Nobody else runs it in the block.

    It ends with the block, with the `result` of its context. An interruption, or an error that may pass, leaves it as
    it is, unless the source cannot be read again (`is_repeatable`). Any other error ends it as failed. Raises
    TransferError while another command runs the job.
    """
    row = find_command_job(kind, library, params) if is_repeatable else None
    if row is not None and restart:
        end_job(row, Job.State.CANCELLED)
        row = None
    with ExitStack() as stack:
        if row is None:
            row = stack.enter_context(_new_job(kind, library, params, total))
        else:
            stack.enter_context(sole_runner(row))
        job = JobContext(row)
        try:
            yield job
        except BaseException as error:
            may_pass = isinstance(error, _MAY_PASS) or not isinstance(error, Exception)
            if not (is_repeatable and may_pass):
                fail_job(row, _reason(error))
            raise
        end_job(row, Job.State.DONE, result=job.result)


@contextmanager
def running_reader(kind: str, library: str, params: dict[str, Any]) -> Iterator[JobContext]:
    """The job of a command that writes nothing to the database but how far it is, and begins again each time.

    It ends with the block, whatever the error. Where the database takes no writes, as a full, damaged or read-only one,
    the block runs without a job.
    """
    with ExitStack() as stack:
        try:
            row = stack.enter_context(_new_job(kind, library, params))
        except DatabaseError as error:
            logger.warning("%s runs without a job: %s (%s)", kind, error, database_name())
            row = Job(kind=kind, library=library, params=params)
        job = JobContext(row)
        try:
            yield job
        except BaseException as error:
            with suppress(DatabaseError):
                end_job(row, Job.State.FAILED, error=_reason(error))
            raise
        with suppress(DatabaseError):
            end_job(row, Job.State.DONE, result=job.result)


@contextmanager
def _new_job(kind: str, library: str, params: dict[str, Any], total: int | None = None) -> Iterator[Job]:
    """A new job that nobody else runs in the block; those of the same command that were killed have failed."""
    for killed in _running_jobs(kind, library, params):
        with suppress(TransferError), sole_runner(killed):
            end_job(killed, Job.State.FAILED, error="Its process has ended.")
    with ExitStack() as stack:
        # Nobody sees it unlocked, as one that was killed.
        with transaction.atomic():
            row = create_job(kind=kind, library=library, params=params, total=total, folder="")
            stack.enter_context(sole_runner(row))
        yield row


def _reason(error: BaseException) -> str:
    if isinstance(error, OSError):
        return sentence_of_system(error)
    return str(error) or "It was interrupted."


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


def file_identity(source: str) -> dict[str, Any]:
    """Return what tells a file or folder from another one, and from itself with other content. Raises OSError for one
    that is not there."""
    path = Path(source).resolve(strict=True)
    status = path.stat()
    return {"source": str(path)} | ({} if path.is_dir() else {"size": status.st_size, "modified": status.st_mtime_ns})
