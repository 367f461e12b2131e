"""Writers of a SQLite database take turns, so that none waits while others write again and again."""

import gc
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from django.db import DatabaseError, connection, transaction

from apps.libraries.dialects import dialect_of
from apps.libraries.dialects.base import Failure
from apps.libraries.dialects.sqlite_backend import locks, turns
from apps.libraries.models import Library
from tests.server import ROOT, until

pytestmark = [pytest.mark.django_db(transaction=True, databases=["default", "snapshot"]), pytest.mark.sqlite]

WRITERS, WRITES = 6, 25
# Three threads that take turns for ever, and tell of each in a file.
_BUSY_PROCESS = """
import sys, threading, time
from apps.libraries.dialects.sqlite_backend.turns import turn

def take_turns():
    while True:
        with turn(sys.argv[1], time.monotonic() + 60), open(sys.argv[2], "ab", 0) as taken:
            taken.write(b".")
            time.sleep(0.003)

for _ in range(3):
    threading.Thread(target=take_turns).start()
"""


def run_together(*works: Callable[[], None]) -> None:
    failed: list[BaseException] = []

    def run(work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:
            failed.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=run, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # What Django raised keeps a cursor, and that the database open.
    gc.collect()
    assert not failed


def test_no_writer_is_passed_again_and_again() -> None:
    turns_taken: list[int] = []
    passed: list[int] = []

    def write_in_transactions() -> None:
        for _ in range(WRITES):
            before = len(turns_taken)
            with transaction.atomic():
                passed.append(len(turns_taken) - before)
                turns_taken.append(1)
                # A while, of which the processor is free.
                time.sleep(0.003)

    def write_alone() -> None:
        for number in range(WRITES):
            before = len(turns_taken)
            Library.objects.filter(public_id="a").update(dimension=number + 1)
            passed.append(len(turns_taken) - before)

    Library.objects.create(public_id="a", name="a")
    run_together(*[write_in_transactions] * WRITERS, write_alone)
    assert len(turns_taken) == WRITERS * WRITES
    # All others may be before it, and once more where they came while it was counting; a busy machine adds a few.
    assert sum(count > 2 * WRITERS for count in passed) <= 3


def test_no_process_is_passed_again_and_again(tmp_path: Path) -> None:
    path, taken = str(tmp_path / "locks"), tmp_path / "taken"
    taken.touch()
    passed: list[int] = []
    with subprocess.Popen([sys.executable, "-c", _BUSY_PROCESS, path, taken], cwd=ROOT) as busy:
        try:
            before = 0
            for _ in range(WRITES):
                until(lambda seen=before: taken.stat().st_size > seen, "the other process takes turns")  # type: ignore[misc]
                before = taken.stat().st_size
                with turns.turn(path, time.monotonic() + 60):
                    passed.append(taken.stat().st_size - before)
        finally:
            busy.kill()
    # The one that had its turn, and one that waited before; a busy machine adds a few.
    assert sum(count > 4 for count in passed) <= 3


def test_who_waits_for_too_long_is_told_that_it_is_busy() -> None:
    holds, may_end = threading.Event(), threading.Event()

    def hold() -> None:
        with transaction.atomic():
            Library.objects.create(public_id="a", name="a")
            holds.set()
            may_end.wait()

    def wait() -> None:
        holds.wait()
        try:
            for write in (transaction.atomic().__enter__, lambda: Library.objects.filter(public_id="a").delete()):
                connection.ensure_connection()
                connection.connection.timeout = 0
                with pytest.raises(DatabaseError) as error:
                    write()
                assert dialect_of(connection).failure(error.value) is Failure.BUSY
        finally:
            may_end.set()

    run_together(hold, wait)
    assert Library.objects.filter(public_id="a").exists()


def test_a_turn_begins_at_its_deadline_and_without_a_file() -> None:
    path = locks.path_of(connection)
    with turns.turn(path, time.monotonic() + 60):
        ended: list[bool] = []

        def take() -> None:
            with turns.turn(path, time.monotonic()):
                ended.append(True)

        run_together(take)
        assert ended
    with turns.turn("/proc/no such folder/locks", time.monotonic() + 60):
        pass
