"""Jobs: made, found, cancelled, and deleted when they are old. `job_runner` runs them.

A job of a library is seen by whoever may see the library; others are seen by administrators of the server alone.
"""

import contextlib
import os
import secrets
import shutil
import tempfile
import time
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import transaction
from django.db.models import Count, F, Max, QuerySet
from django.db.models.functions import Coalesce
from django.utils import timezone

from apps.access.audit import record_change, record_job
from apps.access.authorization import Scope, authorize, has_scope, visible
from apps.access.requests import SERVER, current_principal
from apps.access.transactions import write_transaction
from apps.libraries.chunk_fields import timestamp
from apps.libraries.dialects import frees_room
from apps.libraries.errors import Conflict, NotFound
from apps.libraries.models import Library
from apps.libraries.services.libraries import delete_locked_library
from apps.libraries.services.sql import lock_library
from apps.ownership import hand_over
from apps.telemetry import metrics
from apps.transfer.job_context import deleted_library
from apps.transfer.job_kinds import JOB_KINDS
from apps.transfer.job_news import tell_of_job
from apps.transfer.models import Job, new_job_id

_FOLDER_ID_FILE = "folder_id"
# Files of a job whose row is not there: its request may still write them.
_SECONDS_OF_UPLOADS = 24 * 3600


def create_job(
    *,
    kind: str,
    library: str = "",
    library_uid: str = "",
    made_library: bool = False,
    params: dict[str, Any] | None = None,
    total: int | None = None,
    job_id: str = "",
    folder: str | None = None,
) -> Job:
    """Make a job of a kind of `JOB_KINDS`, which the maintenance process of this data folder runs; with an empty
    `folder`, one that a command runs. `job_id` is one of `new_job_id`, for whoever has put files into `job_folder`
    before."""
    principal = current_principal.get()
    with write_transaction():
        job = Job.objects.create(
            public_id=job_id or new_job_id(),
            kind=kind,
            library=library,
            library_uid=library_uid,
            made_library=made_library,
            params=params or {},
            total=total,
            folder=folder_id() if folder is None else folder,
            key_id=principal.key_id,
            name="" if principal is SERVER else principal.name,
        )
        record_change("create_job", library=library, target=f"{kind} {job.public_id}")
        transaction.on_commit(tell_of_job)
    return job


def find_jobs(*, kind: str | None = None, library: str | None = None, state: str | None = None) -> QuerySet[Job]:
    """Return the jobs that whoever asks may see, or those of a kind, of a library, in a state."""
    principal = current_principal.get()
    jobs = Job.objects.all()
    if principal.libraries is not None:
        jobs = visible(jobs.exclude(library=""), principal, "library")
    elif not has_scope(principal, "admin"):
        jobs = jobs.exclude(library="")
    given = {"kind": kind, "library": library, "state": state}
    return jobs.filter(**{column: value for column, value in given.items() if value is not None})


def find_job(job_id: str) -> Job:
    """Return a job that whoever asks may see; raise NotFound."""
    job = find_jobs().filter(public_id=job_id).first()
    if job is None:
        raise NotFound(f"There is no job {job_id!r}. GET /api/v1/jobs lists those there are.")
    return job


@frees_room
@write_transaction()
def cancel_job(*, job_id: str) -> None:
    """Cancel a job; what it has done by then stays. Nothing happens where it is cancelled. Raise NotFound, Conflict
    where it has ended otherwise, Refused."""
    job = find_job(job_id)
    authorize(current_principal.get(), scope_of(job))
    if not end_job(job, Job.State.CANCELLED):
        job.refresh_from_db()
        if job.state == Job.State.CANCELLED:
            return
        raise Conflict(f"The job {job_id!r} has ended already: it is {job.state}.")
    record_change("cancel_job", library=job.library, target=f"{job.kind} {job_id}")


def scope_of(job: Job) -> Scope:
    """Return what is needed for a job: in its library, or everywhere where it has none."""
    return "write" if job.library else "admin"


def end_job(job: Job, state: str, *, error: str = "", result: dict[str, Any] | None = None) -> bool:
    """Set the last state of a running job; return False where it has ended already. Without a `result`, it is what the
    job has reported by then."""
    # How far it is was last written a while ago.
    done = Coalesce("total", "done") if state == Job.State.DONE else F("done")
    row = Job.objects.filter(pk=job.pk)
    with transaction.atomic():
        ended = row.filter(state=Job.State.RUNNING).update(
            state=state, done=done, error=error, result=result or {}, ended_at=timezone.now()
        )
        if ended and result is None:
            # Read once no step can write it any more.
            row.update(result=row.values_list("progress", flat=True).get().get("report", {}))
        if ended:
            _record_written(row.get())
    if ended:
        transaction.on_commit(lambda: metrics.JOBS_ENDED.add(1, job.kind, str(state)))
    return bool(ended)


def _record_written(job: Job) -> None:
    """Add how much a job wrote to its library to the audit trail; nothing where it wrote nothing."""
    report = job.progress.get("report", {})
    written = sum(report.get(name, 0) for name in ("created", "updated", "documents"))
    if written and job.name:
        target = f"{job.kind} {job.public_id}"
        record_job("end_job", key_id=job.key_id, name=job.name, library=job.library, target=target, count=written)


