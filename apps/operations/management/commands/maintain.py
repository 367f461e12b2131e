"""`manage.py maintain`: what is done beside the queries, for as long as it runs."""

import contextlib
import logging
import os
import queue
import signal
import threading
import time
from typing import Any

from django.core.management.base import BaseCommand, CommandParser
from django.db import connections

from apps.engine import kernels
from apps.indexing.indexer import Indexer
from apps.indexing.policy import DEFAULT_POLICY
from apps.indexing.recall_watch import RecallWatch
from apps.indexing.reembedder import Reembedder
from apps.indexing.upkeep import delete_expired_rows, retry_later_on_transient_errors, run_upkeep
from apps.libraries.dialects import FilesState, database_files, is_damaged, is_full
from apps.operations.checkpoints import limited_wal
from apps.operations.management.base import one_sentence_errors
from apps.operations.process import maintenance_lock, raise_open_file_limit
from apps.telemetry import metrics, processes, slots

logger = logging.getLogger(__name__)

_SECONDS_BETWEEN_TRIES = 5.0


class Command(BaseCommand):
    help = (
        "Build index files, move libraries to other embedding models, delete what has expired, prune the change log, "
        "keep the database in shape. `manage.py serve` starts this by itself."
    )

    # `serve` has run them.
    requires_system_checks = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--once",
            action="store_true",
            help="do all there is to do, not waiting for libraries to be quiet, and end, with 1 if not all was done",
        )
        parser.add_argument("--child", action="store_true", help="end when standard input does")

    @one_sentence_errors()
    def handle(self, *args: Any, **options: Any) -> None:
        raise_open_file_limit()
        stop = _Stop()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.ask())
        if options["child"]:
            os.nice(10)
            threading.Thread(target=_wait_for_end_of_input, args=(stop,), daemon=True).start()
        status = 0
        while not stop.asked:
            with maintenance_lock() as is_locked:
                if is_locked:
                    _load_kernels(stop)
                    if not options["once"]:
                        with limited_wal():
                            _maintain(stop)
                    elif not _maintain_once(stop):
                        status = 1
                    break
            if options["once"]:
                self.stderr.write("Another process maintains this data folder already.")
                status = 1
                break
            stop.wait(_SECONDS_BETWEEN_TRIES)
        # The last one to close the database moves its WAL into it.
        connections.close_all()
        # A merge in compiled code cannot be told to end. What it leaves is swept.
        self.stdout.flush()
        self.stderr.flush()
        os._exit(status)


class _Stop:
    """Whether the process is asked to end, and a sleep that ends when it is or when there is news."""

    def __init__(self) -> None:
        self.asked = False
        # A signal may arrive while the lock of an Event is held, and would never end; a SimpleQueue has none.
        self._news: queue.SimpleQueue[None] = queue.SimpleQueue()

    def ask(self) -> None:
        self.asked = True
        self.wake()

    def wake(self) -> None:
        self._news.put(None)

    def wait(self, seconds: float) -> None:
        with contextlib.suppress(queue.Empty):
            self._news.get(timeout=seconds)


def _load_kernels(stop: _Stop) -> None:
    """Load the kernels, which on a new machine are compiled first, unless the process is asked to end."""
    loading = kernels.load_in_background()
    while loading.is_alive() and not stop.asked:
        stop.wait(0.1)
    if kernels.are_missing():
        logger.warning(kernels.MISSING)


def _maintain(stop: _Stop) -> None:
    policy = DEFAULT_POLICY
    indexer, reembedder = Indexer(policy, on_merge_end=stop.wake), Reembedder()
    watch = RecallWatch(indexer.views, policy.keep_view_bytes)
    slots.share("maintenance", processes.set_gauges)
    metrics.MAINTAINING.set(1)
    upkeep_at = sweep_at = time.monotonic()
    while not stop.asked:
        now, is_busy = time.monotonic(), False
        files = database_files()
        if files is FilesState.REPLACED:
            logger.warning("the files of the database were replaced: maintenance ends, and starts on what is there")
            return
        if files is FilesState.MISSING or is_damaged():
            stop.wait(policy.tick_seconds)
            continue
        if now >= upkeep_at:
            run_upkeep(indexer, policy, is_sweep_due=now >= sweep_at)
            upkeep_at = now + policy.upkeep_seconds
            sweep_at = now + policy.sweep_seconds if now >= sweep_at else sweep_at
        # On a full disk index files would take the room that deletes need.
        if not is_full():
            with retry_later_on_transient_errors("re-embedding"):
                reembedder.tick()
            with retry_later_on_transient_errors("building of indexes"):
                is_busy = indexer.tick(lambda: stop.asked)
        with retry_later_on_transient_errors("recall watch"):
            watch.tick()
        if not is_busy and not stop.asked:
            stop.wait(policy.tick_seconds)


def _maintain_once(stop: _Stop) -> bool:
    """Do all there is to do. Return True if all is done; the log says what is not."""
    is_all_embedded = is_all_built = False
    indexer = Indexer(on_merge_end=stop.wake)
    with retry_later_on_transient_errors("deletion of what has expired"):
        while not (delete_expired_rows() or stop.asked):
            pass
    is_upkeep_done = run_upkeep(indexer)
    with retry_later_on_transient_errors("re-embedding"):
        is_all_embedded = Reembedder().run(lambda: stop.asked)
    with retry_later_on_transient_errors("building of indexes"):
        is_all_built = indexer.run_all_until_done(lambda: stop.asked)
    return is_upkeep_done and is_all_embedded and is_all_built


def _wait_for_end_of_input(stop: _Stop) -> None:
    # Not by sys.stdin: its lock, held by this thread at the end, would make the interpreter abort.
    while os.read(0, 1):
        pass
    stop.ask()
