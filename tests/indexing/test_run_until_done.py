"""Callers that wait until all is done for a library, or for all."""

from pathlib import Path

import pytest

from apps.indexing.indexer import Indexer
from apps.libraries.models import Library
from tests.indexing.maintained import POLICY, SEAL, index_stats, live, make_library, write
from tests.indexing.slow_type import Slow

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "snapshot"])


def test_who_waits_for_a_library_learns_why_it_failed(no_room: Path) -> None:
    indexer = Indexer(POLICY)
    write(0)
    assert "segments" in (indexer.run_until_done("a") or "")
    no_room.unlink()
    assert Indexer(POLICY).run_until_done("a") is None
    assert live() == [SEAL]


def test_who_waits_learns_of_a_failure_that_cannot_be_written_down(library: Library, index_dir: Path) -> None:
    index_dir.touch()
    write(0)
    assert "File exists" in (Indexer(POLICY).run_until_done("a") or "")


def test_who_waits_for_a_build_that_fails_waits_for_one(slow_library: Library, slow: type[Slow]) -> None:
    slow.error = RuntimeError("not today")
    slow.may_end.set()
    write(0)
    assert Indexer(POLICY).run_until_done("a") == "not today"
    assert slow.builds == 1


def test_all_libraries_are_done_though_one_of_them_fails(no_room: Path) -> None:
    make_library("b")
    make_library("few", index_type="auto")
    for name in ("a", "b", "few"):
        write(0, 3, name)
    assert not Indexer(POLICY).run_all_until_done(lambda: False)
    assert (live("a"), live("b"), live("few")) == ([], [3], [])
    assert [index_stats(name)["state"] for name in ("a", "b", "few")] == ["failed", "ready", "ready"]


def test_who_does_all_there_is_to_do_stops_when_asked(slow_library: Library, slow: type[Slow]) -> None:
    write(0)
    make_library("b")
    write(0, 3, "b")
    assert not Indexer(POLICY).run_all_until_done(lambda: slow.builds > 0)
    assert (live("a"), live("b")) == ([SEAL], [])
    slow.may_end.set()
    assert Indexer(POLICY).run_all_until_done(lambda: False)
    assert (live("a"), live("b")) == ([SEAL], [3])
