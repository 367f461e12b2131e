"""The process that runs jobs: a child of maintenance with an interpreter of its own, there while jobs are."""

import logging
import os
import subprocess
import sys
import time
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Self

from django.conf import settings

from apps.telemetry.slots import try_lock
from apps.transfer.jobs import waiting_jobs

logger = logging.getLogger(__name__)

# Where `apps` and `vectordb` are.
_ROOT = Path(__file__).resolve().parents[2]
_SECONDS_BETWEEN_STARTS = 5.0
_SECONDS_TO_END = 2.0


def jobs_lock() -> AbstractContextManager[bool]:
    """Try to lock the data folder for running jobs while the block runs; gives False where another process has it."""
    return try_lock(settings.DATA_DIR / "jobs.lock")


class JobProcess:
    """Starts the process when there are jobs, again if it dies, and ends it with the block."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._not_before = 0.0

    def tick(self) -> None:
        """Start the process if there are jobs and it does not run. Raise DatabaseError, OSError."""
        if self._process is not None:
            status = self._process.poll()
            if status is None:
                return
            self._forget()
            if status:
                logger.warning("the process of jobs ended with %d", status)
                self._not_before = time.monotonic() + _SECONDS_BETWEEN_STARTS
        if time.monotonic() >= self._not_before and waiting_jobs().exists():
            # This program, wherever it is installed. The child ends when its standard input does.
            path = os.pathsep.join(filter(None, [str(_ROOT), os.environ.get("PYTHONPATH")]))
            self._process = subprocess.Popen(
                [sys.executable, "-m", "django", "run_jobs", "--child"],
                env=os.environ | {"PYTHONPATH": path, "DJANGO_SETTINGS_MODULE": "vectordb.settings"},
                stdin=subprocess.PIPE,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self._process is not None:
            assert self._process.stdin is not None
            self._process.stdin.close()
            try:
                self._process.wait(_SECONDS_TO_END)
            except subprocess.TimeoutExpired:
                self._process.kill()
            self._forget()

    def _forget(self) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()
        self._process = None
