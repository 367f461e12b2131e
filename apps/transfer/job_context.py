"""What the function of a job is given: what it was asked for, how far it was, and how it tells that it goes on."""

import contextlib
import time
from collections.abc import Callable
from typing import Any

from django.db import DatabaseError

from apps.transfer.models import Job

_SECONDS_BETWEEN_LOOKS = 0.5


class JobInterrupted(Exception):
    """The job is not to go on now. Let it pass: whoever runs the job handles it."""


class JobCancelled(JobInterrupted):
    """Somebody has cancelled the job."""


class JobStopped(JobInterrupted):
    """The process ends; the job goes on in the next one."""


class JobContext:
    """A running job, as its function sees it.

    `id`, `library` and `params` are as the job was made; `progress` is what was written last, empty at first.
    """

    def __init__(self, job: Job, is_stopped: Callable[[], bool] = lambda: False) -> None:
        self.id, self.library, self.params = job.public_id, job.library, dict(job.params)
        self.progress: dict[str, Any] = dict(job.progress)
        self._row = Job.objects.filter(pk=job.pk, state=Job.State.RUNNING)
        self._is_stopped, self._looked_at = is_stopped, 0.0

    def advance(self, done: int, total: int | None = None, progress: dict[str, Any] | None = None) -> None:
        """Write how far the job is: rows or bytes, and with `progress` where the next step begins. Called within the
        transaction of a step, both are committed or neither. Raise JobInterrupted, which undoes that step.

        Without `progress` it is for readers alone: it writes twice a second at most, and a database that is busy or
        full is no reason to fail.
        """
        if progress is None:
            if not self._is_look_due():
                return
            with contextlib.suppress(DatabaseError):
                self._update(done=done, total=total)
            return
        self._stop_if_asked()
        self._update(done=done, total=total, progress=progress, attempts=0)
        self.progress = progress

    def check_cancelled(self) -> None:
        """Raise JobInterrupted where the job is not to go on. Cheap: it looks twice a second at most."""
        if self._is_look_due() and not self._row.exists():
            raise JobCancelled

    def _is_look_due(self) -> bool:
        self._stop_if_asked()
        now = time.monotonic()
        if now - self._looked_at < _SECONDS_BETWEEN_LOOKS:
            return False
        self._looked_at = now
        return True

    def _update(self, **columns: Any) -> None:
        if not self._row.update(**columns):
            raise JobCancelled

    def _stop_if_asked(self) -> None:
        if self._is_stopped():
            raise JobStopped
