"""A library of dimension 3, its maintenance by policies that act on few rows, and what its files hold then."""

import sys
import time
from collections.abc import Callable
from concurrent.futures import wait
from dataclasses import replace
from pathlib import Path
from typing import Any

from django.conf import settings

from apps.indexing.indexer import Indexer
from apps.indexing.policy import IndexingPolicy
from apps.indexing.stats import library_stats
from apps.indexing.verification import verify_library
from apps.libraries.inputs import LibraryCreate
from apps.libraries.models import Library
from apps.libraries.services.chunks import delete_chunks
from apps.libraries.services.libraries import create_library
from apps.search.cache import ViewCache
from apps.search.loading import LoadedView
from tests.search.chunks import noise, upsert
from tests.search.views import shown
from tests.server import until

SEAL, SEAL_WHEN_QUIET, COMPACT = 64, 16, 32

# Everything is done for few rows already.
POLICY = IndexingPolicy(
    seal_changes=SEAL, quiet_seal_changes=SEAL_WHEN_QUIET, slow_rows=SEAL, dead_rows=COMPACT, keep_changes=20
)
# All libraries are being written to; no library is; nobody has written to any for long.
BUSY = replace(POLICY, quiet_seconds=3600.0, very_quiet_seconds=7200.0)
QUIET = replace(POLICY, quiet_seconds=0.0)
VERY_QUIET = replace(POLICY, quiet_seconds=0.0, very_quiet_seconds=0.0)

reads_are_counted = sys.platform == "linux"


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def forward(self, seconds: float) -> None:
        self.now += seconds


def make_library(library_id: str = "a", index_type: str = "brute_force") -> Library:
    """An empty library under L2."""
    create = LibraryCreate(id=library_id, name="A", dimension=3, metric="euclidean", index_type=index_type)
    return create_library(create=create)


def settle(indexer: Indexer) -> None:
    """Let maintenance do what there is to do, merges included."""
    deadline = time.monotonic() + 120
    while indexer.tick() or indexer.running:
        for merge in list(indexer.running.values()):
            wait([merge.future], timeout=0.1)
        assert time.monotonic() < deadline, "maintenance finds no end"


def tick_until(indexer: Indexer, condition: Callable[[], Any], what: str) -> None:
    """Let maintenance tick until something comes true; slow builds go on."""
    until(lambda: (indexer.tick(), condition())[1], what)


def write(first: int, count: int = SEAL, library_id: str = "a") -> None:
    """Write the rows c<first>, c<first + 1> and so on."""
    upsert(noise([f"c{i}" for i in range(first, first + count)], seed=first), library_id)


def remove(first: int, count: int) -> None:
    """Delete the rows c<first>, c<first + 1> and so on."""
    delete_chunks(library_id="a", ids=[f"c{i}" for i in range(first, first + count)])


def reopened(library_id: str = "a") -> LoadedView:
    """What a process that starts answers from; it is what the database says, row by row and in its answers."""
    current = shown(ViewCache(), library_id)
    assert verify_library(library_id=library_id, sample=20, k=5).faults == 0
    return current


def sizes(library_id: str = "a") -> list[tuple[int, int]]:
    """Live and dead rows of the segments that have files."""
    return [(segment.live, segment.dead) for segment in reopened(library_id).view.segments if segment.name]


def live(library_id: str = "a") -> list[int]:
    """Live rows of the segments that have files."""
    return [live for live, _ in sizes(library_id)]


def pending(library_id: str = "a") -> int:
    """The number of rows that are in no file."""
    current = reopened(library_id)
    return len(current.view) - sum(segment.live for segment in current.view.segments if segment.name)


def index_stats(library_id: str = "a", policy: IndexingPolicy = POLICY) -> dict[str, Any]:
    """The statistics of a library's index."""
    return dict(library_stats(library_id=library_id, policy=policy)["index"])


def newest_files(library: Library) -> list[Path]:
    """All files of the newest manifest."""
    current = reopened()
    assert current.manifest is not None
    folder = settings.INDEX_DIR / library.uid
    names = [record.name for record in current.manifest.segments]
    found = [path for name in names for path in (folder / "segments" / name).rglob("*.npy")]
    return [*found, *(folder / "manifests" / str(current.manifest.number)).iterdir()]


def damage(path: Path) -> None:
    """Put another file in the place of one; a process that has mapped it keeps the old one."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.with_suffix(".new").write_bytes(content)
    path.with_suffix(".new").replace(path)


def bytes_read(act: Callable[[], object]) -> int:
    """The number of bytes that this process reads from files while `act` runs."""

    def so_far() -> int:
        return int(Path("/proc/self/io").read_text().split()[1])

    before = so_far()
    act()
    return so_far() - before
