"""SQLite's write-ahead log does not grow with what is written, and its room is given back."""

import os
import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pytest
from django.db import connection

from apps.libraries.dialects import dialect_of
from apps.libraries.models import Library
from apps.search.snapshots import open_snapshot
from apps.telemetry import metrics

pytestmark = [pytest.mark.django_db(transaction=True, databases=["default", "snapshot"]), pytest.mark.sqlite]

MEBIBYTE = 1 << 20


def size() -> int:
    return Path(f"{connection.settings_dict['NAME']}-wal").stat().st_size


def write(mebibytes: int) -> None:
    for _ in range(mebibytes):
        # Pages that stay as they were are not written.
        Library.objects.update_or_create(public_id="a", defaults={"name": os.urandom(MEBIBYTE // 2).hex()})


def limit_wal(*, is_quiet: bool = False) -> None:
    dialect_of(connection).limit_wal(connection, is_quiet=is_quiet)
    with connection.cursor() as cursor:
        cursor.execute("PRAGMA busy_timeout")
        assert cursor.fetchone()[0] > 1000, "all else waits for others as before"


def steps() -> float:
    """How many last steps of checkpoints were counted, by how long they took."""
    return sum(sum(counts[:-1]) for counts in metrics.CHECKPOINT_SECONDS.series.values())


def test_the_log_is_written_from_its_beginning_again_and_emptied_when_nobody_writes() -> None:
    counted = steps()
    limit_wal(is_quiet=True)
    assert size() == 0
    assert steps() == counted + 1
    for _ in range(3):
        write(10)
        limit_wal()
    assert 10 * MEBIBYTE < size() < 15 * MEBIBYTE
    with open_snapshot() as snapshot:
        assert snapshot.library("a") is not None
        write(1)
        limit_wal(is_quiet=True)
        assert size() > 10 * MEBIBYTE, "a reader needs it"
    limit_wal(is_quiet=True)
    assert size() == 0


def test_a_checkpoint_waits_for_the_writer_before_it() -> None:
    """Longer than for readers: or its turns would be over before the writers' ends, and the log would grow."""
    write(1)
    counted = steps()
    name = connection.settings_dict["NAME"]
    with closing(sqlite3.connect(name, isolation_level=None, check_same_thread=False)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        writes_for_a_while = threading.Timer(0.2, writer.execute, ["COMMIT"])
        writes_for_a_while.start()
        limit_wal(is_quiet=True)
        writes_for_a_while.join()
    assert size() == 0
    assert steps() == counted + 1, "the first try is the last"
