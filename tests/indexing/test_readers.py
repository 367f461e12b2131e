"""Readers see their snapshot while maintenance works."""

import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from django.conf import settings
from django.db import connections

from apps.indexing.indexer import Indexer
from apps.libraries.inputs import Reindex
from apps.libraries.models import Library
from apps.libraries.services.libraries import reindex_library
from apps.search import loading
from apps.search.cache import ViewCache
from apps.search.loading import LoadedView
from apps.search.snapshots import Position, Snapshot, open_snapshot
from tests.indexing.maintained import BUSY, QUIET, SEAL, remove, reopened, settle, write
from tests.indexing.slow_type import Slow, begin_slow_merge
from tests.search.views import live_rows, shown

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "snapshot"])


def assert_shows_the_rows(snapshot: Snapshot, current: LoadedView) -> None:
    """What a reader answers from is what its snapshot says, though its files may not be the newest."""
    rows = loading.load(snapshot, current.state)
    for one, other in zip(live_rows(current.view), live_rows(rows), strict=True):
        assert np.array_equal(one, other)
    position = snapshot.library("a")
    assert position is not None
    assert current.state.position == position.position


def test_readers_see_their_snapshot_while_maintenance_works(library: Library) -> None:
    indexer = Indexer(QUIET)
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
        for step in range(12):
            write(step * 40 % 300, 60)
            remove(step * 70 % 300, 20)
            indexer.tick()
            if step % 4 == 3:
                reindex_library(library_id="a", reindex=Reindex())
            if step % 5 == 4:
                # A merge may be writing there.
                shutil.rmtree(settings.INDEX_DIR, ignore_errors=True)
        settle(indexer)
    finally:
        done.set()
        for reader in readers:
            reader.join()
    assert not failures, failures[0]
    reopened()


def test_a_manifest_newer_than_a_readers_snapshot_is_no_damage(
    library: Library, caplog: pytest.LogCaptureFixture
) -> None:
    indexer = Indexer(QUIET)
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
    assert (opened.state, len(opened.view)) == (state, SEAL)
    assert caplog.messages == []
    shown(cache)


def test_rows_that_a_merge_has_left_out_are_there_for_a_reader_of_before(
    slow_library: Library, slow: type[Slow]
) -> None:
    indexer = Indexer(BUSY)
    begin_slow_merge(indexer)
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


def test_files_that_are_replaced_and_deleted_while_they_are_opened_are_no_damage(
    library: Library, index_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    indexer = Indexer(QUIET)
    write(0)
    settle(indexer)
    before = reopened().manifest

    class Overtaken(Snapshot):
        """Before the files that a manifest names are opened, another manifest of other files takes its place."""

        is_overtaken = False

        def has(self, key: int, position: Position) -> bool:
            if not self.is_overtaken:
                self.is_overtaken = True
                replacing = threading.Thread(target=_replace_files, args=(indexer, index_dir))
                replacing.start()
                replacing.join()
            return super().has(key, position)

    with Overtaken(connections["snapshot"]) as snapshot:
        current = ViewCache().current(snapshot, "a")
        assert snapshot.is_overtaken
        assert_shows_the_rows(snapshot, current)
    assert before is not None
    assert current.manifest is not None
    assert not {one.name for one in before.segments} & {one.name for one in current.manifest.segments}
    assert caplog.messages == []
    assert not (index_dir / "damage").exists()


def _replace_files(indexer: Indexer, index_dir: Path) -> None:
    try:
        reindex_library(library_id="a", reindex=Reindex())
        settle(indexer)
        for folder in index_dir.rglob("*"):
            os.utime(folder, (0, 0))
        indexer.sweep()
    finally:
        connections.close_all()


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
