"""A merge that takes long holds up nothing else, and is cancelled when nobody needs it any more."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from apps.engine.indexes.registry import AutoThresholds
from apps.indexing.indexer import Indexer
from apps.libraries.errors import NotFound
from apps.libraries.inputs import LibraryUpdate, Reindex
from apps.libraries.models import Library
from apps.libraries.services.libraries import delete_library, reindex_library, update_library
from apps.search.cache import ViewCache
from tests.indexing.maintained import (
    BUSY,
    COMPACT,
    QUIET,
    SEAL,
    index_stats,
    live,
    make_library,
    pending,
    remove,
    reopened,
    settle,
    sizes,
    tick_until,
    write,
)
from tests.indexing.slow_type import Slow, begin_slow_merge
from tests.search.database import execute
from tests.search.views import shown
from tests.server import until

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "snapshot"])


def test_sealing_and_queries_go_on_while_an_index_is_built(slow_library: Library, slow: type[Slow]) -> None:
    indexer = Indexer(BUSY)
    write(0)
    tick_until(indexer, lambda: slow.builds, "a build has begun")
    assert (index_stats()["state"], index_stats()["rows_pending"]) == ("building", SEAL)
    for batch in range(1, 6):
        write(batch * SEAL)
        remove(batch * SEAL - 20, 10)
        indexer.tick()
        assert pending() == 0
    assert (slow.builds, len(live())) == (1, 6)
    slow.may_end.set()
    settle(indexer)
    assert index_stats()["state"] == "ready"
    assert {one["kind"] for one in index_stats()["segments"]} == {"slow"}
    assert sum(live()) == 6 * SEAL - 50


def test_a_merge_of_one_library_does_not_hold_up_another(slow_library: Library, slow: type[Slow]) -> None:
    indexer = Indexer(QUIET)
    write(0)
    tick_until(indexer, lambda: slow.builds, "a build has begun")
    make_library("b")
    write(0, SEAL, "b")
    for _ in range(3):
        indexer.tick()
    assert (live("a"), live("b")) == ([SEAL], [SEAL])
    slow.may_end.set()
    settle(indexer)


@pytest.mark.any_database
def test_a_slow_build_holds_up_no_quick_merge_of_another_library(slow_library: Library, slow: type[Slow]) -> None:
    indexer = Indexer(QUIET)
    begin_slow_merge(indexer)
    make_library("b", index_type="kd_tree")
    write(0, SEAL, "b")
    tick_until(indexer, lambda: index_stats("b")["rows_indexed"] == SEAL, "b is indexed")
    for batch in range(1, 6):
        write(batch * SEAL, SEAL, "b")
        tick_until(indexer, lambda count=batch + 1: live("b") == [count * SEAL], "b is merged")
    assert (slow.builds, index_stats("a")["rows_indexed"]) == (1, 0)
    slow.may_end.set()
    settle(indexer)
    assert index_stats("a")["rows_indexed"] == SEAL


@pytest.mark.any_database
def test_one_slow_build_is_done_at_a_time(slow_library: Library, slow: type[Slow]) -> None:
    indexer = Indexer(QUIET)
    begin_slow_merge(indexer)
    make_library("b")
    execute("UPDATE vectordb_library SET index_type = 'slow'")
    write(0, SEAL, "b")
    for _ in range(5):
        indexer.tick()
    assert (slow.builds, live("b")) == (1, [SEAL])
    slow.may_end.set()
    settle(indexer)
    assert {index_stats(name)["rows_indexed"] for name in "ab"} == {SEAL}


@pytest.mark.any_database
def test_a_few_rows_are_not_slow_to_index_whatever_the_type(slow_library: Library, slow: type[Slow]) -> None:
    indexer = Indexer(QUIET)
    begin_slow_merge(indexer)
    make_library("b")
    execute("UPDATE vectordb_library SET index_type = 'slow'")
    write(0, SEAL - 1, "b")
    tick_until(indexer, lambda: slow.builds == 2, "b is being built beside a")
    slow.may_end.set()
    settle(indexer)


def slow_from(rows: int) -> AutoThresholds:
    """The thresholds by which `auto` takes the slow type from this number of rows on."""
    return AutoThresholds(tree_dimensions=0, by_rows=((rows, "slow"),))


def test_segments_of_a_library_are_merged_beside_its_slow_build(slow_library: Library, slow: type[Slow]) -> None:
    """Under `auto` only the largest segment is of a type that is slow to build."""
    indexer = Indexer(replace(BUSY, auto=slow_from(5 * SEAL)))
    execute("UPDATE vectordb_library SET index_type = 'auto'")
    write(0, 5 * SEAL)
    tick_until(indexer, lambda: slow.builds, "a build has begun")
    for batch in range(10, 13):
        write(batch * SEAL)
        indexer.tick()
    assert sorted(live()) == [SEAL] * 3 + [5 * SEAL]
    write(20 * SEAL, SEAL - 1)
    remove(10 * SEAL, COMPACT)
    assert (SEAL - COMPACT, COMPACT) in sizes()
    tick_until(indexer, lambda: not [dead for _, dead in sizes() if dead], "dead rows are left out")
    assert slow.builds == 1
    remove(5, 10)
    slow.may_end.set()
    settle(indexer)
    assert (5 * SEAL - 10, 10) in sizes()
    reopened()


@pytest.mark.any_database
@pytest.mark.parametrize("has_checkpoints", [True, False])
@pytest.mark.parametrize("update", [LibraryUpdate(index_type="kd_tree"), Reindex(index_type="kd_tree")])
def test_another_configuration_during_a_slow_build_is_built_at_once(
    slow_library: Library, slow: type[Slow], update: LibraryUpdate | Reindex, has_checkpoints: bool
) -> None:
    indexer = Indexer(QUIET)
    slow.has_checkpoints = has_checkpoints
    begin_slow_merge(indexer)
    if isinstance(update, Reindex):
        reindex_library(library_id="a", reindex=update)
    else:
        update_library(library_id="a", update=update)
    tick_until(indexer, lambda: index_stats()["rows_indexed"] == SEAL, "it is of the other type")
    until(lambda: slow.cancelled == has_checkpoints, "a build that can be broken off is")
    slow.may_end.set()
    settle(indexer)
    assert {one["kind"] for one in index_stats()["segments"]} == {"kd_tree"}
    reopened()


def test_other_parameters_that_are_configured_during_a_slow_build_are_begun_when_it_is_cancelled(
    slow_library: Library, slow: type[Slow]
) -> None:
    indexer = Indexer(QUIET)
    begin_slow_merge(indexer)
    execute("UPDATE vectordb_library SET index_params = %s", '{"m": 8}')
    tick_until(indexer, lambda: slow.builds == 2, "a build with the other parameters has begun")
    assert slow.cancelled == 1
    slow.may_end.set()
    settle(indexer)
    assert (index_stats()["rows_indexed"], index_stats()["state"]) == (SEAL, "ready")


def test_a_build_that_is_still_needed_goes_on(slow_library: Library, slow: type[Slow]) -> None:
    policy = replace(QUIET, auto=slow_from(SEAL))
    indexer = Indexer(policy)
    begin_slow_merge(indexer)
    execute("UPDATE vectordb_library SET index_type = 'auto'")
    update_library(library_id="a", update=LibraryUpdate(name="Renamed"))
    for _ in range(3):
        indexer.tick()
    slow.may_end.set()
    settle(indexer)
    assert (slow.builds, slow.cancelled, index_stats(policy=policy)["rows_indexed"]) == (1, 0, SEAL)


@pytest.mark.parametrize("has_checkpoints", [True, False])
def test_a_slow_build_for_a_library_that_was_deleted_is_given_up(
    slow_library: Library, slow: type[Slow], has_checkpoints: bool
) -> None:
    indexer = Indexer(QUIET)
    slow.has_checkpoints = has_checkpoints
    begin_slow_merge(indexer)
    delete_library(library_id="a")
    indexer.tick()
    if has_checkpoints:
        until(lambda: slow.cancelled, "it is broken off")
    slow.may_end.set()
    settle(indexer)
    with pytest.raises(NotFound):
        shown(ViewCache())


def test_a_library_that_is_deleted_while_it_is_merged_harms_none_of_a_thousand_others(
    slow_library: Library, slow: type[Slow], index_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Library.objects.bulk_create(
        Library(public_id=f"other-{number}", name="Other", dimension=3, index_type="brute_force")
        for number in range(1000)
    )
    indexer = Indexer(QUIET)
    begin_slow_merge(indexer)
    write(0, library_id="other-0")
    delete_library(library_id="a")
    write(0, library_id="other-999")
    slow.may_end.set()
    settle(indexer)
    make_library("a")
    write(0, 5)
    settle(indexer)
    assert [sum(live(name)) for name in ("a", "other-0", "other-999")] == [5, SEAL, SEAL]
    for folder in index_dir.iterdir():
        os.utime(folder, (0, 0))
    indexer.sweep()
    there = Library.objects.filter(public_id__in=["a", "other-0", "other-999"])
    assert {path.name for path in index_dir.iterdir()} == set(there.values_list("uid", flat=True))
    assert len(indexer.libraries) == 1001
    for name in ("a", "other-0", "other-999"):
        reopened(name)
    assert caplog.messages == []
