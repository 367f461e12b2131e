"""What the function of a job is given: what it was asked for, how far it was, and how it tells that it goes on."""

import contextlib
import time
from collections.abc import Callable
from typing import Any

from django.db import DatabaseError
from django.db.models import Exists

from apps.access.transactions import check_key
from apps.libraries.errors import NotFound
from apps.libraries.models import Library
from apps.transfer.models import Job

_SECONDS_BETWEEN_LOOKS = 0.5


class JobInterrupted(Exception):
    """The job is not to go on now. Let it pass: whoever runs the job handles it."""


class JobCancelled(JobInterrupted):
    """Somebody has cancelled the job."""


class JobStopped(JobInterrupted):
    """The process ends; the job goes on in the next one."""


def deleted_library(library_id: str) -> str:
    """Return what a job says whose library was deleted."""
    return f"The library {library_id!r} was deleted. A job does not go on in another one of that id."


class JobContext:
    """A running job, as its function sees it; of a `Job` that was not saved, one that nobody else sees.

    `id`, `library` and `params` are as the job was made; `done` and `progress` are what was written last, 0 and empty
    at first. `result`, set by a command, is what its job has made; None for the report of `progress`.
    """

    def __init__(self, job: Job, is_stopped: Callable[[], bool] = lambda: False) -> None:
        self.id, self.library, self.params = job.public_id, job.library, dict(job.params)
        self.done = job.done
        self.result: dict[str, Any] | None = None
        self.progress: dict[str, Any] = dict(job.progress)
        self._key, self._library_uid = job.pk, job.library_uid
        self._is_stopped, self._looked_at = is_stopped, 0.0

    def advance(self, done: int, total: int | None = None, progress: dict[str, Any] | None = None) -> None:
        """Write how far the job is: rows or bytes, and with `progress` where the next step begins. Called within the
        transaction of a step, both are committed or neither. Raise JobInterrupted, which undoes that step, NotFound
        where the library was deleted, also if there is another one of its id, and Refused where the key that asked for
        the job is not good any more.

        Without `progress` it is for readers alone: it writes twice a second at most, and a database that is busy or
        full is no reason to fail.
        """
        if progress is None:
            if not self._is_look_due():
                return
            with contextlib.suppress(DatabaseError):
                check_key()
                self._update(done=done, total=total)
            return
        self._stop_if_asked()
        check_key()
        self._update(done=done, total=total, progress=progress, attempts=0)
        self.progress = progress

    def bind(self, library: Library, *, is_made: bool = False) -> None:
        """Let the job write to this library alone, which it has made or found, unless it is bound already. Raise
        NotFound where the one that it is bound to was deleted."""
        if not self._library_uid:
            self._update(library_uid=library.uid, made_library=is_made)
            self._library_uid = library.uid
        elif self._library_uid != library.uid:
            raise NotFound(deleted_library(self.library))

    def _is_look_due(self) -> bool:
        self._stop_if_asked()
        now = time.monotonic()
        if now - self._looked_at < _SECONDS_BETWEEN_LOOKS:
            return False
        self._looked_at = now
        return True

    def _update(self, **columns: Any) -> None:
        if self._key is None:
            return
        rows = Job.objects.filter(pk=self._key)
        running = rows.filter(state=Job.State.RUNNING)
        if self._library_uid:
            # In the transaction of a step, which has locked the library of that id.
            running = running.filter(Exists(Library.objects.filter(uid=self._library_uid, public_id=self.library)))
        if not running.update(**columns):
            row = rows.first()
            if row is None or row.state == Job.State.CANCELLED:
                raise JobCancelled
            raise NotFound(row.error or deleted_library(self.library))

    def _stop_if_asked(self) -> None:
        if self._is_stopped():
            raise JobStopped
