"""`manage.py maintain`: what is done beside the queries, for as long as it runs."""

import fcntl
import itertools
import logging
import os
import signal
import threading
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandParser
from django.db import DatabaseError, close_old_connections

from apps.search import maintenance

logger = logging.getLogger(__name__)

_INTERVAL = 5.0
# Pruning looks at the whole log.
_ROUNDS_PER_PRUNING = 12


class Command(BaseCommand):
    help = "Prune the change log and keep the database in shape. `manage.py serve` starts this by itself."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--once", action="store_true", help="do one round and end")
        parser.add_argument("--child", action="store_true", help="end when standard input does")

    def handle(self, *args: Any, **options: Any) -> None:
        stop = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
        if options["child"]:
            os.nice(10)
            threading.Thread(target=_wait_for_end_of_input, args=(stop,), daemon=True).start()
        with open(settings.DATA_DIR / "maintain.lock", "w") as lock:
            while not _locked(lock.fileno()):
                if options["once"]:
                    self.stderr.write("Another process maintains this data folder already.")
                    return
                if stop.wait(_INTERVAL):
                    return
            for round_number in itertools.count():
                _round(prune=round_number % _ROUNDS_PER_PRUNING == 0)
                if options["once"] or stop.wait(_INTERVAL):
                    return


def _wait_for_end_of_input(stop: threading.Event) -> None:
    # Not by sys.stdin: its lock, held by this thread at the end, would make the interpreter abort.
    while os.read(0, 1):
        pass
    stop.set()


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _round(*, prune: bool) -> None:
    try:
        maintenance.run(prune=prune)
    except DatabaseError as error:
        logger.warning("maintenance is put off: %s", error)
        close_old_connections()
