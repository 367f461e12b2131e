"""What statistics say of an index while maintenance works on it."""

import shutil
from collections.abc import Callable

import pytest
from django.conf import settings

from apps.engine import kernels
from apps.indexing.indexer import Indexer
from apps.libraries.inputs import LibraryUpdate, Reindex
from apps.libraries.models import Chunk, Library
from apps.libraries.services.libraries import reindex_library, update_library
from apps.search.query.service import query
from apps.search.query.spec import QuerySpec
from tests.indexing.maintained import (
    BUSY,
    COMPACT,
    POLICY,
    QUIET,
    SEAL,
    SEAL_WHEN_QUIET,
    VERY_QUIET,
    Clock,
    index_stats,
    live,
    make_library,
    remove,
    settle,
    write,
)
from tests.search.database import execute

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "snapshot"])


@pytest.mark.any_database
@pytest.mark.parametrize(("index_type", "rows"), [("auto", SEAL_WHEN_QUIET - 1), ("auto", 0), ("brute_force", 0)])
def test_a_library_too_small_for_files_is_ready(index_type: str, rows: int) -> None:
    indexer = Indexer(VERY_QUIET)
    make_library(index_type=index_type)
    if rows:
        write(0, rows)
    assert (index_stats()["state"], index_stats()["rows_pending"]) == ("ready", rows)
    settle(indexer)
    assert live() == []


@pytest.mark.any_database
@pytest.mark.parametrize(("index_type", "rows"), [("auto", SEAL_WHEN_QUIET), ("brute_force", 1)])
def test_a_library_is_building_until_its_rows_are_in_files(index_type: str, rows: int) -> None:
    indexer = Indexer(VERY_QUIET)
    make_library(index_type=index_type)
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


def _configure_another_type() -> None:
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
        _configure_another_type,
        _ask_for_a_rebuild,
        _lose_the_files,
    ],
)
def test_state_is_building_exactly_while_there_is_something_to_do(change: Callable[[], None], kind: str) -> None:
    indexer = Indexer(VERY_QUIET)
    make_library(index_type=kind)
    write(0, 2 * COMPACT)
    settle(indexer)
    change()
    indexer.sweep()
    states = [index_stats()["state"]]
    while indexer.tick() or indexer.running:
        states.append(index_stats()["state"])
    # The last state of those was seen before maintenance had found nothing more to do.
    assert set(states[:-1]) == {"building"}
    assert index_stats()["state"] == "ready"


def test_rows_that_are_in_no_segment_are_counted(library: Library) -> None:
    indexer = Indexer(QUIET)
    write(0)
    settle(indexer)
    assert index_stats()["rows_tail"] == 0
    write(1000, 3)
    remove(1000, 1)
    index = index_stats()
    assert (index["rows_pending"], index["rows_tail"], index["segments"][0]["rows"]) == (2, 2, SEAL)
    settle(indexer)
    assert (index_stats()["rows_tail"], sum(one["rows"] for one in index_stats()["segments"])) == (0, SEAL + 2)


def test_files_of_which_were_not_announced_are_not_ready(library: Library) -> None:
    indexer = Indexer(VERY_QUIET)
    write(0)
    settle(indexer)
    execute("UPDATE vectordb_library SET manifest = 0")
    assert (index_stats()["rows_pending"], index_stats()["state"]) == (0, "building")
    settle(indexer)
    assert index_stats()["state"] == "ready"


def test_segments_that_will_be_merged_when_the_library_is_quiet_are_not_ready(library: Library, clock: Clock) -> None:
    indexer = Indexer(POLICY, clock=clock)
    for batch in range(2):
        write(batch * SEAL)
        settle(indexer)
    assert (live(), index_stats()["rows_pending"], index_stats()["state"]) == ([SEAL, SEAL], 0, "building")
    clock.forward(6)
    settle(indexer)
    assert (live(), index_stats()["state"]) == ([2 * SEAL], "ready")


def test_an_answer_names_all_types_of_index_that_gave_it(library: Library) -> None:
    indexer = Indexer(BUSY)
    kernels.load()  # or a tree leaves all to a scan
    update_library(library_id="a", update=LibraryUpdate(index_type="kd_tree"))
    for first in (0, 2000):
        write(first, 2000)
        settle(indexer)
    spec = QuerySpec(vector=[0.0, 0.0, 0.0])
    assert query(library_id="a", spec=spec)["meta"]["index"] == "kd_tree"
    update_library(library_id="a", update=LibraryUpdate(index_type="quantized"))
    kinds = set[str]()
    while len(kinds) < 2:
        indexer.tick()
        kinds = {segment["kind"] for segment in index_stats()["segments"]}
    assert query(library_id="a", spec=spec)["meta"]["index"] == "kd_tree, quantized"
    settle(indexer)
    assert query(library_id="a", spec=spec)["meta"]["index"] == "quantized"
