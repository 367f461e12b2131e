"""What a process may open and is called, which one maintains a data folder, and how one ends."""

import contextlib
import ctypes
import gc
import logging
import os
import queue
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, NoReturn

from django.conf import settings
from django.core.management import CommandError

from apps.telemetry.slots import try_lock

# <linux/prctl.h>
_PR_SET_PDEATHSIG, _PR_SET_NAME = 1, 15
_OBJECTS_BETWEEN_COLLECTIONS = 50_000
# How long a thread may run Python while another one waits: Python's own, and a tenth of it.
_USUAL_SECONDS, _SHORT_SECONDS = 0.005, 0.0005


def raise_open_file_limit() -> None:
    """Raise the limit as far as the system allows, for this process and its children; the usual one is low."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # macOS names no hard limit, and refuses to go that far.
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def collect_garbage_rarely() -> None:
    """Let this process look for garbage less often, and never among what is there by now. A batch of rows is some ten
    thousand objects without a cycle: to look through them again and again takes a sixth of an import."""
    gc.freeze()
    gc.set_threshold(_OBJECTS_BETWEEN_COLLECTIONS)


def switch_threads_often(wanted: bool = True) -> None:
    """Let a thread of this process that comes back from the database wait less for another one that runs Python, or as
    long as usual if that is not `wanted`. An import comes back some thirty times for each batch of rows, and a query,
    beside writes, for each statement. Queries alone lose a little by it."""
    sys.setswitchinterval(_SHORT_SECONDS if wanted else _USUAL_SECONDS)


def name_process(name: bytes) -> None:
    """Let `top` and `ps -A` call this process by a name, where the system can."""
    _control_process(_PR_SET_NAME, name)


def end_with_parent(number: int) -> None:
    """Let this process get a signal when its parent dies, where the system can (Linux)."""
    _control_process(_PR_SET_PDEATHSIG, number)


def run_to_end(act: Callable[[], None], logger: logging.Logger, failure: str) -> NoReturn:
    """In a process that was just forked: do `act` and nothing else, never on into its parent's work. Of an error that
    is none of a command, the log says `failure`."""
    try:
        act()
    except CommandError as error:
        logger.error("%s", error)
    except Exception:
        logger.exception(failure)
    finally:
        os._exit(1)


def is_running(child: int) -> bool:
    """Whether a child of this process has not ended."""
    try:
        return os.waitpid(child, os.WNOHANG) == (0, 0)
    except ChildProcessError:  # somebody has waited for it
        return False


def wait_while(condition: Callable[[], bool], seconds: float) -> None:
    """Wait until `condition` is no more, for some seconds at most."""
    deadline = time.monotonic() + seconds
    while condition() and time.monotonic() < deadline:
        time.sleep(0.02)


def _control_process(option: int, value: Any) -> None:
    """Call prctl(2), where the system has it."""
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    if prctl is not None:
        prctl(option, value)


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