@frees_room
@transaction.atomic
def fail_job(job: Job, error: str) -> None:
    """End a job as failed. The library that it has made is deleted, unless there is something in it, or another job is
    to write to it."""
    library = _lock_made_library(job)
    if library is None:
        end_job(job, Job.State.FAILED, error=error)
        return
    told = f"{error} The library {library.public_id!r}, which the job had made, was deleted: it was empty."
    if end_job(job, Job.State.FAILED, error=told):
        delete_locked_library(library)


def _lock_made_library(job: Job) -> Library | None:
    # Its row may have been read before the library was made.
    uid = Job.objects.filter(pk=job.pk, made_library=True).values_list("library_uid", flat=True).first()
    library = Library.objects.filter(uid=uid).first()
    if library is None:
        return None
    with contextlib.suppress(NotFound):
        # Before the job's row, as a deletion does.
        library = lock_library(key=library.pk)
        others = Job.objects.filter(library_uid=uid, state=Job.State.RUNNING).exclude(pk=job.pk)
        if not (library.documents.exists() or library.chunks.exists() or others.exists()):
            return library
    return None


def end_jobs_of_library(library: Library) -> None:
    """End the jobs that write to a library, in the transaction that deletes it."""
    for job in Job.objects.filter(library_uid=library.uid, state=Job.State.RUNNING):
        end_job(job, Job.State.FAILED, error=deleted_library(library.public_id))


def waiting_jobs() -> QuerySet[Job]:
    """Return the jobs that this data folder is to run, in order of creation."""
    return Job.objects.filter(state=Job.State.RUNNING, folder=folder_id(), kind__in=JOB_KINDS).order_by("pk")


def count_running_jobs(using: str) -> dict[tuple[str, ...], float]:
    """Return the numbers of running jobs by their kinds, read from the database connection `using`."""
    running = Job.objects.using(using).filter(state=Job.State.RUNNING).order_by().values_list("kind")
    return {(kind,): 0.0 for kind in JOB_KINDS} | {(kind,): float(n) for kind, n in running.annotate(n=Count("*"))}


def time_of_last_backup(using: str) -> datetime | None:
    """Return when the last backup was made of those whose jobs are known, read from the connection `using`."""
    made = Job.objects.using(using).filter(kind="backup", state=Job.State.DONE)
    last: datetime | None = made.aggregate(last=Max("ended_at"))["last"]
    return last


def prepare_metrics() -> None:
    """Let the counts of jobs begin at 0 in this process: who watches for a first failure sees a change."""
    for kind in JOB_KINDS:
        for state in (Job.State.DONE, Job.State.FAILED, Job.State.CANCELLED):
            metrics.JOBS_ENDED.add(0, kind, str(state))


@frees_room
def delete_old_jobs() -> None:
    """Delete jobs that ended longer ago than the setting says, and the files of all that have ended. The last of each
    kind that a server has done stays: a schedule goes by it."""
    if settings.JOB_DAYS:
        oldest_kept = timezone.now() - timedelta(days=settings.JOB_DAYS)
        old = Job.objects.filter(ended_at__lt=oldest_kept).exclude(state=Job.State.RUNNING)
        done = Job.objects.filter(state=Job.State.DONE).exclude(folder="").order_by().values("kind")
        old.exclude(pk__in=[pk for _, pk in done.annotate(last=Max("pk")).values_list("kind", "last")]).delete()
    delete_files_of_ended_jobs()


def delete_files_of_ended_jobs() -> None:
    """Delete the folders of jobs that do not run; of those without a row, the old ones."""
    folders = list(_jobs_folder().iterdir()) if _jobs_folder().exists() else []
    states = dict(Job.objects.filter(public_id__in=[one.name for one in folders]).values_list("public_id", "state"))
    for folder in folders:
        state = states.get(folder.name)
        with contextlib.suppress(OSError):
            if state is None:
                is_unused = time.time() - folder.stat().st_mtime > _SECONDS_OF_UPLOADS
            else:
                is_unused = state != Job.State.RUNNING
            if is_unused:
                shutil.rmtree(folder)


def job_folder(job_id: str) -> Path:
    """Return the folder for files of a job, which whoever needs it makes; it is deleted when the job has ended."""
    return _jobs_folder() / job_id


def job_data(job: Job) -> dict[str, Any]:
    """Return a job as the API shows it."""
    return {
        "id": job.public_id,
        "kind": job.kind,
        "library": job.library or None,
        "state": job.state,
        "done": job.done,
        "total": job.total,
        "error": job.error or None,
        "result": job.result,
        "created_at": timestamp(job.created_at),
        "ended_at": None if job.ended_at is None else timestamp(job.ended_at),
    }


def folder_id() -> str:
    """Return the id of this data folder; made on the first call, once even if several processes start together."""
    path = settings.DATA_DIR / _FOLDER_ID_FILE
    with contextlib.suppress(FileNotFoundError):
        return path.read_text().strip()
    # Complete before it has its name.
    with tempfile.NamedTemporaryFile("w", dir=settings.DATA_DIR, prefix=f".{_FOLDER_ID_FILE}.") as draft:
        draft.write(secrets.token_hex(8))
        draft.flush()
        os.fsync(draft.fileno())
        hand_over(Path(draft.name))
        with contextlib.suppress(FileExistsError):
            os.link(draft.name, path)
    return path.read_text().strip()


def _jobs_folder() -> Path:
    folder: Path = settings.DATA_DIR / "jobs"
    return folder
