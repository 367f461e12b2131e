"""What maintenance does to index files; through them nobody ever sees anything but the rows of the database."""

import contextlib
import logging
import os
import shutil
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from django.conf import settings
from django.db import connection, connections

from apps.engine import kernels
from apps.engine.indexes import registry
from apps.engine.indexes.base import NO_PARAMS, Checkpoint, Params, no_checkpoint
from apps.engine.indexes.brute_force import BruteForce
from apps.engine.indexes.matrix import Matrix
from apps.engine.indexes.registry import INDEX_TYPES
from apps.engine.metadata.filters import parse_filter
from apps.engine.vectors import DTYPE
from apps.indexing import indexer as indexing
from apps.indexing import merge as jobs
from apps.indexing import merge_policy as planning
from apps.indexing import upkeep as maintenance
from apps.indexing.indexer import Indexer
from apps.indexing.stats import library_stats
from apps.indexing.verification import verify_library
from apps.libraries.errors import NotFound
from apps.libraries.inputs import LibraryCreate, LibraryUpdate, Reindex
from apps.libraries.models import Change, Chunk, Embedding, Library
from apps.libraries.services.chunks import delete_chunks
from apps.libraries.services.libraries import create_library, delete_library, reindex_library, update_library
from apps.operations.management.commands import maintain
from apps.search import loading
from apps.search.cache import ViewCache
from apps.search.loading import LoadedView
from apps.search.query import service as services
from apps.search.query.spec import QuerySpec
from apps.search.snapshots import Snapshot, open_snapshot
from tests.limits import descriptors_left, files_of_at_most
from tests.search.chunks import noise, upsert
from tests.search.database import copy_database, execute, grow_log
from tests.search.views import live_rows, nearest, shown
from tests.server import until

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "snapshot"])

SEAL, SEAL_WHEN_QUIET, COMPACT = 64, 16, 32


