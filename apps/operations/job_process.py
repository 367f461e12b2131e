"""The processes that run jobs, one after the other, each there while jobs are.

Maintenance forks a *starter* before it opens a file or starts a thread. The starter opens nothing, and forks a process
whenever it is told that there are jobs: that one has what the server has loaded, which would take it a second, and what
it imports ends with it.
"""

import contextlib
import logging
import os
import select
import signal
import threading
from contextlib import AbstractContextManager
from typing import NoReturn, Self

from django.conf import settings
from django.core.management import call_command
from django.db import connections

from apps.operations.process import end_with_parent, is_running, name_process, run_to_end, wait_while
from apps.telemetry.slots import try_lock
from apps.transfer.job_news import wait_for_jobs
from apps.transfer.jobs import waiting_jobs

logger = logging.getLogger(__name__)

_SECONDS_BETWEEN_STARTS = 5.0
_SECONDS_TO_END = 2.0
# What tells of jobs is read at once, however often it was told.
_MOST_NEWS = 1 << 16


def jobs_lock() -> AbstractContextManager[bool]:
    """Try to lock the data folder for running jobs while the block runs; gives False where another process has it."""
    return try_lock(settings.DATA_DIR / "jobs.lock")


class JobStarter:
    """Starts a process when there are jobs, again if it dies. Ends it, and the starter, with the block.

    It is made before this process has started a thread: what is forked of it goes on without them.
    """

    def __init__(self) -> None:
        # A connection that the fork inherits would be shared, and damaged.
        connections.close_all()
        their_news, self._news = os.pipe()
        self._starter = os.fork()
        if not self._starter:
            os.close(self._news)
            os.dup2(their_news, 0)
            _start_processes()
        os.close(their_news)
        os.set_blocking(self._news, False)
        # Of `_news`, whose number another file has once it is closed.
        self._lock = threading.Lock()

    @property
    def is_alive(self) -> bool:
        """Whether jobs can be started."""
        return is_running(self._starter)

    def tick(self) -> None:
        """Start the process if there are jobs and it does not run. Raise DatabaseError."""
        if waiting_jobs().exists():
            self._tell()

    def __enter__(self) -> Self:
        """From here on jobs start as soon as they are made."""
        threading.Thread(target=wait_for_jobs, args=(self._tell,), name="job news", daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        with self._lock:
            os.close(self._news)
            self._news = -1
        wait_while(lambda: self.is_alive, _SECONDS_TO_END)
        if self.is_alive:
            os.kill(self._starter, signal.SIGKILL)
            os.waitpid(self._starter, 0)

    def _tell(self) -> None:
        # It has ended, which `is_alive` says; or it has been told often enough.
        with self._lock, contextlib.suppress(OSError):
            os.write(self._news, b"\0")


def _start_processes() -> NoReturn:
    """In the starter: fork a process for jobs when standard input says that there are some, until it ends. While the
    process runs, it is the one that reads standard input, and ends with it."""
    try:
        name_process(b"jobs")
        # Sent to all processes at once. It ends with maintenance.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        end_of_input = select.poll()
        end_of_input.register(0, 0)
        while os.read(0, _MOST_NEWS):
            process = os.fork()
            if not process:
                run_to_end(_run_jobs, logger, "jobs cannot be run")
            _, status = os.waitpid(process, 0)
            if status:
                logger.warning("the process of jobs ended with %d", os.waitstatus_to_exitcode(status))
                end_of_input.poll(_SECONDS_BETWEEN_STARTS * 1000)
    finally:
        # Never on into the work of maintenance.
        os._exit(0)


def _run_jobs() -> None:
    """Run jobs until none is left."""
    end_with_parent(signal.SIGKILL)
    call_command("run_jobs", "--child")
