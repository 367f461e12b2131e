"""Deleting a library with all rows: time, and what the worker's memory grows by at its peak.

Beside it: the same rows deleted table by table by a bare sqlite3 connection, without triggers, in one transaction.
"""

import sqlite3
from pathlib import Path

import psutil

from benchmarks.client import call, call_json
from benchmarks.report import Row, at_most
from benchmarks.testbed import ALL, Testbed
from benchmarks.timing import seconds

_MIB = 1 << 20


def run(testbed: Testbed) -> list[Row]:
    bare = _bare(testbed.copy_of_filled())
    with testbed.serving(testbed.copy_of_filled(), VECTORDB_WORKERS=1) as server:
        [worker] = server.workers()
        # The worker's first request makes its connection; what that takes is not the deletion's.
        call_json(server.port, "GET", f"/api/v1/libraries/{ALL}")
        before = _peak(worker, reset=True)
        took = seconds(call, server.port, "DELETE", f"/api/v1/libraries/{ALL}")
        growth = _peak(worker) - before
        libraries = call_json(server.port, "GET", "/api/v1/libraries")["items"]
    assert ALL not in [library["id"] for library in libraries]
    return [
        Row(f"delete a library of {len(testbed.data):,}", took, "s", "bare sqlite3, no triggers", bare, at_most(10)),
        Row("growth of the worker's memory by it", growth / _MIB, "MiB", wanted=at_most(64)),
    ]


def _peak(process: psutil.Process, *, reset: bool = False) -> int:
    """The most memory, in bytes, that the process has held since the last reset."""
    folder = Path(f"/proc/{process.pid}")
    if reset:
        (folder / "clear_refs").write_text("5")
    line = next(line for line in (folder / "status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def _bare(folder: Path) -> float:
    database = sqlite3.connect(folder / "vectordb.sqlite3", isolation_level=None)
    for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
        database.execute(f"DROP TRIGGER {name}")
    database.execute("PRAGMA synchronous=FULL")
    chunks = (
        "SELECT id FROM vectordb_chunk WHERE library_id = (SELECT id FROM vectordb_library WHERE public_id = 'all')"
    )

    def delete() -> None:
        database.execute("BEGIN IMMEDIATE")
        database.execute(f"DELETE FROM vectordb_embedding WHERE chunk_id IN ({chunks})")
        database.execute(f"DELETE FROM vectordb_chunk WHERE id IN ({chunks})")
        database.execute("DELETE FROM vectordb_library WHERE public_id = 'all'")
        database.execute("COMMIT")

    took = seconds(delete)
    database.close()
    return took
