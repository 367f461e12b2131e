"""`manage.py maintain`: what is done beside the queries, for as long as it runs."""

import contextlib
import itertools
import logging
import os
import queue
import signal
import threading
from collections.abc import Iterator
from typing import Any

from django.core.management.base import BaseCommand, CommandParser
from django.db import DatabaseError, close_old_connections, connections

from apps.engine import kernels
from apps.indexing import upkeep as maintenance
from apps.indexing.indexer import Indexer
from apps.indexing.reembedder import Reembedder
from apps.operations import descriptors
from apps.operations.locks import only_one_maintains

logger = logging.getLogger(__name__)

_INTERVAL = 1.0
_SECONDS_BETWEEN_TRIES = 5.0
_ROUNDS_PER_UPKEEP = 5
# Pruning looks at the whole log, sweeping at all folders.
_ROUNDS_PER_PRUNING = 60


class Command(BaseCommand):
    help = (
        "Build index files, move libraries to other embedding models, prune the change log, keep the database in "
        "shape. `manage.py serve` starts this by itself."
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

    def handle(self, *args: Any, **options: Any) -> None:
        descriptors.raise_open_file_limit()
        stop = _Stop()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.ask())
        if options["child"]:
            os.nice(10)
            threading.Thread(target=_wait_for_end_of_input, args=(stop,), daemon=True).start()
        status = 0
        while not stop.asked:
            with only_one_maintains() as alone:
                if alone:
                    _load_kernels(stop)
                    if not options["once"]:
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
        # A job that builds in compiled code cannot be told to end, and what it leaves is swept.
        self.stdout.flush()
        self.stderr.flush()
        os._exit(status)


class _Stop:
    """Whether the process is asked to end, and a sleep that ends when it is or when there is news."""

    def __init__(self) -> None:
        self.asked = False
        # An event could be set by a signal while its own lock is held, for ever; a simple queue takes that.
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


def _maintain(stop: _Stop) -> None:
    indexer, reembedder = Indexer(on_job_end=stop.wake), Reembedder()
    for number in itertools.count():
        busy = False
        _upkeep(indexer, number)
        with _put_off_by_what_passes("re-embedding"):
            reembedder.tick()
        with _put_off_by_what_passes("building of indexes"):
            busy = indexer.round(lambda: stop.asked)
        if not busy and not stop.asked:
            stop.wait(_INTERVAL)
        if stop.asked:
            return


def _maintain_once(stop: _Stop) -> bool:
    """Do all there is to do; answers whether all is done. The log says what is not."""
    is_all_embedded = is_all_built = False
    indexer = Indexer(on_job_end=stop.wake)
    is_kept_up = _upkeep(indexer, 0)
    with _put_off_by_what_passes("re-embedding"):
        is_all_embedded = Reembedder().run(lambda: stop.asked)
    with _put_off_by_what_passes("building of indexes"):
        is_all_built = indexer.run_all_until_done(lambda: stop.asked)
    return is_kept_up and is_all_embedded and is_all_built


def _wait_for_end_of_input(stop: _Stop) -> None:
    # Not by sys.stdin: its lock, held by this thread at the end, would make the interpreter abort.
    while os.read(0, 1):
        pass
    stop.ask()


def _upkeep(indexer: Indexer, number: int) -> bool:
    """What is due in the round of this number besides indexes and embeddings; answers whether all of it was done."""
    is_swept = is_kept_up = False
    # A full disk stops the database's upkeep; sweeping may make room.
    with _put_off_by_what_passes("sweeping of index files"):
        if number % _ROUNDS_PER_PRUNING == 0:
            indexer.sweep()
        is_swept = True
    with _put_off_by_what_passes("upkeep of the database"):
        if number % _ROUNDS_PER_UPKEEP == 0:
            maintenance.run(prune=number % _ROUNDS_PER_PRUNING == 0)
        is_kept_up = True
    return is_swept and is_kept_up


@contextlib.contextmanager
def _put_off_by_what_passes(what: str) -> Iterator[None]:
    """Give up the rest for now where the database, the disk or memory fails."""
    try:
        yield
    except (DatabaseError, OSError, MemoryError) as error:
        logger.warning("%s is put off: %s", what, error)
        close_old_connections()
