"""Segments are merged, and rows may change meanwhile."""

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from django.conf import settings

from apps.engine.indexes.registry import INDEX_TYPES
from apps.indexing.indexer import Indexer
from apps.libraries.errors import NotFound
from apps.libraries.inputs import Reindex
from apps.libraries.models import Library
from apps.libraries.services.libraries import delete_library, reindex_library
from apps.search.cache import ViewCache
from tests.indexing.maintained import (
    BUSY,
    COMPACT,
    POLICY,
    QUIET,
    SEAL,
    Clock,
    index_stats,
    live,
    make_library,
    pending,
    remove,
    reopened,
    settle,
    sizes,
    write,
)
from tests.search.chunks import noise, upsert
from tests.search.views import nearest, shown

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "snapshot"])


def test_four_segments_of_a_tier_become_one(library: Library) -> None:
    # By its clock it sweeps nothing, so all that was written is there.
    indexer = Indexer(replace(BUSY, seal_changes=8), clock=lambda: 0.0)
    worker = ViewCache()
    for batches in range(1, 65):
        write(batches * 8, 8)
        settle(indexer)
        manifest = shown(worker).manifest
        assert manifest is not None
        # Like a number to the base of four: each digit is the number of segments of its tier.
        assert len(manifest.segments) == sum(batches // 4**tier % 4 for tier in range(4))
    assert live() == [64 * 8]
    written = [len(np.load(path)) for path in settings.INDEX_DIR.glob("*/segments/*/keys.npy")]
    assert sum(written) == 4 * 64 * 8, "a row is written once when it is sealed, and once for each of three tiers"


def test_a_quiet_library_is_merged_further(library: Library, clock: Clock) -> None:
    indexer = Indexer(POLICY, clock=clock)
    for batch in range(6):
        write(batch * SEAL)
        settle(indexer)
    assert live() == [4 * SEAL, SEAL, SEAL]
    clock.forward(6)
    settle(indexer)
    assert live() == [6 * SEAL]
    write(6 * SEAL, 1)
    indexer.tick()
    clock.forward(6)
    settle(indexer)
    assert sorted(live()) == [1, 6 * SEAL], "one row is not worth copying all"
    write(6 * SEAL + 1, 1)
    indexer.tick()
    clock.forward(6)
    settle(indexer)
    assert sorted(live()) == [2, 6 * SEAL]


@pytest.mark.any_database
@pytest.mark.parametrize("kind", INDEX_TYPES)
def test_merged_rows_are_in_an_index_of_the_configured_type(kind: str) -> None:
    indexer = Indexer(QUIET)
    make_library(index_type=kind)
    for first in (0, 100, 200):
        write(first, 100)
        settle(indexer)
    assert [(one["kind"], one["rows"]) for one in index_stats()["segments"]] == [(kind, 300)]
    assert {**index_stats(), "bytes": 0, "memory": {}, "built_at": "", "segments": []} == {
        "kind": kind,
        "state": "ready",
        "error": None,
        "warning": None,
        "rows_indexed": 300,
        "rows_pending": 0,
        "rows_tail": 0,
        "rows_dead": 0,
        "bytes": 0,
        "memory": {},
        "built_at": "",
        "segments": [],
    }


def test_segments_with_many_dead_rows_are_copied_without_them(library: Library) -> None:
    indexer = Indexer(BUSY)
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


def test_a_segment_whose_rows_are_all_dead_is_dropped(library: Library) -> None:
    indexer = Indexer(QUIET)
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


@pytest.fixture
def merging(library: Library) -> Indexer:
    """Maintenance that has begun to merge the rows c0 to c255, and has not looked yet whether that is done."""
    indexer = Indexer(BUSY)
    for batch in range(4):
        write(batch * SEAL)
        indexer.tick()
    assert live() == [SEAL] * 4
    assert indexer.tick()
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
def test_rows_that_change_during_a_merge_are_right_afterwards(
    merging: Indexer, change: Callable[[], None], seals: bool
) -> None:
    worker = ViewCache()
    shown(worker)
    change()
    if seals:
        # What maintenance does for a quiet library in a tick that finds the merge still running.
        (state,) = merging.libraries.values()
        merging.maintain_library(state, idle=POLICY.quiet_seconds)
        reopened()
    shown(worker)
    settle(merging)
    shown(worker)
    reopened()
    write(9000)
    settle(merging)
    shown(worker)
    reopened()


def test_dead_rows_are_counted_until_they_are_left_out(merging: Indexer) -> None:
    _delete_some()
    settle(merging)
    assert sizes() == [(4 * SEAL - 10, 10)]
    assert index_stats()["rows_dead"] == 10


def test_a_merge_for_a_library_that_was_deleted_ends_in_nothing(merging: Indexer, index_dir: Path) -> None:
    delete_library(library_id="a")
    settle(merging)
    with pytest.raises(NotFound):
        shown(ViewCache())
    (folder,) = index_dir.iterdir()
    os.utime(folder, (0, 0))
    merging.sweep()
    assert list(index_dir.iterdir()) == []


def test_of_deleted_libraries_nothing_is_kept(merging: Indexer) -> None:
    make_library("b")
    write(0, SEAL, "b")
    settle(merging)
    delete_library(library_id="a")
    settle(merging)
    assert list(merging.libraries) == [Library.objects.get(public_id="b").uid]
    delete_library(library_id="b")
    settle(merging)
    assert not merging.libraries


def test_a_merge_for_a_library_that_was_made_again_does_not_reach_it(
    merging: Indexer, caplog: pytest.LogCaptureFixture
) -> None:
    delete_library(library_id="a")
    make_library()
    upsert({"new": [1, 2, 3]})
    settle(merging)
    assert (nearest(reopened(), [0, 0, 0]), live()) == ("new", [])
    write(0)
    settle(merging)
    assert live() == [SEAL + 1]
    assert caplog.messages == []


def test_a_merge_whose_inputs_lose_their_files_harms_nothing(merging: Indexer, index_dir: Path) -> None:
    (running,) = merging.running.values()
    running.future.exception()
    shutil.rmtree(index_dir)
    settle(merging)
    assert (live(), pending()) == ([4 * SEAL], 0)


def test_a_rebuild_that_is_asked_for_during_a_merge_begins_with_the_rows(merging: Indexer) -> None:
    reindex_library(library_id="a", reindex=Reindex())
    settle(merging)
    current = reopened()
    assert current.manifest is not None
    assert (live(), current.manifest.rebuild) == ([4 * SEAL], 1)
    assert index_stats()["state"] == "ready"
