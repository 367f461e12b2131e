"""The server: gunicorn, with one maintenance process beside it that ends when gunicorn does.

The arbiter looks after its workers every second; here it looks after the maintenance process in the same step.
"""

import contextlib
import gc
import logging
import os
import signal
import time
from functools import partial
from typing import Any

from django.conf import settings
from django.core.management import call_command
from django.utils.module_loading import import_string
from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter
from gunicorn.glogging import Logger

from apps.access.limits import prepare as prepare_counters
from apps.operations.edge.listener import Shares
from apps.operations.edge.worker import Worker
from apps.operations.process import end_with_parent, is_running, name_process, run_to_end, wait_while
from apps.search.cache import views
from apps.telemetry import processes, slots

logger = logging.getLogger(__name__)

_SECONDS_BETWEEN_STARTS = 5.0
# What maintenance has to end before its metrics are left behind.
_SECONDS_TO_END = 2.0
# gunicorn makes its own unguessable file there.
_SHARED_MEMORY = "/dev/shm"  # noqa: S108 # nosec B108


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
            "logger_class": _Logger,
            "proc_name": "vectordb",
            "control_socket_disable": True,
            "pre_fork": _before_fork,
            "post_fork": _after_fork,
            "child_exit": _after_death,
            "post_worker_init": _after_init,
            # In memory where there is such a place: a heartbeat must not wait for a disk.
            "worker_tmp_dir": _SHARED_MEMORY if os.access(_SHARED_MEMORY, os.W_OK) else None,
        }
        for name, value in options.items():
            self.cfg.set(name, value)

    def load(self) -> Any:
        return import_string("vectordb.asgi.application")

    def run(self) -> None:
        slots.clear()
        _Supervisor(self).run()


class _Logger(Logger):  # type: ignore[misc]
    """gunicorn's logger, whose lines go where all others go."""

    def setup(self, cfg: Any) -> None:
        super().setup(cfg)
        # uvicorn's worker takes them over, too.
        self.error_log.handlers = list(logging.getLogger().handlers)


class _Supervisor(Arbiter):  # type: ignore[misc]
    """gunicorn's master, which also keeps the maintenance process running.

    That is a fork too: it shares what the master has loaded, which would otherwise take it a second and 100 MB."""

    maintenance = 0  # the id of its process
    # It ends when nobody holds the other end of its standard input, as when this process has died.
    maintenance_input = -1
    maintenance_from = 0.0

    def __init__(self, app: Server) -> None:
        super().__init__(app)
        # While workers are replaced there are twice as many, and a signal may ask for more.
        columns = 4 * settings.WORKERS + 8
        self.counters, self.shares, self.free_columns = prepare_counters(columns), Shares(columns), list(range(columns))

    def manage_workers(self) -> None:
        super().manage_workers()
        if self.is_maintained() or time.monotonic() < self.maintenance_from:
            return
        if self.maintenance:
            logger.warning("the maintenance process ended; starting another")
            os.close(self.maintenance_input)
        their_input, self.maintenance_input = os.pipe()
        self.maintenance = os.fork()
        if not self.maintenance:
            run_to_end(partial(self.maintain, their_input), logger, "maintenance failed")
        os.close(their_input)
        # One that dies at once is not started again at once.
        self.maintenance_from = time.monotonic() + _SECONDS_BETWEEN_STARTS

    def is_maintained(self) -> bool:
        return bool(self.maintenance) and is_running(self.maintenance)

    def maintain(self, standard_input: int) -> None:
        """In a new process: let go of what is the master's alone, and maintain."""
        name_process(b"maintain")
        for number in (*self.SIGNALS, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        for owned in (*self.LISTENERS, *(worker.tmp for worker in self.WORKERS.values())):
            owned.close()
        os.close(self.maintenance_input)
        os.dup2(standard_input, 0)
        call_command("maintain", "--child")

    def halt(self, reason: str | None = None, exit_status: int = 0) -> None:
        if self.is_maintained():
            os.kill(self.maintenance, signal.SIGTERM)
        try:
            super().halt(reason, exit_status)
        finally:
            wait_while(self.is_maintained, _SECONDS_TO_END)
            with contextlib.suppress(OSError):
                slots.clear()


def _freeze_heap() -> None:
    """What is there by now stays. The garbage collector need not go through it, which would take its time in the middle
    of a request, and write to memory that processes share."""
    gc.collect()
    gc.freeze()


def _before_fork(arbiter: _Supervisor, worker: Any) -> None:
    """Give a worker a column of its own in the counters, which it inherits."""
    # Were there ever more workers than columns, some would share the first, whose counts are right until one dies.
    worker.column = arbiter.counters.column = arbiter.free_columns.pop() if arbiter.free_columns else 0
    worker.shares = arbiter.shares
    _freeze_heap()


def _after_death(arbiter: _Supervisor, worker: Any) -> None:
    """What a worker ran when it died runs no more."""
    arbiter.counters.clear(worker.column)
    arbiter.shares.leave(worker.column)
    if worker.column not in arbiter.free_columns:
        arbiter.free_columns.append(worker.column)


def _after_init(worker: Worker) -> None:
    """In a worker that is ready to serve: share what it counts."""

    def set_gauges() -> None:
        for one in (worker, views, processes):
            one.set_gauges()

    slots.share("worker", set_gauges)
    _freeze_heap()


def _after_fork(arbiter: _Supervisor, worker: Any) -> None:
    """In a new worker: let go of what is the master's alone."""
    if arbiter.maintenance:
        os.close(arbiter.maintenance_input)
    # Without its master a worker would hold the port until it looks, half a minute later. Linux tells it at once.
    end_with_parent(signal.SIGTERM)
