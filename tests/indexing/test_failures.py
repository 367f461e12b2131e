"""What fails is reported, and retried later; the rest goes on."""

from pathlib import Path

import pytest
from django.conf import settings

from apps.indexing.indexer import Indexer
from apps.libraries.inputs import LibraryUpdate, Reindex
from apps.libraries.models import Library
from apps.libraries.services.libraries import reindex_library, update_library
from tests.indexing.maintained import (
    QUIET,
    SEAL,
    Clock,
    bytes_read,
    index_stats,
    live,
    make_library,
    pending,
    reads_are_counted,
    reopened,
    settle,
    tick_until,
    write,
)
from tests.indexing.slow_type import Slow
from tests.search.database import execute

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "snapshot"])


@pytest.mark.parametrize(
    "error", [MemoryError(), OSError(28, "No space left on device"), RuntimeError("faiss says no"), ValueError("what?")]
)
def test_a_build_that_fails_is_reported_and_not_tried_again_at_once(
    slow_library: Library, slow: type[Slow], clock: Clock, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    indexer = Indexer(QUIET, clock=clock)
    slow.error = error
    slow.may_end.set()
    write(0)
    for _ in range(3):
        settle(indexer)
    index = index_stats()
    assert (index["state"], index["error"]) == ("failed", str(error) or type(error).__name__)
    assert (slow.builds, index["rows_pending"]) == (1, SEAL)
    assert [record.message for record in caplog.records if "library a: building failed" in record.message] != []
    reopened()


@pytest.mark.parametrize("update", [LibraryUpdate(index_type="brute_force"), Reindex()])
def test_another_configuration_is_tried_at_once(
    slow_library: Library, slow: type[Slow], clock: Clock, update: LibraryUpdate | Reindex
) -> None:
    indexer = Indexer(QUIET, clock=clock)
    slow.error = RuntimeError("not today")
    slow.may_end.set()
    write(0)
    settle(indexer)
    assert index_stats()["state"] == "failed"
    slow.error = None
    if isinstance(update, Reindex):
        reindex_library(library_id="a", reindex=update)
    else:
        update_library(library_id="a", update=update)
    settle(indexer)
    assert (index_stats()["state"], index_stats()["error"]) == ("ready", None)
    assert index_stats()["rows_pending"] == 0


def test_rows_are_sealed_though_the_index_of_their_library_cannot_be_built(
    slow_library: Library, slow: type[Slow], clock: Clock
) -> None:
    indexer = Indexer(QUIET, clock=clock)
    slow.error = RuntimeError("not today")
    slow.may_end.set()
    for batch in range(3):
        write(batch * SEAL)
        settle(indexer)
        assert (pending(), index_stats()["error"]) == (0, "not today")
    assert (slow.builds, index_stats()["state"]) == (1, "failed")


@pytest.mark.any_database
def test_a_build_that_fails_is_tried_again_later_and_ever_later(
    slow_library: Library, slow: type[Slow], clock: Clock
) -> None:
    indexer = Indexer(QUIET, clock=clock)
    slow.error = RuntimeError("not today")
    slow.may_end.set()
    write(0)
    for builds, seconds in enumerate((5, 10, 20, 40, 60, 60), start=1):
        settle(indexer)
        clock.forward(seconds - 1)
        settle(indexer)
        assert slow.builds == builds
        clock.forward(1)
    slow.error = None
    settle(indexer)
    assert (index_stats()["state"], index_stats()["error"]) == ("ready", None)


@pytest.mark.any_database
@pytest.mark.skipif(not reads_are_counted, reason="counts what was read by /proc")
@pytest.mark.parametrize("fails", [False, True], ids=["builds", "fails"])
def test_files_are_not_read_again_while_their_index_is_built_or_cannot_be(
    slow: type[Slow], clock: Clock, monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    monkeypatch.setattr(settings, "MEMORY_BUDGET", 1)
    if fails:
        slow.error = RuntimeError("not today")
        slow.may_end.set()
    indexer = Indexer(QUIET, clock=clock)
    for name in "bcd":
        make_library(name)
        write(0, 2000, name)
    execute("UPDATE vectordb_library SET index_type = 'slow'")
    if fails:
        settle(indexer)
        assert [index_stats(name)["state"] for name in "bcd"] == ["failed"] * 3
    else:
        tick_until(indexer, lambda: slow.builds, "a build has begun")
    for _ in range(10):
        indexer.tick()
    size = sum(path.stat().st_size for path in Path(settings.INDEX_DIR).rglob("*.npy"))
    assert bytes_read(indexer.tick) < size // 20
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
    slow_library: Library, slow: type[Slow], clock: Clock
) -> None:
    indexer = Indexer(QUIET, clock=clock)
    slow.error = RuntimeError("not today")
    slow.may_end.set()
    write(0)
    make_library("b")
    write(0, SEAL, "b")
    settle(indexer)
    assert (live("b"), index_stats("b")["state"]) == ([SEAL], "ready")


def test_a_seal_that_fails_is_reported_and_tried_again_later(no_room: Path, clock: Clock) -> None:
    indexer = Indexer(QUIET, clock=clock)
    write(0)
    settle(indexer)
    assert index_stats()["state"] == "failed"
    assert "segments" in index_stats()["error"]
    assert (live(), pending()) == ([], SEAL)
    no_room.unlink()
    settle(indexer)
    assert index_stats()["state"] == "failed", "it is tried again after some seconds"
    clock.forward(6)
    settle(indexer)
    assert (live(), pending()) == ([SEAL], 0)
    assert (index_stats()["state"], index_stats()["error"]) == ("ready", None)


@pytest.mark.any_database
def test_attempts_to_seal_that_fail_leave_nothing_behind(library: Library, index_dir: Path, clock: Clock) -> None:
    indexer = Indexer(QUIET, clock=clock)
    folder = index_dir / library.uid
    folder.mkdir(parents=True)
    (folder / "manifests").touch()
    write(0)
    for attempt in range(3):
        indexer.tick()
        assert (index_stats()["state"], list((folder / "segments").iterdir())) == ("failed", [])
        clock.forward(60 * (attempt + 1))
    (folder / "manifests").unlink()
    settle(indexer)
    assert (live(), index_stats()["state"]) == ([SEAL], "ready")
