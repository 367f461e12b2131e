"""`manage.py maintain`: what is done beside the queries, for as long as it runs."""

import logging
import os
import time
from threading import Event, Thread
from typing import Any

from django.core.management.base import CommandParser
from django.db import connections

from apps.engine import kernels
from apps.indexing.indexer import Indexer
from apps.indexing.policy import DEFAULT_POLICY
from apps.indexing.recall_watch import RecallWatch
from apps.indexing.reembedder import Reembedder
from apps.indexing.upkeep import delete_expired_rows, retry_later_on_transient_errors, run_upkeep
from apps.libraries.dialects import FilesState, database_files, is_damaged, is_full
from apps.operations.checkpoints import limited_wal
from apps.operations.job_process import JobStarter, jobs_lock
from apps.operations.management.base import DatabaseCommand, one_sentence_errors
from apps.operations.process import Stop, maintenance_lock, raise_open_file_limit, stop_on_signals
from apps.telemetry import metrics, processes, slots
from apps.transfer.backups.catalog import request_backup_if_due
from apps.transfer.job_runner import run_jobs
from apps.transfer.jobs import delete_old_jobs, prepare_metrics, waiting_jobs

logger = logging.getLogger(__name__)

_SECONDS_BETWEEN_TRIES = 5.0


class Command(DatabaseCommand):
    help = (
        "Build index files, run jobs, move libraries to other embedding models, delete what has expired, prune the "
        "change log, keep the database in shape. The command serve starts this by itself."
    )

    # `serve` has run them.
    requires_system_checks = []

    requires_database = False

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
        # Before there are threads and connections.
        jobs = None if options["once"] else JobStarter()
        stop = stop_on_signals(is_child=options["child"])
        status = 0
        while not stop.asked:
            with maintenance_lock() as is_locked:
                if is_locked:
                    # Another version may have migrated while this one waited.
                    self.check_migrations()
                    if jobs is not None:
                        with limited_wal(), jobs:
                            if options["child"]:
                                # On Linux, of this thread and those that it starts. That of checkpoints is none of
                                # these: where others take the processor, writers would wait for it all the longer.
                                os.nice(10)
                            _maintain(stop, jobs, _load_kernels(stop))
                    elif not _maintain_once(stop, _load_kernels(stop)):
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


def _load_kernels(stop: Stop) -> Event:
    """Let a thread load the kernels, which on a new machine are compiled first. Return what is set when it has ended;
    then `stop` wakes, too."""
    has_tried = Event()

    def load() -> None:
        try:
            kernels.load()
        finally:
            has_tried.set()
            stop.wake()
        if kernels.are_missing():
            logger.warning(kernels.MISSING)

    Thread(target=load, name="kernels", daemon=True).start()
    return has_tried


def _maintain(stop: Stop, jobs: JobStarter, has_tried_kernels: Event) -> None:
    """Maintain until `stop`. What builds index files waits for the kernels, jobs do not."""
    policy = DEFAULT_POLICY
    indexer, reembedder = Indexer(policy, on_merge_end=stop.wake), Reembedder()
    watch = RecallWatch(indexer.views, policy.keep_view_bytes)
    slots.share("maintenance", processes.set_gauges)
    metrics.MAINTAINING.set(1)
    prepare_metrics()
    upkeep_at = sweep_at = time.monotonic()
    while not stop.asked:
        now, is_busy = time.monotonic(), False
        files = database_files()
        if files is FilesState.REPLACED:
            logger.warning("the files of the database were replaced: maintenance ends, and starts on what is there")
            return
        if not jobs.is_alive:
            logger.warning("the process that starts jobs ended: maintenance ends, to be started with another")
            return
        if files is FilesState.MISSING or is_damaged():
            stop.wait(policy.tick_seconds)
            continue
        if now >= upkeep_at:
            run_upkeep(indexer, policy, is_sweep_due=now >= sweep_at)
            upkeep_at = now + policy.upkeep_seconds
            if now >= sweep_at:
                with retry_later_on_transient_errors("deletion of old jobs"):
                    delete_old_jobs()
                sweep_at = now + policy.sweep_seconds
        with retry_later_on_transient_errors("start of jobs"):
            request_backup_if_due()
            jobs.tick()
        if not has_tried_kernels.is_set():
            stop.wait(policy.tick_seconds)
            continue
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


def _maintain_once(stop: Stop, has_tried_kernels: Event) -> bool:
    """Do all there is to do. Return True if all is done; the log says what is not."""
    is_all_embedded = is_all_built = are_jobs_done = False
    indexer = Indexer(on_merge_end=stop.wake)
    with retry_later_on_transient_errors("deletion of what has expired"):
        while not (delete_expired_rows() or stop.asked):
            pass
    is_upkeep_done = run_upkeep(indexer)
    with retry_later_on_transient_errors("jobs"):
        with jobs_lock() as is_locked:
            if is_locked:
                run_jobs(lambda: stop.asked)
        are_jobs_done = not waiting_jobs().exists()
    while not (has_tried_kernels.wait(0.1) or stop.asked):
        pass
    with retry_later_on_transient_errors("re-embedding"):
        is_all_embedded = Reembedder().run(lambda: stop.asked)
    with retry_later_on_transient_errors("building of indexes"):
        is_all_built = indexer.run_all_until_done(lambda: stop.asked)
    return is_upkeep_done and are_jobs_done and is_all_embedded and is_all_built
