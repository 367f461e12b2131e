"""Files that are lost or damaged."""

import os
import shutil
from pathlib import Path

import pytest
from django.conf import settings

from apps.engine.text import analyzer
from apps.indexing.indexer import Indexer
from apps.libraries.models import Chunk, Library
from apps.search import loading
from apps.search.cache import ViewCache
from apps.search.snapshots import open_snapshot
from tests.indexing.maintained import (
    BUSY,
    SEAL,
    VERY_QUIET,
    Clock,
    damage,
    index_stats,
    live,
    newest_files,
    pending,
    remove,
    reopened,
    settle,
    sizes,
    write,
)
from tests.limits import descriptors_left
from tests.search.views import shown

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "snapshot"])


def test_files_that_are_lost_are_rebuilt(library: Library, index_dir: Path, caplog: pytest.LogCaptureFixture) -> None:
    indexer = Indexer(BUSY)
    write(0)
    settle(indexer)
    shutil.rmtree(index_dir)
    assert pending() == SEAL
    write(SEAL, 1)
    settle(indexer)
    assert (live(), pending()) == ([SEAL + 1], 0)
    assert [message for message in caplog.messages if "files are gone; they are rebuilt" in message] == [
        "index of library a: files are gone; they are rebuilt"
    ]


@pytest.mark.any_database
@pytest.mark.parametrize("part", ["manifest.json", "keys.npy", "vectors.npy", "norms.npy", "mask"])
def test_damaged_files_are_reported_once_and_rebuilt_at_the_next_start(
    library: Library, caplog: pytest.LogCaptureFixture, part: str
) -> None:
    indexer = Indexer(BUSY)
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
    settle(Indexer(BUSY))
    assert (live(), pending()) == ([2 * SEAL - 1], 0)
    caplog.clear()
    for cache in (worker, ViewCache()):
        assert shown(cache).manifest is not None
    assert caplog.messages == []


@pytest.mark.any_database
def test_a_process_without_descriptors_takes_whole_files_for_no_others(library: Library, clock: Clock) -> None:
    indexer = Indexer(VERY_QUIET)
    # So many that their vectors are mapped: small files are opened one after the other.
    for first in range(0, 6000, 2000):
        write(first, 2000)
    settle(indexer)
    before = reopened().manifest
    starting = Indexer(VERY_QUIET, clock=clock)
    for count in (0, 1, 2):
        worker = ViewCache()
        with descriptors_left(count), open_snapshot() as snapshot, pytest.raises(OSError, match="Too many open files"):
            worker.current(snapshot, "a")
    with descriptors_left(1):
        settle(starting)
    assert loading.index_folder(library.uid).damage() is None
    assert (index_stats()["state"], reopened().manifest) == ("failed", before)
    assert "Too many open files" in index_stats()["error"]
    clock.forward(6)
    settle(starting)
    assert (index_stats()["state"], reopened().manifest) == ("ready", before)


@pytest.mark.any_database
def test_damage_that_a_worker_finds_is_reported_once_and_mended_at_the_next_round(
    library: Library, caplog: pytest.LogCaptureFixture
) -> None:
    """Maintenance has mapped the file, and nothing about it looks other than it did."""
    indexer = Indexer(VERY_QUIET)
    write(0)
    settle(indexer)
    before = reopened().manifest
    (path,) = [path for path in newest_files(library) if path.name == "vectors.npy"]
    stamp = path.stat()
    with path.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\x55")
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert not indexer.tick()
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


def test_files_that_turn_out_to_be_whole_are_kept(library: Library) -> None:
    indexer = Indexer(VERY_QUIET)
    write(0)
    settle(indexer)
    before = reopened().manifest
    assert loading.index_folder(library.uid).note_damage("a disk that answers later")
    settle(indexer)
    assert (reopened().manifest, index_stats()["state"]) == (before, "ready")


@pytest.mark.any_database
def test_damage_is_reported_where_no_mark_can_be_left(library: Library, caplog: pytest.LogCaptureFixture) -> None:
    indexer = Indexer(VERY_QUIET)
    write(0)
    settle(indexer)
    (path,) = [path for path in newest_files(library) if path.name == "vectors.npy"]
    damage(path)
    # No file can be written where a folder is.
    (settings.INDEX_DIR / "damage" / library.uid).mkdir(parents=True)
    shown(ViewCache())
    assert len(caplog.messages) == 1


@pytest.mark.any_database
def test_files_with_words_of_an_older_analyzer_are_rebuilt(library: Library, caplog: pytest.LogCaptureFixture) -> None:
    settle(Indexer(BUSY))
    write(0)
    settle(Indexer(BUSY))
    before = reopened().manifest
    assert before is not None
    # Before there was a number of the words, a manifest had none.
    (path,) = [path for path in newest_files(library) if path.name == "manifest.json"]
    path.write_bytes(path.read_bytes().replace(b'"words":%d,' % analyzer.VERSION, b"", 1))
    assert reopened().manifest is None
    settle(Indexer(BUSY))
    after = reopened().manifest
    assert after is not None
    assert after.number > before.number
    assert (live(), pending()) == ([SEAL], 0)
    assert {record.name for record in after.segments}.isdisjoint(record.name for record in before.segments)
    assert "has words of format None" in caplog.text


def _kind(path: Path) -> str:
    return "mask" if path.suffix == ".npy" and path.parent.parent.name == "manifests" else path.name


@pytest.mark.any_database
@pytest.mark.parametrize("part", ["manifest.json", "keys.npy"])
def test_an_older_manifest_serves_while_the_newest_is_damaged(
    library: Library, caplog: pytest.LogCaptureFixture, part: str
) -> None:
    indexer = Indexer(BUSY)
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
    settle(Indexer(BUSY))
    caplog.clear()
    current = reopened()
    assert current.manifest is not None
    assert current.manifest.number > older.number + 1
    assert (pending(), caplog.messages) == (0, [])


@pytest.mark.any_database
@pytest.mark.parametrize("cold", [False, True])
def test_a_damaged_manifest_is_replaced_though_nothing_changed_since_the_one_before(
    library: Library, caplog: pytest.LogCaptureFixture, cold: bool
) -> None:
    indexer = Indexer(BUSY)
    write(0)
    settle(indexer)
    Chunk.objects.update(metadata={"n": 1})
    settle(indexer)
    older, newest = sorted((settings.INDEX_DIR / library.uid / "manifests").iterdir())
    damage(newest / "manifest.json")
    current = reopened()
    assert current.manifest is not None
    assert str(current.manifest.number) == older.name
    settle(Indexer(BUSY) if cold else indexer)
    Chunk.objects.update(metadata={"n": 2})
    settle(Indexer(BUSY) if cold else indexer)
    caplog.clear()
    reopened()
    assert caplog.messages == []


@pytest.mark.any_database
def test_a_mask_that_is_lost_is_noticed_by_who_runs(library: Library, index_dir: Path) -> None:
    indexer = Indexer(BUSY)
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
