"""`manage.py run_jobs`: what jobs are to do, until none is left."""

import os
from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.db import connections

from apps.operations.job_process import jobs_lock
from apps.operations.management.base import DatabaseCommand, one_sentence_errors
from apps.operations.process import (
    collect_garbage_rarely,
    raise_open_file_limit,
    stop_on_signals,
    switch_threads_often,
)
from apps.telemetry import processes, slots
from apps.transfer.job_runner import run_jobs


class Command(DatabaseCommand):
    help = "Run the jobs of this data folder, and end when none is left. Maintenance starts this by itself."

    # `serve` has run them.
    requires_system_checks = []

    requires_database = False

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--child", action="store_true", help="end when standard input does")

    @one_sentence_errors()
    def handle(self, *args: Any, **options: Any) -> None:
        raise_open_file_limit()
        stop = stop_on_signals(is_child=options["child"])
        if options["child"]:
            os.nice(5)
            collect_garbage_rarely()
            switch_threads_often()
        with jobs_lock() as is_locked:
            if not is_locked:
                raise CommandError("Another process runs the jobs of this data folder already.")
            if options["child"]:
                slots.share("jobs", processes.set_gauges)
            run_jobs(lambda: stop.asked)
            slots.flush()
        connections.close_all()
        self.stdout.flush()
        self.stderr.flush()
        if options["child"]:
            # A thread may be in the middle of a step, which is begun again next time.
            os._exit(0)
