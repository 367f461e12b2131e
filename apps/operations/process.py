"""What a process may open, which one maintains a data folder, and how one ends."""

import contextlib
import os
import queue
import resource
import signal
import threading
from contextlib import AbstractContextManager

from django.conf import settings

from apps.telemetry.slots import try_lock


def raise_open_file_limit() -> None:
    """Raise the limit as far as the system allows, for this process and its children; the usual one is low."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # macOS names no hard limit, and refuses to go that far.
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def maintenance_lock() -> AbstractContextManager[bool]:
    """Try to lock the data folder for maintenance while the block runs; gives False where another process has it."""
    return try_lock(settings.DATA_DIR / "maintain.lock")


class Stop:
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


def stop_on_signals(*, is_child: bool) -> Stop:
    """Return what says that the process is to end, by a signal; of a child, by the end of its standard input too, which
    comes with that of its parent."""
    stop = Stop()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.ask())
    if is_child:
        threading.Thread(target=_wait_for_end_of_input, args=(stop,), daemon=True).start()
    return stop


def _wait_for_end_of_input(stop: Stop) -> None:
    # Not by sys.stdin: its lock, held by this thread at the end, would make the interpreter abort.
    while os.read(0, 1):
        pass
    stop.ask()
