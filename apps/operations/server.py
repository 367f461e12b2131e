"""The server: gunicorn, with one maintenance process beside it that ends when gunicorn does.

The arbiter looks after its workers every second; here it looks after the maintenance process in the same step.
"""

import ctypes
import gc
import logging
import os
import signal
import subprocess
import sys
import time
from typing import Any

from django.conf import settings
from django.utils.module_loading import import_string
from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter

from apps.operations.edge.worker import Worker

logger = logging.getLogger(__name__)

_SECONDS_BETWEEN_STARTS = 5.0
_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>
_SHARED_MEMORY = "/dev/shm"  # noqa: S108  (gunicorn makes its own unguessable file there)


class Server(BaseApplication):  # type: ignore[misc]
    """gunicorn, configured from the settings."""

    def load_config(self) -> None:
        options: dict[str, Any] = {
            "bind": settings.BIND,
            "workers": settings.WORKERS,
            "worker_class": Worker,
            "timeout": settings.REQUEST_TIMEOUT,
            "graceful_timeout": 10,
            "loglevel": "warning" if settings.LOG_LEVEL == "info" else settings.LOG_LEVEL,
            "proc_name": "vectordb",
            "control_socket_disable": True,
            "pre_fork": lambda _arbiter, _worker: _freeze_heap(),
            "post_fork": _after_fork,
            "post_worker_init": lambda _worker: _freeze_heap(),
            # In memory where there is such a place: a heartbeat must not wait for a disk.
            "worker_tmp_dir": _SHARED_MEMORY if os.access(_SHARED_MEMORY, os.W_OK) else None,
        }
        for name, value in options.items():
            self.cfg.set(name, value)

    def load(self) -> Any:
        return import_string("vectordb.asgi.application")

    def run(self) -> None:
        _Supervisor(self).run()


class _Supervisor(Arbiter):  # type: ignore[misc]
    """gunicorn's master, which also keeps the maintenance process running."""

    maintain: subprocess.Popen[bytes] | None = None
    maintain_from = 0.0

    def manage_workers(self) -> None:
        super().manage_workers()
        is_running = self.maintain is not None and self.maintain.poll() is None
        if is_running or time.monotonic() < self.maintain_from:
            return
        if self.maintain is not None:
            logger.warning("the maintenance process ended; starting another")
        # It ends when this process does, since it then reads the end of its standard input.
        command = [sys.executable, str(settings.BASE_DIR / "manage.py"), "maintain", "--child"]
        self.maintain = subprocess.Popen(command, stdin=subprocess.PIPE)
        # One that dies at once is not started again at once.
        self.maintain_from = time.monotonic() + _SECONDS_BETWEEN_STARTS

    def halt(self, reason: str | None = None, exit_status: int = 0) -> None:
        if self.maintain is not None:
            self.maintain.terminate()
        super().halt(reason, exit_status)


def _freeze_heap() -> None:
    """What is there by now stays. The garbage collector need not go through it, which would take its time in the middle
    of a request, and write to memory that processes share."""
    gc.collect()
    gc.freeze()


def _after_fork(arbiter: _Supervisor, worker: Any) -> None:
    """In a new worker: let go of what is the master's alone."""
    # Maintenance ends when nobody holds the other end of its pipe.
    if arbiter.maintain is not None and arbiter.maintain.stdin is not None:
        arbiter.maintain.stdin.close()
    # Without its master a worker would hold the port until it looks, half a minute later. Linux tells it at once.
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    if prctl is not None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
