"""Runs the jobs of a data folder: those of each kind one after the other, kinds side by side, so that a backup does not
wait for a long import."""

import logging
import threading
import time
from collections.abc import Callable
from math import inf

from django.db import DatabaseError, connections
from django.db.models import F
from django.utils.module_loading import import_string

from apps.access.authentication import JobProof
from apps.access.requests import SERVER, Principal, Refused, current_principal
from apps.access.transactions import check_key
from apps.embeddings.errors import EmbeddingError
from apps.libraries.dialects import Failure, database_name, failure_of, note_if_damaged
from apps.libraries.dialects.damage import REMEDY
from apps.libraries.errors import LibraryError
from apps.transfer.errors import TransferError, sentence_of_system
from apps.transfer.job_context import JobCancelled, JobContext, JobStopped
from apps.transfer.job_kinds import JOB_KINDS
from apps.transfer.jobs import delete_files_of_ended_jobs, end_job, fail_job, scope_of, waiting_jobs
from apps.transfer.models import Job

logger = logging.getLogger(__name__)

# How often a job is begun that makes no progress: it may take its process with it each time.
MAX_ATTEMPTS = 5
_SECONDS_BETWEEN_LOOKS = 0.2
_SECONDS_BETWEEN_TRIES = 5.0
# For the steps under way to end, once all is to stop.
_SECONDS_TO_STOP = 1.0
_MAY_PASS = (Failure.BUSY, Failure.UNAVAILABLE)


def run_jobs(is_stopped: Callable[[], bool] = lambda: False) -> None:
    """Run all jobs of this data folder; return when none is left, or soon after `is_stopped`, when steps may still be
    under way that only the end of the process ends. Raise DatabaseError."""
    threads: dict[str, threading.Thread] = {}
    deadline = inf
    while time.monotonic() < deadline:
        threads = {kind: thread for kind, thread in threads.items() if thread.is_alive()}
        if is_stopped():
            deadline = min(deadline, time.monotonic() + _SECONDS_TO_STOP)
        waiting = [] if is_stopped() else waiting_jobs().order_by().values_list("kind", flat=True).distinct()
        for kind in set(waiting) - threads.keys():
            threads[kind] = threading.Thread(target=_run_kind, args=(kind, is_stopped), name=kind, daemon=True)
            threads[kind].start()
        if not threads:
            return
        next(iter(threads.values())).join(_SECONDS_BETWEEN_LOOKS)


def _run_kind(kind: str, is_stopped: Callable[[], bool]) -> None:
    try:
        while not is_stopped() and (job := waiting_jobs().filter(kind=kind).first()) is not None:
            if not run_job(job, is_stopped):
                until = time.monotonic() + _SECONDS_BETWEEN_TRIES
                while time.monotonic() < until and not is_stopped():
                    time.sleep(_SECONDS_BETWEEN_LOOKS)
    except DatabaseError as error:
        note_if_damaged(error)
        logger.warning("jobs of the kind %s are run later: %s (%s)", kind, error, database_name())
    finally:
        connections.close_all()


def run_job(job: Job, is_stopped: Callable[[], bool] = lambda: False) -> bool:
    """Run a job until it ends or `is_stopped`. Return False where it is to be tried again. Raise DatabaseError where
    its row cannot be written."""
    if job.attempts >= MAX_ATTEMPTS:
        error = f"It was begun {MAX_ATTEMPTS} times and got no further; the server's log may say why."
        fail_job(job, error)
        logger.warning("job %s failed: %s", job, error)
        return True
    # One that takes its process with it has been counted before.
    row = Job.objects.filter(pk=job.pk)
    row.update(attempts=F("attempts") + 1)
    principal = SERVER
    if job.name:
        # Users and commands have no key.
        proof = JobProof(scope_of(job), job.library) if job.key_id else None
        principal = Principal(job.name, frozenset(["admin"]), job.key_id, proof=proof)
    before, context = current_principal.set(principal), JobContext(job, is_stopped)
    try:
        check_key()
        result = import_string(JOB_KINDS[job.kind])(context)
    except JobStopped:
        row.update(attempts=0)
        return True
    except JobCancelled:
        logger.info("job %s is cancelled", job)
    except Exception as error:
        if isinstance(error, DatabaseError) and failure_of(error) in _MAY_PASS:
            logger.warning("job %s is tried again: %s (%s)", job, error, database_name())
            return False
        sentence = _sentence_of(error)
        fail_job(job, sentence)
        note_if_damaged(error)
        is_bug = not isinstance(error, _TOLD)
        logger.warning("job %s failed: %s", job, error if is_bug else sentence, exc_info=error if is_bug else None)
    else:
        end_job(job, Job.State.DONE, result=result or {})
    finally:
        current_principal.reset(before)
    delete_files_of_ended_jobs()
    return True


_TOLD = (Refused, TransferError, LibraryError, EmbeddingError, DatabaseError, OSError)


def _sentence_of(error: Exception) -> str:
    """Return what a job says of the error that it failed by."""
    if isinstance(error, LibraryError):
        faults = [f"{fault.pointer} {fault.detail}." for fault in error.faults[:1] if fault.detail != error.detail]
        return " ".join([error.detail, *faults])
    if isinstance(error, Refused):
        return error.detail
    if isinstance(error, OSError):
        return sentence_of_system(error)
    if isinstance(error, DatabaseError) and (failure := failure_of(error)) is not None:
        return f"The database cannot be used: {error}{f' {REMEDY}' if failure is Failure.DAMAGED else ''}"
    if isinstance(error, _TOLD):
        return str(error)
    return "This is a bug. The server's log has the details."
