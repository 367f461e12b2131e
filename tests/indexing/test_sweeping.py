"""What nothing needs is deleted: entries of the change log, and files."""

import os
import time
from pathlib import Path

import pytest

from apps.engine.storage.index_folder import SECONDS_SUPERSEDED
from apps.indexing.indexer import Indexer
from apps.indexing.upkeep import prune_changes, run_upkeep
from apps.libraries.models import Change, Library
from apps.search.cache import ViewCache
from tests.indexing.maintained import (
    BUSY,
    POLICY,
    QUIET,
    SEAL,
    damage,
    newest_files,
    remove,
    reopened,
    settle,
    write,
)
from tests.search.chunks import upsert
from tests.search.database import grow_log, refused
from tests.search.views import nearest, shown

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "snapshot"])


def test_pruning_keeps_what_the_newest_manifest_needs(library: Library) -> None:
    indexer = Indexer(BUSY)
    write(0)
    settle(indexer)
    manifest = reopened().manifest
    assert manifest is not None
    upsert({"c7": [9, 9, 9]})
    grow_log(5)
    assert prune_changes(POLICY) == 2 * SEAL - 1
    log = Change.objects.filter(library_key=library.pk)
    assert log.earliest("seq").seq == manifest.seq
    current = reopened()
    assert (current.manifest, nearest(current, [9, 9, 9])) == (manifest, "c7")
    assert prune_changes(POLICY) == 0
    settle(indexer)
    assert prune_changes(POLICY) > 0
    assert log.count() == 20
    assert reopened().manifest is not None


def test_pruning_looks_at_the_manifest_that_can_be_read(library: Library) -> None:
    indexer = Indexer(BUSY)
    write(0)
    settle(indexer)
    older = reopened().manifest
    assert older is not None
    write(SEAL)
    settle(indexer)
    (path,) = [path for path in newest_files(library) if path.name == "manifest.json"]
    damage(path)
    prune_changes(POLICY)
    assert Change.objects.filter(library_key=library.pk).earliest("seq").seq == older.seq
    assert reopened().manifest == older


def test_sweeping_keeps_what_is_served(library: Library, index_dir: Path) -> None:
    indexer = Indexer(QUIET)
    worker = ViewCache()
    for first in range(0, 500, 100):
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
    write(500, 100)
    shown(worker)
    settle(indexer)
    shown(worker)


@pytest.mark.sqlite
def test_index_files_are_swept_though_the_database_takes_no_writes(
    library: Library, index_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    indexer = Indexer(QUIET)
    write(0)
    settle(indexer)
    grow_log(5)
    settle(indexer)
    left = index_dir / library.uid / "segments" / "left"
    left.mkdir()
    os.utime(left, (0, 0))
    with refused("DELETE ON vectordb_change"):
        assert not run_upkeep(indexer, POLICY)
    assert not left.exists()
    (message,) = caplog.messages
    assert message.startswith("upkeep of the database failed, and is retried later: not today")
    assert run_upkeep(indexer, POLICY)


def test_churn_leaves_no_more_files_than_the_rows_need(library: Library, index_dir: Path) -> None:
    now = 0.0
    indexer = Indexer(QUIET, clock=lambda: now)
    write(0)
    settle(indexer)
    fresh = size(index_dir)
    for _ in range(8):
        remove(0, SEAL)
        write(0)
        settle(indexer)
        for folder in index_dir.rglob("*"):
            if folder.is_dir():
                os.utime(folder, (time.time() - SECONDS_SUPERSEDED,) * 2)
        now += SECONDS_SUPERSEDED
        indexer.tick()
        assert size(index_dir) < 2 * fresh
    reopened()


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
