"""Rebuilds on request."""

import pytest

from apps.indexing.indexer import Indexer
from apps.indexing.merge_policy import is_rebuilt, status_of
from apps.libraries.inputs import LibraryCreate, Reindex
from apps.libraries.models import Library
from apps.libraries.services.libraries import create_library, reindex_library
from apps.search import loading
from apps.search.cache import ViewCache
from apps.search.snapshots import open_snapshot
from tests.indexing.maintained import (
    BUSY,
    POLICY,
    SEAL,
    index_stats,
    live,
    make_library,
    remove,
    reopened,
    settle,
    write,
)

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "snapshot"])


@pytest.mark.parametrize("index_type", ["brute_force", "auto"])
def test_a_rebuild_reads_the_rows_whatever_the_files_say(index_type: str) -> None:
    indexer = Indexer(BUSY)
    make_library(index_type=index_type)
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


def test_a_rebuild_of_an_empty_library_ends(library: Library) -> None:
    indexer = Indexer(BUSY)
    reindex_library(library_id="a", reindex=Reindex())
    assert Indexer(BUSY).run_until_done("a") is None
    settle(indexer)
    assert index_stats()["state"] == "ready"
    write(0)
    settle(indexer)
    assert (live(), index_stats()["state"]) == ([SEAL], "ready")


def test_a_rebuild_of_a_library_without_a_dimension_ends() -> None:
    indexer = Indexer(BUSY)
    create_library(create=LibraryCreate(id="a", name="A"))
    reindex_library(library_id="a", reindex=Reindex())
    assert Indexer(BUSY).run_until_done("a") is None
    settle(indexer)
    assert index_stats()["state"] == "ready"
    write(0)
    settle(indexer)
    assert (live(), index_stats()["state"]) == ([SEAL], "ready")


def test_a_rebuild_of_an_emptied_library_ends(library: Library) -> None:
    indexer = Indexer(BUSY)
    write(0)
    settle(indexer)
    remove(0, SEAL)
    reindex_library(library_id="a", reindex=Reindex())
    settle(indexer)
    assert (live(), index_stats()["state"]) == ([], "ready")


def has_been_rebuilt() -> bool:
    """Whether library a has been rebuilt as it was asked for."""
    with open_snapshot() as snapshot:
        current = ViewCache().current(snapshot, "a")
        return is_rebuilt(status_of(snapshot, current, loading.index_folder(current.state.uid), POLICY), POLICY)


def test_a_rebuild_is_done_though_rows_are_written_all_the_time() -> None:
    indexer = Indexer(BUSY)
    make_library(index_type="kd_tree")
    write(0)
    reindex_library(library_id="a", reindex=Reindex())
    while not has_been_rebuilt():
        indexer.tick()
    assert index_stats()["rows_indexed"] == SEAL
    write(1000, 10)
    assert has_been_rebuilt()
    assert index_stats()["state"] == "building"