@pytest.fixture(autouse=True)
def index_dir(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Index files in a folder of the test's own, and everything done for few rows already."""
    monkeypatch.setattr(settings, "INDEX_DIR", tmp_path / "index")
    monkeypatch.setattr(planning, "SEAL_CHANGES", SEAL)
    monkeypatch.setattr(planning, "_SEAL_CHANGES_WHEN_QUIET", SEAL_WHEN_QUIET)
    monkeypatch.setattr(jobs, "_SLOW_ROWS", SEAL)
    monkeypatch.setattr(planning, "_DEAD_ROWS", COMPACT)
    return tmp_path / "index"


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No library is being written to, for what maintenance knows."""
    monkeypatch.setattr(indexing, "_QUIET_SECONDS", 0.0)
    return


@pytest.fixture
def busy(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """All libraries are being written to, for what maintenance knows."""
    monkeypatch.setattr(indexing, "_QUIET_SECONDS", 3600.0)
    return


@pytest.fixture
def library() -> Library:
    """An empty library of dimension 3, under L2 and brute force."""
    return made()


def made(library_id: str = "a", index_type: str = "brute_force") -> Library:
    create = LibraryCreate(id=library_id, name="A", dimension=3, metric="euclidean", index_type=index_type)
    return create_library(create=create)


@pytest.fixture
def indexer() -> Indexer:
    return Indexer()


def settle(indexer: Indexer) -> None:
    """Let maintenance do what there is to do, jobs included."""
    deadline = time.monotonic() + 120
    while indexer.round() or indexer._jobs:
        assert time.monotonic() < deadline, "maintenance finds no end"


def write(first: int, count: int = SEAL, library_id: str = "a") -> None:
    """Rows c<first>, c<first + 1> and so on."""
    upsert(noise([f"c{i}" for i in range(first, first + count)], seed=first), library_id)


def remove(first: int, count: int) -> None:
    delete_chunks(library_id="a", ids=[f"c{i}" for i in range(first, first + count)])


def reopened(library_id: str = "a") -> LoadedView:
    """What who starts anew answers from; it is what the database says, row by row and in its answers."""
    current = shown(ViewCache(), library_id)
    assert verify_library(library_id=library_id, sample=20, k=5).faults == 0
    return current


def sizes(library_id: str = "a") -> list[tuple[int, int]]:
    """Live and dead rows of the segments that have files."""
    segments = () if (view := reopened(library_id).view) is None else view.segments
    return [(segment.live, segment.dead) for segment in segments if segment.name]


def live(library_id: str = "a") -> list[int]:
    return [live for live, _ in sizes(library_id)]


def pending(library_id: str = "a") -> int:
    """How many rows are in no file."""
    current = reopened(library_id)
    assert current.view is not None
    return len(current.view) - sum(segment.live for segment in current.view.segments if segment.name)


def index_stats(library_id: str = "a") -> dict[str, Any]:
    return dict(library_stats(library_id=library_id)["index"])


# Sealing.


def test_rows_are_sealed_when_there_are_many(library: Library, indexer: Indexer, busy: None) -> None:
    write(0, SEAL - 1)
    settle(indexer)
    assert (live(), pending()) == ([], SEAL - 1)
    write(SEAL, 1)
    settle(indexer)
    assert (live(), pending()) == ([SEAL], 0)
    write(SEAL + 1, SEAL - 1)
    settle(indexer)
    assert (live(), pending()) == ([SEAL], SEAL - 1)


@pytest.mark.parametrize(("index_type", "least"), [("brute_force", 1), ("auto", SEAL_WHEN_QUIET)])
def test_fewer_rows_are_sealed_when_the_library_is_quiet(
    indexer: Indexer, quiet: None, index_type: str, least: int
) -> None:
    made(index_type=index_type)
    if least > 1:
        write(0, least - 1)
        settle(indexer)
        assert live() == []
    write(least - 1, 1)
    settle(indexer)
    assert (live(), pending()) == ([least], 0)


def test_the_last_few_rows_are_sealed_when_a_library_has_been_quiet_for_long(
    indexer: Indexer, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    made(index_type="auto")
    for first, rows, expected in ((0, SEAL_WHEN_QUIET - 1, []), (100, 1, [SEAL_WHEN_QUIET])):
        write(first, rows)
        for _ in range(3):
            indexer.round()
            now[0] += 70.0
        assert live() == expected, "too few rows for files, if there are none"
    write(200, 1)
    indexer.round()
    now[0] += 59.0
    indexer.round()
    assert pending() == 1
    now[0] += 2.0
    indexer.round()
    assert (sorted(live()), pending()) == ([1, SEAL_WHEN_QUIET], 0)


def bytes_read(act: Callable[[], object]) -> int:
    """How many bytes this process reads from files meanwhile."""

    def so_far() -> int:
        return int(Path("/proc/self/io").read_text().split()[1])

    before = so_far()
    act()
    return so_far() - before


@pytest.mark.skipif(sys.platform != "linux", reason="counts what was read by /proc")
@pytest.mark.parametrize(("quiet_seconds", "very_quiet_seconds"), [(0.0, 0.0), (0.0, 3600.0), (3600.0, 3600.0)])
def test_files_of_idle_libraries_are_not_read_again_where_memory_has_no_place_for_all(
    monkeypatch: pytest.MonkeyPatch, quiet_seconds: float, very_quiet_seconds: float
) -> None:
    monkeypatch.setattr(settings, "MEMORY_BUDGET", 1)
    monkeypatch.setattr(indexing, "_QUIET_SECONDS", quiet_seconds)
    monkeypatch.setattr(indexing, "_VERY_QUIET_SECONDS", very_quiet_seconds)
    indexer, libraries = Indexer(), [made(name) for name in "bcd"]
    for library in libraries:
        for first in (0, 2000):
            write(first, 2000, library.public_id)
    for _ in range(3):
        for library in libraries:
            assert indexer.run_until_done(library.public_id) is None
        indexer.round()
    size = sum(path.stat().st_size for path in Path(settings.INDEX_DIR).rglob("*.npy"))
    indexer.sweep()
    assert bytes_read(indexer.round) < size // 20
    if quiet_seconds:
        # Too few changes to be sealed while a library is written to; then enough of them. The database is read anew.
        write(5000, SEAL // 2, "b")
        assert bytes_read(indexer.round) < size // 8
        write(6000, SEAL // 2, "b")
        settle(indexer)
        assert (live("b"), pending("b")) == ([4000, SEAL], 0)
        indexer.round()
        assert bytes_read(indexer.round) < size // 20
    # One that has changed is looked at.
    next(Path(settings.INDEX_DIR).rglob("vectors.npy")).unlink()
    indexer.sweep()
    assert bytes_read(indexer.round) > size // 20
    settle(indexer)
    assert all(verify_library(library_id=one.public_id, sample=10, k=3).faults == 0 for one in libraries)


def test_a_library_that_is_written_to_is_not_quiet(
    library: Library, indexer: Indexer, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    for first in range(5):
        write(first, 1)
        indexer.round()
        now[0] += 4.9
        indexer.round()
        assert live() == []
    now[0] += 0.2
    indexer.round()
    assert live() == [5]


def test_what_is_sealed_is_served_from_files_by_those_who_run_already(
    library: Library, indexer: Indexer, quiet: None
) -> None:
    worker = ViewCache()
    write(0)
    before = shown(worker)
    assert before.manifest is None
    settle(indexer)
    after = shown(worker)
    assert after.manifest is not None
    assert after.view is not None
    assert [segment.name for segment in after.view.segments] == [record.name for record in after.manifest.segments]
    assert (len(after.view), after.view.tail.live) == (SEAL, 0)
    write(SEAL, 3)
    again = shown(worker)
    assert again.view is not None
    assert again.view.segments == after.view.segments
    assert again.view.tail.live == 3


def test_changes_of_metadata_are_in_the_files(library: Library, indexer: Indexer, quiet: None) -> None:
    write(0)
    settle(indexer)
    Chunk.objects.update(metadata={"n": 1})
    settle(indexer)
    current = reopened()
    assert current.view is not None
    assert current.manifest is not None
    assert current.manifest.seq == current.state.position.seq
    assert current.view.tail.live == 0
    assert len(current.view.keys(current.view.matching(parse_filter({"n": 1})))) == len(current.view)


def test_when_there_is_nothing_to_do_nothing_is_done(library: Library, indexer: Indexer, quiet: None) -> None:
    write(0)
    settle(indexer)
    before = reopened().manifest
    for _ in range(3):
        assert not indexer.round()
    assert not Indexer().round()
    assert reopened().manifest == before


# What stats say of it.


@pytest.fixture
def very_quiet(quiet: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody has written to a library for long, for what maintenance knows."""
    monkeypatch.setattr(indexing, "_VERY_QUIET_SECONDS", 0.0)


@pytest.mark.parametrize(("index_type", "rows"), [("auto", SEAL_WHEN_QUIET - 1), ("auto", 0), ("brute_force", 0)])
def test_a_library_too_small_for_files_is_ready(indexer: Indexer, very_quiet: None, index_type: str, rows: int) -> None:
    made(index_type=index_type)
    if rows:
        write(0, rows)
    assert (index_stats()["state"], index_stats()["rows_pending"]) == ("ready", rows)
    settle(indexer)
    assert live() == []


@pytest.mark.parametrize(("index_type", "rows"), [("auto", SEAL_WHEN_QUIET), ("brute_force", 1)])
def test_a_library_is_building_until_its_rows_are_in_files(
    indexer: Indexer, very_quiet: None, index_type: str, rows: int
) -> None:
    made(index_type=index_type)
    for first in (0, 100):
        write(first, rows)
        assert (index_stats()["state"], index_stats()["rows_pending"]) == ("building", rows)
        settle(indexer)
        assert (index_stats()["state"], index_stats()["rows_pending"]) == ("ready", 0)


def _remove_one() -> None:
    remove(0, 1)


def _remove_many() -> None:
    remove(0, COMPACT)


def _write_one() -> None:
    write(1000, 1)


def _change_metadata() -> None:
    Chunk.objects.filter(public_id="c1").update(metadata={"n": 1})


def _wish_for_another_type() -> None:
    update_library(library_id="a", update=LibraryUpdate(index_type="kd_tree"))


def _ask_for_a_rebuild() -> None:
    reindex_library(library_id="a", reindex=Reindex())


def _add_one_by_one() -> None:
    for first in (1000, 2000):
        write(first, 1)


def _lose_the_files() -> None:
    shutil.rmtree(settings.INDEX_DIR)


@pytest.mark.parametrize("kind", ["auto", "brute_force"])
@pytest.mark.parametrize(
    "change",
    [
        _remove_one,
        _remove_many,
        _write_one,
        _change_metadata,
        _add_one_by_one,
        _wish_for_another_type,
        _ask_for_a_rebuild,
        _lose_the_files,
    ],
)
def test_state_is_building_exactly_while_there_is_something_to_do(
    indexer: Indexer, very_quiet: None, change: Callable[[], None], kind: str
) -> None:
    made(index_type=kind)
    write(0, 2 * COMPACT)
    settle(indexer)
    change()
    indexer.sweep()
    states = [index_stats()["state"]]
    while indexer.round() or indexer._jobs:
        states.append(index_stats()["state"])
    # The last state of those was seen before maintenance had found nothing more to do.
    assert set(states[:-1]) == {"building"}
    assert index_stats()["state"] == "ready"


def test_rows_that_are_in_no_segment_are_counted(library: Library, indexer: Indexer, quiet: None) -> None:
    write(0)
    settle(indexer)
    assert index_stats()["rows_tail"] == 0
    write(1000, 3)
    remove(1000, 1)
    told = index_stats()
    assert (told["rows_pending"], told["rows_tail"], told["segments"][0]["rows"]) == (2, 2, SEAL)
    settle(indexer)
    assert (index_stats()["rows_tail"], sum(one["rows"] for one in index_stats()["segments"])) == (0, SEAL + 2)


def test_files_of_which_not_all_processes_have_been_told_are_not_ready(
    library: Library, indexer: Indexer, very_quiet: None
) -> None:
    write(0)
    settle(indexer)
    execute("UPDATE vectordb_library SET manifest = 0")
    assert (index_stats()["rows_pending"], index_stats()["state"]) == (0, "building")
    settle(indexer)
    assert index_stats()["state"] == "ready"


def test_segments_that_will_be_merged_when_the_library_is_quiet_are_not_ready(
    library: Library, indexer: Indexer, busy: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for batch in range(2):
        write(batch * SEAL)
        settle(indexer)
    assert (live(), index_stats()["rows_pending"], index_stats()["state"]) == ([SEAL, SEAL], 0, "building")
    monkeypatch.setattr(indexing, "_QUIET_SECONDS", 0.0)
    settle(indexer)
    assert (live(), index_stats()["state"]) == ([2 * SEAL], "ready")


# Merging.


def test_four_segments_of_a_tier_become_one(library: Library, indexer: Indexer, busy: None) -> None:
    worker = ViewCache()
    for batches in range(1, 65):
        write(batches * SEAL)
        settle(indexer)
        manifest = shown(worker).manifest
        assert manifest is not None
        # Like a number to the base of four: so many segments of each tier as its digit says.
        assert len(manifest.segments) == sum(batches // 4**tier % 4 for tier in range(4))
    assert live() == [64 * SEAL]
    written = [len(np.load(path)) for path in settings.INDEX_DIR.glob("*/segments/*/keys.npy")]
    assert sum(written) == 4 * 64 * SEAL, "a row is written once when it is sealed, and once for each of three tiers"


def test_a_quiet_library_is_merged_further(library: Library, indexer: Indexer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(indexing, "_QUIET_SECONDS", 3600.0)
    for batch in range(6):
        write(batch * SEAL)
        settle(indexer)
    assert live() == [4 * SEAL, SEAL, SEAL]
    monkeypatch.setattr(indexing, "_QUIET_SECONDS", 0.0)
    settle(indexer)
    assert live() == [6 * SEAL]
    write(6 * SEAL, 1)
    settle(indexer)
    assert sorted(live()) == [1, 6 * SEAL], "one row is not worth copying all"
    write(6 * SEAL + 1, 1)
    settle(indexer)
    assert sorted(live()) == [2, 6 * SEAL]


@pytest.mark.parametrize("kind", INDEX_TYPES)
def test_merged_rows_are_in_an_index_of_the_wished_type(indexer: Indexer, quiet: None, kind: str) -> None:
    made(index_type=kind)
    for first in (0, 100, 200):
        write(first, 100)
        settle(indexer)
    assert [(one["kind"], one["rows"]) for one in index_stats()["segments"]] == [(kind, 300)]
    assert {**index_stats(), "bytes": 0, "built_at": "", "segments": []} == {
        "kind": kind,
        "state": "ready",
        "error": None,
        "warning": None,
        "rows_indexed": 300,
        "rows_pending": 0,
        "rows_tail": 0,
        "rows_dead": 0,
        "bytes": 0,
        "built_at": "",
        "segments": [],
    }


def test_segments_with_many_dead_rows_are_copied_without_them(library: Library, indexer: Indexer, busy: None) -> None:
    write(0, 4 * COMPACT)
    settle(indexer)
    remove(0, COMPACT - 1)
    write(1000, SEAL)
    settle(indexer)
    assert sizes() == [(3 * COMPACT + 1, COMPACT - 1), (SEAL, 0)]
    remove(COMPACT - 1, 1)
    write(2000, SEAL)
    settle(indexer)
    assert sorted(sizes()) == [(SEAL, 0), (SEAL, 0), (3 * COMPACT, 0)]


def test_a_segment_whose_rows_are_all_dead_is_dropped(library: Library, indexer: Indexer, quiet: None) -> None:
    write(0)
    settle(indexer)
    remove(0, SEAL)
    settle(indexer)
    current = reopened()
    assert current.manifest is not None
    assert (current.manifest.segments, live(), pending()) == ((), [], 0)
    write(0)
    settle(indexer)
    assert live() == [SEAL]


# What happens while a job is being done.


@pytest.fixture
def job(library: Library, indexer: Indexer, busy: None) -> Indexer:
    """Maintenance that has begun to merge the rows c0 to c255, and has not looked yet whether that is done."""
    for batch in range(4):
        write(batch * SEAL)
        indexer.round()
    assert live() == [SEAL] * 4
    assert indexer.round()
    assert live() == [SEAL] * 4
    return indexer


def _delete_some() -> None:
    remove(3, 10)


def _delete_all() -> None:
    remove(0, 4 * SEAL)


def _write_some_over() -> None:
    upsert(noise([f"c{i}" for i in range(0, 200, 3)], seed=77))


def _write_over_and_back() -> None:
    before = noise([f"c{i}" for i in range(SEAL)], seed=0)
    upsert({name: vector + 1 for name, vector in before.items()})
    shown(ViewCache())
    upsert(before)


def _delete_and_write_again() -> None:
    remove(0, SEAL)
    write(0)


def _add_few() -> None:
    write(5000, 5)


def _add_many() -> None:
    write(5000, 3 * SEAL)


@pytest.mark.parametrize("seals", [False, True])
@pytest.mark.parametrize(
    "change",
    [_delete_some, _delete_all, _write_some_over, _write_over_and_back, _delete_and_write_again, _add_few, _add_many],
)
def test_rows_that_change_while_a_job_is_done_are_right_afterwards(
    job: Indexer, change: Callable[[], None], seals: bool
) -> None:
    worker = ViewCache()
    shown(worker)
    change()
    if seals:
        # What maintenance does in rounds that find the job still running.
        with open_snapshot() as snapshot:
            state = snapshot.library("a")
        assert state is not None
        job._look_after(state, least=1, quiet=False)
        reopened()
    shown(worker)
    settle(job)
    shown(worker)
    reopened()
    write(9000)
    settle(job)
    shown(worker)
    reopened()


def test_dead_rows_are_counted_until_they_are_left_out(job: Indexer) -> None:
    _delete_some()
    settle(job)
    assert sizes() == [(4 * SEAL - 10, 10)]
    assert index_stats()["rows_dead"] == 10


def test_a_job_for_a_library_that_was_deleted_ends_in_nothing(job: Indexer, index_dir: Path) -> None:
    delete_library(library_id="a")
    settle(job)
    with pytest.raises(NotFound):
        shown(ViewCache())
    (folder,) = index_dir.iterdir()
    os.utime(folder, (0, 0))
    job.sweep()
    assert list(index_dir.iterdir()) == []


def test_of_deleted_libraries_nothing_is_kept(job: Indexer) -> None:
    made("b")
    write(0, SEAL, "b")
    settle(job)
    delete_library(library_id="a")
    settle(job)
    assert list(job._watches) == [Library.objects.get(public_id="b").uid]
    delete_library(library_id="b")
    settle(job)
    assert not job._watches


def test_a_job_for_a_library_that_was_made_again_does_not_reach_it(
    job: Indexer, caplog: pytest.LogCaptureFixture
) -> None:
    delete_library(library_id="a")
    made()
    upsert({"new": [1, 2, 3]})
    settle(job)
    assert (nearest(reopened(), [0, 0, 0]), live()) == ("new", [])
    write(0)
    settle(job)
    assert live() == [SEAL + 1]
    assert caplog.messages == []


def test_a_job_whose_inputs_lose_their_files_harms_nothing(job: Indexer, index_dir: Path) -> None:
    (running,) = job._jobs.values()
    running.wait()
    shutil.rmtree(index_dir)
    settle(job)
    assert (live(), pending()) == ([4 * SEAL], 0)


def test_a_rebuild_that_is_asked_for_during_a_job_begins_with_the_rows(job: Indexer) -> None:
    reindex_library(library_id="a", reindex=Reindex())
    settle(job)
    current = reopened()
    assert current.manifest is not None
    assert (live(), current.manifest.rebuild) == ([4 * SEAL], 1)
    assert index_stats()["state"] == "ready"


class Slow(BruteForce):
    """A type whose index is built when the test says so, and as it says."""

    kind = "slow"
    slow_to_build = True
    may_end: ClassVar[threading.Event]
    # Whether a build can be broken off, and what became of those that were begun.
    asks: ClassVar[bool]
    builds: ClassVar[int]
    broken_off: ClassVar[int]
    error: ClassVar[BaseException | None]

    @classmethod
    def build(
        cls,
        matrix: Matrix,
        params: Params = NO_PARAMS,
        checkpoint: Checkpoint = no_checkpoint,
    ) -> "Slow":
        Slow.builds += 1
        deadline = time.perf_counter() + 120
        while not Slow.may_end.wait(0.005):
            assert time.perf_counter() < deadline
            if Slow.asks:
                try:
                    checkpoint()
                except BaseException:
                    Slow.broken_off += 1
                    raise
        if Slow.error is not None:
            raise Slow.error
        built = super().build(matrix)
        assert isinstance(built, Slow)
        return built


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Slow]]:
    """A type of the registry that is built when the test says so."""
    monkeypatch.setitem(registry.INDEX_TYPES, "slow", f"{__name__}:Slow")
    Slow.may_end, Slow.asks, Slow.builds, Slow.broken_off, Slow.error = threading.Event(), True, 0, 0, None
    yield Slow
    Slow.may_end.set()


@pytest.fixture
def slow_library(library: Library, slow: type[Slow]) -> Library:
    """The library, of the type whose index is built when the test says so."""
    execute("UPDATE vectordb_library SET index_type = 'slow'")
    return library


def test_sealing_and_queries_go_on_while_an_index_is_built(
    slow_library: Library, slow: type[Slow], indexer: Indexer, busy: None
) -> None:
    write(0)
    rounds_until(indexer, lambda: slow.builds, "a build has begun")
    assert (index_stats()["state"], index_stats()["rows_pending"]) == ("building", SEAL)
    for batch in range(1, 6):
        write(batch * SEAL)
        remove(batch * SEAL - 20, 10)
        indexer.round()
        assert pending() == 0
    assert (slow.builds, len(live())) == (1, 6)
    slow.may_end.set()
    settle(indexer)
    assert index_stats()["state"] == "ready"
    assert {one["kind"] for one in index_stats()["segments"]} == {"slow"}
    assert sum(live()) == 6 * SEAL - 50


def test_a_job_of_one_library_does_not_hold_up_another(
    slow_library: Library, slow: type[Slow], indexer: Indexer, quiet: None
) -> None:
    write(0)
    rounds_until(indexer, lambda: slow.builds, "a build has begun")
    made("b")
    write(0, SEAL, "b")
    for _ in range(3):
        indexer.round()
    assert (live("a"), live("b")) == ([SEAL], [SEAL])
    slow.may_end.set()
    settle(indexer)


def begin_slow_build(indexer: Indexer, slow: type[Slow]) -> None:
    """Let maintenance begin a build of library a that goes on."""
    write(0)
    rounds_until(indexer, lambda: slow.builds, "a build has begun")


def rounds_until(indexer: Indexer, condition: Callable[[], Any], what: str) -> None:
    """Let maintenance go round until something comes true; slow builds go on."""
    until(lambda: (indexer.round(), condition())[1], what)


def test_a_slow_build_holds_up_no_quick_job_of_another_library(
    slow_library: Library, slow: type[Slow], indexer: Indexer, quiet: None
) -> None:
    begin_slow_build(indexer, slow)
    made("b", index_type="kd_tree")
    write(0, SEAL, "b")
    rounds_until(indexer, lambda: index_stats("b")["rows_indexed"] == SEAL, "b is indexed")
    for batch in range(1, 6):
        write(batch * SEAL, SEAL, "b")
        rounds_until(indexer, lambda count=batch + 1: live("b") == [count * SEAL], "b is merged")
    assert (slow.builds, index_stats("a")["rows_indexed"]) == (1, 0)
    slow.may_end.set()
    settle(indexer)
    assert index_stats("a")["rows_indexed"] == SEAL


def test_one_slow_build_is_done_at_a_time(
    slow_library: Library, slow: type[Slow], indexer: Indexer, quiet: None
) -> None:
    begin_slow_build(indexer, slow)
    made("b")
    execute("UPDATE vectordb_library SET index_type = 'slow'")
    write(0, SEAL, "b")
    for _ in range(5):
        indexer.round()
    assert (slow.builds, live("b")) == (1, [SEAL])
    slow.may_end.set()
    settle(indexer)
    assert {index_stats(name)["rows_indexed"] for name in "ab"} == {SEAL}


def test_a_few_rows_are_not_slow_to_index_whatever_the_type(
    slow_library: Library, slow: type[Slow], indexer: Indexer, quiet: None
) -> None:
    begin_slow_build(indexer, slow)
    made("b")
    execute("UPDATE vectordb_library SET index_type = 'slow'")
    write(0, SEAL - 1, "b")
    rounds_until(indexer, lambda: slow.builds == 2, "b is being built beside a")
    slow.may_end.set()
    settle(indexer)


def test_segments_of_a_library_are_merged_beside_its_slow_build(
    slow_library: Library, slow: type[Slow], indexer: Indexer, busy: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under `auto` only the largest segment is of a type that is slow to build."""
    monkeypatch.setattr(registry, "_BY_ROWS", ((5 * SEAL, "slow"),))
    monkeypatch.setattr(registry, "_FEW_DIMENSIONS", 0)
    execute("UPDATE vectordb_library SET index_type = 'auto'")
    write(0, 5 * SEAL)
    rounds_until(indexer, lambda: slow.builds, "a build has begun")
    for batch in range(10, 13):
        write(batch * SEAL)
        indexer.round()
    assert sorted(live()) == [SEAL] * 3 + [5 * SEAL]
    write(20 * SEAL, SEAL - 1)
    remove(10 * SEAL, COMPACT)
    assert (SEAL - COMPACT, COMPACT) in sizes()
    rounds_until(indexer, lambda: not [dead for _, dead in sizes() if dead], "dead rows are left out")
    assert slow.builds == 1
    remove(5, 10)
    slow.may_end.set()
    settle(indexer)
    assert (5 * SEAL - 10, 10) in sizes()
    reopened()


@pytest.mark.parametrize("asks", [True, False])
@pytest.mark.parametrize("wish", [LibraryUpdate(index_type="kd_tree"), Reindex(index_type="kd_tree")])
def test_another_wish_during_a_slow_build_is_fulfilled_at_once(
    slow_library: Library,
    slow: type[Slow],
    indexer: Indexer,
    quiet: None,
    wish: LibraryUpdate | Reindex,
    asks: bool,
) -> None:
    slow.asks = asks
    begin_slow_build(indexer, slow)
    if isinstance(wish, Reindex):
        reindex_library(library_id="a", reindex=wish)
    else:
        update_library(library_id="a", update=wish)
    rounds_until(indexer, lambda: index_stats()["rows_indexed"] == SEAL, "it is of the other type")
    until(lambda: slow.broken_off == asks, "a build that can be broken off is")
    slow.may_end.set()
    settle(indexer)
    assert {one["kind"] for one in index_stats()["segments"]} == {"kd_tree"}
    reopened()


def test_other_parameters_that_are_wished_during_a_slow_build_are_begun_when_it_is_broken_off(
    slow_library: Library, slow: type[Slow], indexer: Indexer, quiet: None
) -> None:
    begin_slow_build(indexer, slow)
    execute("UPDATE vectordb_library SET index_params = %s", '{"m": 8}')
    rounds_until(indexer, lambda: slow.builds == 2, "a build with the other parameters has begun")
    assert slow.broken_off == 1
    slow.may_end.set()
    settle(indexer)
    assert (index_stats()["rows_indexed"], index_stats()["state"]) == (SEAL, "ready")


def test_a_build_that_is_wished_for_still_goes_on(
    slow_library: Library, slow: type[Slow], indexer: Indexer, quiet: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "_BY_ROWS", ((SEAL, "slow"),))
    monkeypatch.setattr(registry, "_FEW_DIMENSIONS", 0)
    begin_slow_build(indexer, slow)
    execute("UPDATE vectordb_library SET index_type = 'auto'")
    update_library(library_id="a", update=LibraryUpdate(name="Renamed"))
    for _ in range(3):
        indexer.round()
    slow.may_end.set()
    settle(indexer)
    assert (slow.builds, slow.broken_off, index_stats()["rows_indexed"]) == (1, 0, SEAL)


@pytest.mark.parametrize("asks", [True, False])
def test_a_slow_build_for_a_library_that_was_deleted_is_given_up(
    slow_library: Library, slow: type[Slow], indexer: Indexer, quiet: None, asks: bool
) -> None:
    slow.asks = asks
    begin_slow_build(indexer, slow)
    delete_library(library_id="a")
    indexer.round()
    if asks:
        until(lambda: slow.broken_off, "it is broken off")
    slow.may_end.set()
    settle(indexer)
    with pytest.raises(NotFound):
        shown(ViewCache())


# Failures.


@pytest.mark.parametrize(
    "error", [MemoryError(), OSError(28, "No space left on device"), RuntimeError("faiss says no"), ValueError("what?")]
)
def test_a_build_that_fails_is_told_and_not_tried_again_at_once(
    slow_library: Library,
    slow: type[Slow],
    indexer: Indexer,
    quiet: None,
    error: Exception,
    caplog: pytest.LogCaptureFixture,
) -> None:
    slow.error = error
    slow.may_end.set()
    write(0)
    for _ in range(3):
        settle(indexer)
    told = index_stats()
    assert (told["state"], told["error"]) == ("failed", str(error) or type(error).__name__)
    assert (slow.builds, told["rows_pending"]) == (1, SEAL)
    assert [record.message for record in caplog.records if "library a: building failed" in record.message] != []
    reopened()


@pytest.mark.parametrize("wish", [LibraryUpdate(index_type="brute_force"), Reindex()])
def test_another_wish_is_tried_at_once(
    slow_library: Library, slow: type[Slow], indexer: Indexer, quiet: None, wish: LibraryUpdate | Reindex
) -> None:
    slow.error = RuntimeError("not today")
    slow.may_end.set()
    write(0)
    settle(indexer)
    assert index_stats()["state"] == "failed"
    slow.error = None
    if isinstance(wish, Reindex):
        reindex_library(library_id="a", reindex=wish)
    else:
        update_library(library_id="a", update=wish)
    settle(indexer)
    assert (index_stats()["state"], index_stats()["error"]) == ("ready", None)
    assert index_stats()["rows_pending"] == 0


def test_rows_are_sealed_though_the_index_of_their_library_cannot_be_built(
    slow_library: Library, slow: type[Slow], indexer: Indexer, quiet: None
) -> None:
    slow.error = RuntimeError("not today")
    slow.may_end.set()
    for batch in range(3):
        write(batch * SEAL)
        settle(indexer)
        assert (pending(), index_stats()["error"]) == (0, "not today")
    assert (slow.builds, index_stats()["state"]) == (1, "failed")


def test_a_build_that_fails_is_tried_again_later_and_ever_later(
    slow_library: Library, slow: type[Slow], indexer: Indexer, quiet: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    slow.error = RuntimeError("not today")
    slow.may_end.set()
    write(0)
    for builds, seconds in enumerate((5, 10, 20, 40, 60, 60), start=1):
        settle(indexer)
        now[0] += seconds - 1
        settle(indexer)
        assert slow.builds == builds
        now[0] += 1
    slow.error = None
    settle(indexer)
    assert (index_stats()["state"], index_stats()["error"]) == ("ready", None)


@pytest.mark.skipif(sys.platform != "linux", reason="counts what was read by /proc")
@pytest.mark.parametrize("fails", [False, True], ids=["builds", "fails"])
def test_files_are_not_read_again_while_their_index_is_built_or_cannot_be(
    slow: type[Slow], monkeypatch: pytest.MonkeyPatch, quiet: None, fails: bool
) -> None:
    monkeypatch.setattr(settings, "MEMORY_BUDGET", 1)
    if fails:
        slow.error = RuntimeError("not today")
        slow.may_end.set()
    indexer = Indexer()
    for name in "bcd":
        made(name)
        write(0, 2000, name)
    execute("UPDATE vectordb_library SET index_type = 'slow'")
    rounds_until(indexer, lambda: slow.builds, "a build has begun")
    for _ in range(10):
        indexer.round()
    size = sum(path.stat().st_size for path in Path(settings.INDEX_DIR).rglob("*.npy"))
    assert bytes_read(indexer.round) < size // 20
    slow.error = None
    slow.may_end.set()
    if fails:
        reindex_library(library_id="b", reindex=Reindex())
        settle(indexer)
        assert [index_stats(name)["state"] for name in "bcd"] == ["ready", "failed", "failed"]
    else:
        settle(indexer)
        assert [index_stats(name)["state"] for name in "bcd"] == ["ready"] * 3


def test_a_failure_of_one_library_does_not_hold_up_another(
    slow_library: Library, slow: type[Slow], indexer: Indexer, quiet: None
) -> None:
    slow.error = RuntimeError("not today")
    slow.may_end.set()
    write(0)
    made("b")
    write(0, SEAL, "b")
    settle(indexer)
    assert (live("b"), index_stats("b")["state"]) == ([SEAL], "ready")


@contextlib.contextmanager
def refused(what: str) -> Iterator[None]:
    """Let SQLite refuse some kind of write."""
    execute(f"CREATE TRIGGER refuse BEFORE {what} BEGIN SELECT RAISE(ABORT, 'not today'); END")
    try:
        yield
    finally:
        execute("DROP TRIGGER refuse")


def no_update_of_a_library() -> AbstractContextManager[None]:
    """Let the database refuse to take the number of a manifest."""
    return refused("UPDATE OF manifest ON vectordb_library")


Failing = Callable[[], AbstractContextManager[None]]


def build_that_cannot_be_published(
    indexer: Indexer, slow: type[Slow], failing: Failing = lambda: files_of_at_most(0)
) -> None:
    """Let maintenance build the index of library a, and find then that it cannot publish that."""
    begin_slow_build(indexer, slow)
    slow.may_end.set()
    (running,) = indexer._jobs.values()
    running.wait()
    with failing():
        for _ in range(3):
            indexer.round()
    assert index_stats()["state"] == "failed"
    assert index_stats()["rows_indexed"] == 0


def later(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    now = time.monotonic() + seconds
    monkeypatch.setattr(time, "monotonic", lambda: now)


@pytest.mark.parametrize(
    "failing", [lambda: files_of_at_most(0), pytest.param(no_update_of_a_library, marks=pytest.mark.sqlite)]
)
def test_what_was_built_and_could_not_be_published_is_published_later(
    slow_library: Library,
    slow: type[Slow],
    indexer: Indexer,
    quiet: None,
    monkeypatch: pytest.MonkeyPatch,
    failing: Failing,
    index_dir: Path,
) -> None:
    build_that_cannot_be_published(indexer, slow, failing)
    remove(0, 5)
    settle(indexer)
    assert index_stats()["state"] == "failed", "it is tried again after some seconds"
    for folder in index_dir.glob("*/segments/*"):
        os.utime(folder, (0, 0))
    indexer.sweep()
    later(monkeypatch, 6)
    rounds_until(indexer, lambda: index_stats()["rows_indexed"] == SEAL - 5, "it is published")
    assert slow.builds == 1
    settle(indexer)
    assert (index_stats()["state"], index_stats()["error"]) == ("ready", None)
    reopened()


def test_one_library_that_cannot_be_published_holds_up_no_other(
    slow_library: Library, slow: type[Slow], indexer: Indexer, quiet: None
) -> None:
    build_that_cannot_be_published(indexer, slow)
    made("b")
    execute("UPDATE vectordb_library SET index_type = 'slow'")
    write(0, SEAL, "b")
    settle(indexer)
    assert (index_stats("b")["rows_indexed"], slow.builds) == (SEAL, 2)


@pytest.mark.parametrize("is_deleted", [False, True])
def test_what_could_not_be_published_is_dropped_when_nobody_wishes_for_it(
    slow_library: Library, slow: type[Slow], indexer: Indexer, quiet: None, is_deleted: bool
) -> None:
    build_that_cannot_be_published(indexer, slow)
    if is_deleted:
        delete_library(library_id="a")
    else:
        update_library(library_id="a", update=LibraryUpdate(index_type="kd_tree"))
    settle(indexer)
    indexer.round()
    assert (indexer._unpublished, slow.builds) == ([], 1)
    if not is_deleted:
        assert (index_stats()["rows_indexed"], index_stats()["state"]) == (SEAL, "ready")


@pytest.fixture
def no_room(library: Library, index_dir: Path) -> Path:
    """A file where the folder of segments would be, so that none can be written."""
    (index_dir / library.uid).mkdir(parents=True)
    (index_dir / library.uid / "segments").touch()
    return index_dir / library.uid / "segments"


def test_a_seal_that_fails_is_told_and_tried_again_later(
    no_room: Path, indexer: Indexer, quiet: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(0)
    settle(indexer)
    assert index_stats()["state"] == "failed"
    assert "directory" in index_stats()["error"]
    assert (live(), pending()) == ([], SEAL)
    no_room.unlink()
    settle(indexer)
    assert index_stats()["state"] == "failed", "it is tried again after some seconds"
    later = time.monotonic() + 6
    monkeypatch.setattr(time, "monotonic", lambda: later)
    settle(indexer)
    assert (live(), pending()) == ([SEAL], 0)
    assert (index_stats()["state"], index_stats()["error"]) == ("ready", None)


def test_attempts_to_seal_that_fail_leave_nothing_behind(
    library: Library, index_dir: Path, indexer: Indexer, quiet: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = index_dir / library.uid
    folder.mkdir(parents=True)
    (folder / "manifests").touch()
    write(0)
    for attempt in range(3):
        indexer.round()
        assert (index_stats()["state"], list((folder / "segments").iterdir())) == ("failed", [])
        later(monkeypatch, 60 * (attempt + 1))
    (folder / "manifests").unlink()
    settle(indexer)
    assert (live(), index_stats()["state"]) == ([SEAL], "ready")


def test_who_waits_for_a_library_learns_why_it_failed(no_room: Path, indexer: Indexer) -> None:
    write(0)
    assert "directory" in (indexer.run_until_done("a") or "")
    no_room.unlink()
    assert Indexer().run_until_done("a") is None
    assert live() == [SEAL]


def test_who_waits_learns_of_a_failure_that_cannot_be_written_down(library: Library, index_dir: Path) -> None:
    index_dir.touch()
    write(0)
    assert "directory" in (Indexer().run_until_done("a") or "")


def test_who_waits_for_a_build_that_fails_waits_for_one(slow_library: Library, slow: type[Slow]) -> None:
    slow.error = RuntimeError("not today")
    slow.may_end.set()
    write(0)
    assert Indexer().run_until_done("a") == "not today"
    assert slow.builds == 1


def test_all_libraries_are_done_though_one_of_them_fails(no_room: Path) -> None:
    made("b")
    made("few", index_type="auto")
    for name in ("a", "b", "few"):
        write(0, 3, name)
    assert not Indexer().run_all_until_done(lambda: False)
    assert (live("a"), live("b"), live("few")) == ([], [3], [])
    assert [index_stats(name)["state"] for name in ("a", "b", "few")] == ["failed", "ready", "ready"]


def test_who_does_all_there_is_to_do_stops_when_asked(slow_library: Library, slow: type[Slow]) -> None:
    write(0)
    made("b")
    write(0, 3, "b")
    assert not Indexer().run_all_until_done(lambda: slow.builds > 0)
    assert (live("a"), live("b")) == ([SEAL], [])
    slow.may_end.set()
    assert Indexer().run_all_until_done(lambda: False)
    assert (live("a"), live("b")) == ([SEAL], [3])


def test_an_answer_names_all_types_of_index_that_gave_it(library: Library, indexer: Indexer, busy: None) -> None:
    kernels.load()  # or a tree leaves all to a scan
    update_library(library_id="a", update=LibraryUpdate(index_type="kd_tree"))
    for first in (0, 2000):
        write(first, 2000)
        settle(indexer)
    query = QuerySpec(vector=[0.0, 0.0, 0.0])
    assert services.query(library_id="a", spec=query)["meta"]["index"] == "kd_tree"
    update_library(library_id="a", update=LibraryUpdate(index_type="quantized"))
    kinds = set[str]()
    while len(kinds) < 2:
        indexer.round()
        kinds = {segment["kind"] for segment in index_stats()["segments"]}
    assert services.query(library_id="a", spec=query)["meta"]["index"] == "kd_tree, quantized"
    settle(indexer)
    assert services.query(library_id="a", spec=query)["meta"]["index"] == "quantized"


# Rebuilds on request.


@pytest.mark.parametrize("index_type", ["brute_force", "auto"])
def test_a_rebuild_reads_the_rows_whatever_the_files_say(indexer: Indexer, busy: None, index_type: str) -> None:
    made(index_type=index_type)
    write(0, 10)
    reindex_library(library_id="a", reindex=Reindex())
    assert index_stats()["state"] == "building"
    settle(indexer)
    first = reopened().manifest
    assert first is not None
    assert (live(), index_stats()["state"]) == ([10], "ready")
    reindex_library(library_id="a", reindex=Reindex())
    settle(indexer)
    second = reopened().manifest
    assert second is not None
    assert second.number > first.number
    assert {record.name for record in first.segments}.isdisjoint(record.name for record in second.segments)


def test_a_rebuild_of_an_empty_library_ends(library: Library, indexer: Indexer, busy: None) -> None:
    reindex_library(library_id="a", reindex=Reindex())
    assert Indexer().run_until_done("a") is None
    settle(indexer)
    assert index_stats()["state"] == "ready"
    write(0)
    settle(indexer)
    assert (live(), index_stats()["state"]) == ([SEAL], "ready")


def test_a_rebuild_of_a_library_without_a_dimension_ends(indexer: Indexer, busy: None) -> None:
    create_library(create=LibraryCreate(id="a", name="A"))
    reindex_library(library_id="a", reindex=Reindex())
    assert Indexer().run_until_done("a") is None
    settle(indexer)
    assert index_stats()["state"] == "ready"
    write(0)
    settle(indexer)
    assert (live(), index_stats()["state"]) == ([SEAL], "ready")


def test_a_rebuild_of_an_emptied_library_ends(library: Library, indexer: Indexer, busy: None) -> None:
    write(0)
    settle(indexer)
    remove(0, SEAL)
    reindex_library(library_id="a", reindex=Reindex())
    settle(indexer)
    assert (live(), index_stats()["state"]) == ([], "ready")


def test_a_rebuild_is_done_though_rows_are_written_all_the_time(indexer: Indexer, busy: None) -> None:
    made(index_type="kd_tree")
    write(0)
    reindex_library(library_id="a", reindex=Reindex())
    while not planning.is_rebuilt(reopened()):
        indexer.round()
    assert index_stats()["rows_indexed"] == SEAL
    write(1000, 10)
    assert planning.is_rebuilt(reopened())
    assert index_stats()["state"] == "building"


# Files that are lost, damaged, or of another history.


def test_files_that_are_lost_are_made_anew(
    library: Library, indexer: Indexer, busy: None, index_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(0)
    settle(indexer)
    shutil.rmtree(index_dir)
    assert pending() == SEAL
    write(SEAL, 1)
    settle(indexer)
    assert (live(), pending()) == ([SEAL + 1], 0)
    assert [message for message in caplog.messages if "files are gone; they are built anew" in message] == [
        "index of library a: files are gone; they are built anew"
    ]


def damage(path: Path) -> None:
    """Put another file in the place of one; who has mapped it keeps the old one."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.with_suffix(".new").write_bytes(content)
    path.with_suffix(".new").replace(path)


def newest_files(library: Library) -> list[Path]:
    """All files of the newest manifest."""
    current = reopened()
    assert current.manifest is not None
    folder = settings.INDEX_DIR / library.uid
    names = [record.name for record in current.manifest.segments]
    found = [path for name in names for path in (folder / "segments" / name).rglob("*.npy")]
    return [*found, *(folder / "manifests" / str(current.manifest.number)).iterdir()]


@pytest.mark.parametrize("part", ["manifest.json", "keys.npy", "vectors.npy", "norms.npy", "mask"])
def test_damaged_files_are_told_of_once_and_made_anew_at_the_next_start(
    library: Library, indexer: Indexer, busy: None, caplog: pytest.LogCaptureFixture, part: str
) -> None:
    write(0)
    settle(indexer)
    remove(0, 1)
    write(SEAL)
    settle(indexer)
    assert sizes() == [(SEAL - 1, 1), (SEAL, 0)]
    # The older manifest goes, so that nobody can make do with it.
    shutil.rmtree(settings.INDEX_DIR / library.uid / "manifests" / "1")
    (path,) = [path for path in newest_files(library) if path.name == part or part == "mask" == _kind(path)][:1]
    damage(path)
    worker = ViewCache()
    for _ in range(5):
        shown(worker)
    assert len(caplog.messages) == 1
    assert "index of library a: " in caplog.messages[0]
    assert "the rows serve instead" in caplog.messages[0]
    settle(Indexer())
    assert (live(), pending()) == ([2 * SEAL - 1], 0)
    caplog.clear()
    for cache in (worker, ViewCache()):
        assert shown(cache).manifest is not None
    assert caplog.messages == []


def test_a_process_without_descriptors_takes_whole_files_for_no_others(
    library: Library, indexer: Indexer, very_quiet: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(0)
    settle(indexer)
    before = reopened().manifest
    starting = Indexer()
    for count in (0, 1, 3, 6):
        worker = ViewCache()
        with descriptors_left(count), open_snapshot() as snapshot, pytest.raises(OSError, match="Too many open files"):
            worker.current(snapshot, "a")
    with descriptors_left(1):
        settle(starting)
    assert loading.index_folder(library.uid).damage() is None
    assert (index_stats()["state"], reopened().manifest) == ("failed", before)
    assert "Too many open files" in index_stats()["error"]
    later = time.monotonic() + 6
    monkeypatch.setattr(time, "monotonic", lambda: later)
    settle(starting)
    assert (index_stats()["state"], reopened().manifest) == ("ready", before)


def test_older_files_that_are_put_back_are_published_anew(
    library: Library, indexer: Indexer, very_quiet: None, tmp_path: Path
) -> None:
    """Nothing is missing in them; but who had opened the newer ones waits until there are files again."""
    write(0)
    settle(indexer)
    folder = settings.INDEX_DIR / library.uid
    shutil.copytree(folder, tmp_path / "before")
    for kind in ("kd_tree", "brute_force"):
        update_library(library_id="a", update=LibraryUpdate(index_type=kind))
        settle(indexer)
    assert index_stats()["state"] == "ready"
    newest = loading.index_folder(library.uid).numbers()[0]
    shutil.rmtree(folder)
    (tmp_path / "before").rename(folder)
    assert index_stats()["state"] == "building"
    indexer.sweep()
    settle(indexer)
    assert (live(), index_stats()["state"]) == ([SEAL], "ready")
    assert loading.index_folder(library.uid).numbers() == [newest + 1, 1]


def test_a_manifest_that_another_host_has_published_is_no_lost_one(
    library: Library, indexer: Indexer, very_quiet: None
) -> None:
    """Each has index files of its own; if each answered the other's number with a higher one, there would be no end."""
    write(0)
    settle(indexer)
    numbers = loading.index_folder(library.uid).numbers()
    execute("UPDATE vectordb_library SET manifest = manifest + 1")
    indexer.sweep()
    settle(indexer)
    assert (live(), index_stats()["state"]) == ([SEAL], "ready")
    assert loading.index_folder(library.uid).numbers() == numbers


def test_damage_that_a_worker_finds_is_told_of_once_and_mended_at_the_next_round(
    library: Library, indexer: Indexer, very_quiet: None, caplog: pytest.LogCaptureFixture
) -> None:
    """Maintenance has mapped the file, and nothing about it looks other than it did."""
    write(0)
    settle(indexer)
    before = reopened().manifest
    (path,) = [path for path in newest_files(library) if path.name == "vectors.npy"]
    stamp = path.stat()
    with path.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\x55")
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert not indexer.round()
    workers = [ViewCache() for _ in range(3)]
    for worker in workers:
        assert shown(worker).manifest is None
    assert len(caplog.messages) == 1
    assert "vectors.npy does not have its size or checksum; the rows serve instead" in caplog.messages[0]
    assert index_stats()["state"] == "building"
    settle(indexer)
    for worker in workers:
        after = shown(worker).manifest
        assert after is not None
        assert before is not None
        assert after.number > before.number
    settle(indexer)
    assert (live(), index_stats()["state"], len(caplog.messages)) == ([SEAL], "ready", 1)
    assert loading.index_folder(library.uid).damage() is None


def test_files_that_turn_out_to_be_whole_are_kept(library: Library, indexer: Indexer, very_quiet: None) -> None:
    write(0)
    settle(indexer)
    before = reopened().manifest
    assert loading.index_folder(library.uid).note_damage("a disk that answers later")
    settle(indexer)
    assert (reopened().manifest, index_stats()["state"]) == (before, "ready")


def test_damage_is_told_of_where_no_mark_can_be_left(
    library: Library, indexer: Indexer, very_quiet: None, caplog: pytest.LogCaptureFixture
) -> None:
    write(0)
    settle(indexer)
    (path,) = [path for path in newest_files(library) if path.name == "vectors.npy"]
    damage(path)
    # No file can be written where a folder is.
    (settings.INDEX_DIR / library.uid / "damage.txt").mkdir()
    shown(ViewCache())
    assert len(caplog.messages) == 1


def _kind(path: Path) -> str:
    return "mask" if path.suffix == ".npy" and path.parent.parent.name == "manifests" else path.name


@pytest.mark.parametrize("part", ["manifest.json", "keys.npy"])
def test_an_older_manifest_serves_while_the_newest_is_damaged(
    library: Library, indexer: Indexer, busy: None, caplog: pytest.LogCaptureFixture, part: str
) -> None:
    write(0)
    settle(indexer)
    older = reopened().manifest
    assert older is not None
    write(SEAL)
    settle(indexer)
    known = {record.name for record in older.segments}
    (path,) = [path for path in newest_files(library) if path.name == part and path.parent.name not in known]
    damage(path)
    assert reopened().manifest == older
    assert pending() == SEAL
    settle(Indexer())
    caplog.clear()
    current = reopened()
    assert current.manifest is not None
    assert current.manifest.number > older.number + 1
    assert (pending(), caplog.messages) == (0, [])


@pytest.mark.parametrize("cold", [False, True])
def test_a_damaged_manifest_is_replaced_though_nothing_changed_since_the_one_before(
    library: Library, busy: None, indexer: Indexer, caplog: pytest.LogCaptureFixture, cold: bool
) -> None:
    write(0)
    settle(indexer)
    Chunk.objects.update(metadata={"n": 1})
    settle(indexer)
    older, newest = sorted((settings.INDEX_DIR / library.uid / "manifests").iterdir())
    damage(newest / "manifest.json")
    current = reopened()
    assert current.manifest is not None
    assert str(current.manifest.number) == older.name
    settle(Indexer() if cold else indexer)
    Chunk.objects.update(metadata={"n": 2})
    settle(Indexer() if cold else indexer)
    caplog.clear()
    reopened()
    assert caplog.messages == []


def test_a_mask_that_is_lost_is_noticed_by_who_runs(
    library: Library, indexer: Indexer, busy: None, index_dir: Path
) -> None:
    write(0)
    settle(indexer)
    remove(0, 1)
    write(SEAL)
    settle(indexer)
    for mask in index_dir.glob("*/manifests/*/*.npy"):
        mask.unlink()
    write(2 * SEAL, 1)
    settle(indexer)
    assert (sum(live()), pending()) == (2 * SEAL, 0)


def test_the_files_of_another_library_are_not_taken(library: Library, indexer: Indexer, quiet: None) -> None:
    other = made("b")
    write(0)
    write(1000, SEAL, "b")
    settle(indexer)
    mine, theirs = (settings.INDEX_DIR / one.uid for one in (library, other))
    shutil.rmtree(mine)
    shutil.copytree(theirs, mine)
    current = reopened()
    assert current.manifest is None
    settle(Indexer())
    assert (live("a"), live("b")) == ([SEAL], [SEAL])


def test_a_manifest_that_nobody_was_told_of_is_told_of_at_the_next_start(
    library: Library, indexer: Indexer, quiet: None
) -> None:
    """Maintenance was killed after it wrote the files, and before it wrote the library's row."""
    worker = ViewCache()
    write(0)
    settle(indexer)
    reindex_library(library_id="a", reindex=Reindex())
    before = shown(worker)
    settle(indexer)
    execute("UPDATE vectordb_library SET manifest = %s", before.state.manifest_number)
    assert shown(worker).manifest == before.manifest
    settle(Indexer())
    after = shown(worker).manifest
    assert after is not None
    assert after.rebuild == 1


def test_a_change_of_the_generation_is_indexed_anew(library: Library, indexer: Indexer, quiet: None) -> None:
    upsert({"x": [1, 1, 1], "y": [2, 2, 2]})
    settle(indexer)
    for chunk, value in ((Chunk.objects.get(public_id="x"), 7), (Chunk.objects.get(public_id="y"), 5)):
        Embedding.objects.create(chunk=chunk, generation=2, vector=np.full(3, value, DTYPE).tobytes())
    settle(indexer)
    assert nearest(reopened(), [0, 0, 0]) == "x"
    execute("UPDATE vectordb_library SET generation = 2")
    assert nearest(reopened(), [0, 0, 0]) == "y"
    settle(indexer)
    assert (nearest(reopened(), [0, 0, 0]), live(), pending()) == ("y", [2], 0)


# Other histories.


@pytest.mark.sqlite
@pytest.mark.parametrize("sealed_before", [False, True])
@pytest.mark.parametrize("rows", [0, 10, SEAL, SEAL + 10, 3 * SEAL])
def test_a_database_that_was_put_back_and_written_to_is_indexed_as_it_is(
    library: Library, busy: None, tmp_path: Path, sealed_before: bool, rows: int
) -> None:
    live_file, backup = connection.settings_dict["NAME"], tmp_path / "backup.sqlite3"
    write(0)
    if sealed_before:
        settle(Indexer())
    copy_database(live_file, backup)
    worker = ViewCache()
    write(1000, SEAL + 10)
    settle(Indexer())
    lost = shown(worker).state.position.seq
    connections.close_all()
    copy_database(backup, live_file)
    if rows:
        write(2000, rows)
    current = reopened()
    assert (current.state.position.seq == lost) == (rows == SEAL + 10)
    assert current.view is not None
    assert len(current.view) == SEAL + rows
    settle(Indexer())
    write(5000)
    settle(Indexer())
    assert sum(live()) == 2 * SEAL + rows
    shown(worker)


@pytest.mark.sqlite
@pytest.mark.parametrize("deletes", ["before it begins", "before it ends"])
@pytest.mark.parametrize("puts_back", ["before it ends", "afterwards"])
def test_what_a_job_has_left_out_is_there_again_in_a_database_that_was_put_back(
    slow_library: Library,
    slow: type[Slow],
    indexer: Indexer,
    busy: None,
    tmp_path: Path,
    deletes: str,
    puts_back: str,
) -> None:
    live_file, backup = connection.settings_dict["NAME"], tmp_path / "backup.sqlite3"
    write(0)
    assert indexer.round()
    assert (live(), slow.builds) == ([SEAL], 0)
    copy_database(live_file, backup)
    if deletes == "before it begins":
        remove(0, 10)
    rounds_until(indexer, lambda: slow.builds, "a build has begun")
    if deletes == "before it ends":
        remove(0, 10)
    if puts_back == "afterwards":
        slow.may_end.set()
        settle(indexer)
    connections.close_all()
    copy_database(backup, live_file)
    assert len(reopened().view or ()) == SEAL
    slow.may_end.set()
    settle(indexer)
    for maintained in (indexer, Indexer()):
        settle(maintained)
        assert len(reopened().view or ()) == SEAL
    assert verify_library(library_id="a", sample=5, k=3).faults == 0


@pytest.mark.sqlite
def test_a_job_takes_no_row_from_a_segment_that_was_made_after_the_copy_that_is_put_back(
    library: Library, indexer: Indexer, quiet: None, tmp_path: Path
) -> None:
    live_file, backup = connection.settings_dict["NAME"], tmp_path / "backup.sqlite3"
    write(0)
    settle(indexer)
    copy_database(live_file, backup)
    upsert(noise(["c0", "c1", "c2"], seed=99))
    rounds_until(indexer, lambda: indexer._jobs, "the two segments are merged")
    for job in indexer._jobs.values():
        job.wait()
        assert len(job.inputs) == 2
    connections.close_all()
    copy_database(backup, live_file)
    for maintained in (indexer, Indexer()):
        settle(maintained)
        reopened()
        assert verify_library(library_id="a", sample=5, k=3).faults == 0


def _equal_numbers_but_other_tokens(seq: int) -> None:
    execute("UPDATE vectordb_change SET token = token / 2 + 1 WHERE seq = %s", seq)


def _an_older_number(seq: int) -> None:
    execute("DELETE FROM vectordb_change WHERE seq >= %s", seq)


def _no_log_at_all(seq: int) -> None:
    execute("DELETE FROM vectordb_change")


@pytest.mark.parametrize("replace_history", [_equal_numbers_but_other_tokens, _an_older_number, _no_log_at_all])
def test_another_history_is_indexed_anew(library: Library, quiet: None, replace_history: Callable[[int], None]) -> None:
    upsert({"x": [1, 2, 3], "y": [4, 5, 6]})
    settle(Indexer())
    Embedding.objects.filter(chunk__public_id="x").update(vector=np.array([9, 9, 9], DTYPE).tobytes())
    replace_history(Change.objects.latest("seq").seq)
    replace_history(Change.objects.latest("seq").seq) if Change.objects.exists() else None
    assert nearest(reopened(), [0, 0, 0]) == "y"
    settle(Indexer())
    assert nearest(reopened(), [0, 0, 0]) == "y"
    upsert({"z": [0, 0, 0]})
    settle(Indexer())
    assert (nearest(reopened(), [0, 0, 0]), sum(live()), pending()) == ("z", 3, 0)


def test_a_library_that_was_made_again_with_its_id_never_meets_the_old_files(
    library: Library, indexer: Indexer, quiet: None, index_dir: Path
) -> None:
    write(0)
    settle(indexer)
    delete_library(library_id="a")
    made()
    assert live() == []
    upsert({"new": [1, 2, 3]})
    assert nearest(reopened(), [0, 0, 0]) == "new"
    settle(indexer)
    assert (nearest(reopened(), [0, 0, 0]), live()) == ("new", [1])
    old, new = index_dir / library.uid, index_dir / Library.objects.get().uid
    for folder in (old, new):
        os.utime(folder, (0, 0))
    indexer.sweep()
    assert (old.exists(), new.exists()) == (False, True)


# Pruning and sweeping.


def test_pruning_keeps_what_the_newest_manifest_needs(
    library: Library, indexer: Indexer, busy: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(maintenance, "_KEEP_AT_LEAST", 20)
    write(0)
    settle(indexer)
    manifest = reopened().manifest
    assert manifest is not None
    upsert({"c7": [9, 9, 9]})
    grow_log(5)
    assert maintenance.prune_changes() == SEAL - 1
    assert Change.objects.earliest("seq").seq == manifest.seq
    current = reopened()
    assert (current.manifest, nearest(current, [9, 9, 9])) == (manifest, "c7")
    assert maintenance.prune_changes() == 0
    settle(indexer)
    assert maintenance.prune_changes() > 0
    assert Change.objects.count() == 20
    assert reopened().manifest is not None


def test_pruning_looks_at_the_manifest_that_can_be_read(
    library: Library, indexer: Indexer, busy: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(maintenance, "_KEEP_AT_LEAST", 20)
    write(0)
    settle(indexer)
    older = reopened().manifest
    assert older is not None
    write(SEAL)
    settle(indexer)
    (path,) = [path for path in newest_files(library) if path.name == "manifest.json"]
    damage(path)
    maintenance.prune_changes()
    assert Change.objects.earliest("seq").seq == older.seq
    assert reopened().manifest == older


def test_sweeping_keeps_what_is_served(
    library: Library, indexer: Indexer, quiet: None, index_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = ViewCache()
    for first in range(0, 1000, 100):
        write(first, 100)
        settle(indexer)
        shown(worker)
    before = reopened()
    for folder in index_dir.rglob("*"):
        os.utime(folder, (0, 0))
    indexer.sweep()
    assert reopened().manifest == before.manifest
    assert before.manifest is not None
    (folder,) = index_dir.iterdir()
    assert [path.name for path in (folder / "manifests").iterdir()] == [str(before.manifest.number)]
    assert {path.name for path in (folder / "segments").iterdir()} == {one.name for one in before.manifest.segments}
    write(1000, 100)
    shown(worker)
    settle(indexer)
    shown(worker)


@pytest.mark.sqlite
def test_index_files_are_swept_though_the_database_takes_no_writes(
    library: Library,
    indexer: Indexer,
    quiet: None,
    index_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(maintenance, "_KEEP_AT_LEAST", 20)
    write(0)
    settle(indexer)
    grow_log(5)
    settle(indexer)
    left = index_dir / library.uid / "segments" / "left"
    left.mkdir()
    os.utime(left, (0, 0))
    with refused("DELETE ON vectordb_change"):
        assert not maintain._upkeep(indexer, 0)
    assert not left.exists()
    assert caplog.messages == ["upkeep of the database is put off: not today"]
    assert maintain._upkeep(indexer, 0)


# Memory.


def fill_three_libraries() -> None:
    """Libraries a, b and c of one size."""
    for name in "abc":
        made(name)
        write(0, 500, name)


def held() -> int:
    """How many bytes the view of library a holds."""
    current = shown(ViewCache())
    assert current.view is not None
    return current.view.nbytes


@pytest.mark.parametrize("with_files", [False, True])
def test_past_the_budget_the_libraries_that_were_not_used_for_longest_go(quiet: None, with_files: bool) -> None:
    fill_three_libraries()
    if with_files:
        settle(Indexer())
    cache = ViewCache(budget=int(2.5 * held()))
    views = {name: weakref.ref(shown(cache, name).view) for name in "ab"}
    shown(cache, "a")
    shown(cache, "c")
    assert [name for name, view in views.items() if view() is not None] == ["a"]
    write(1000, 3, "b")
    for name in "bacbca":
        shown(cache, name)


def test_a_library_larger_than_the_budget_is_held_alone(quiet: None) -> None:
    fill_three_libraries()
    cache = ViewCache(budget=1)
    first = weakref.ref(shown(cache, "a").view)
    assert first() is shown(cache, "a").view
    shown(cache, "b")
    assert first() is None


# Readers.


def assert_shows_the_rows(snapshot: Snapshot, current: LoadedView) -> None:
    """What a reader answers from is what its snapshot says, though its files may not be the newest."""
    assert current.view is not None
    rows = loading.load(snapshot, current.state)
    for one, other in zip(live_rows(current.view), live_rows(rows), strict=True):
        assert np.array_equal(one, other)
    position = snapshot.library("a")
    assert position is not None
    assert current.state.position == position.position


def test_readers_see_their_snapshot_while_maintenance_works(library: Library, indexer: Indexer, quiet: None) -> None:
    done, failures = threading.Event(), []
    worker = ViewCache()
    write(0)

    def read(cache: Callable[[], ViewCache]) -> None:
        try:
            while not done.is_set():
                with open_snapshot() as snapshot:
                    assert_shows_the_rows(snapshot, cache().current(snapshot, "a"))
        except BaseException as failure:
            failures.append(failure)
        finally:
            connections.close_all()

    readers = [threading.Thread(target=read, args=(cache,)) for cache in (lambda: worker, lambda: worker, ViewCache)]
    for reader in readers:
        reader.start()
    try:
        for step in range(30):
            write(step * 40 % 700, 60)
            remove(step * 70 % 700, 20)
            indexer.round()
            if step % 7 == 6:
                reindex_library(library_id="a", reindex=Reindex())
            if step % 10 == 9:
                # A job may be writing there.
                shutil.rmtree(settings.INDEX_DIR, ignore_errors=True)
        settle(indexer)
    finally:
        done.set()
        for reader in readers:
            reader.join()
    assert not failures, failures[0]
    reopened()


def test_a_manifest_newer_than_a_readers_snapshot_is_no_damage(
    library: Library, indexer: Indexer, quiet: None, caplog: pytest.LogCaptureFixture
) -> None:
    write(0)
    settle(indexer)
    cache = ViewCache()
    with open_snapshot() as snapshot:
        state = snapshot.library("a")
        assert state is not None
        sealed = threading.Thread(target=_write_and_seal, args=(indexer,))
        sealed.start()
        sealed.join()
        opened = loading.open_view(snapshot, state)
    assert opened is not None
    assert opened.manifest is not None
    assert opened.view is not None
    assert (opened.state, len(opened.view)) == (state, SEAL)
    assert caplog.messages == []
    shown(cache)


def test_rows_that_a_job_has_left_out_are_there_for_a_reader_of_before(
    slow_library: Library, slow: type[Slow], indexer: Indexer, busy: None
) -> None:
    begin_slow_build(indexer, slow)
    with open_snapshot() as snapshot:
        state = snapshot.library("a")
        assert state is not None
        slow.may_end.set()
        published = threading.Thread(target=_write_over_and_publish, args=(indexer,))
        published.start()
        published.join()
        opened = loading.open_view(snapshot, state)
        assert opened is not None
        assert_shows_the_rows(snapshot, opened)
    assert reopened().manifest != opened.manifest


def _write_over_and_publish(indexer: Indexer) -> None:
    try:
        write(0, 10)
        settle(indexer)
    finally:
        connections.close_all()


def _write_and_seal(indexer: Indexer) -> None:
    try:
        write(SEAL)
        settle(indexer)
    finally:
        connections.close_all()


@pytest.fixture(autouse=True)
def warnings_only(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, logger="apps")
