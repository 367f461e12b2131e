"""A merge whose commit fails is committed later."""

import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from apps.indexing.indexer import Indexer
from apps.libraries.inputs import LibraryUpdate
from apps.libraries.models import Library
from apps.libraries.services.libraries import delete_library, update_library
from tests.indexing.maintained import (
    QUIET,
    SEAL,
    Clock,
    index_stats,
    make_library,
    remove,
    reopened,
    settle,
    tick_until,
    write,
)
from tests.indexing.slow_type import Slow, begin_slow_merge
from tests.limits import files_of_at_most
from tests.search.database import execute, refused

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "snapshot"])


Failing = Callable[[], AbstractContextManager[None]]


def no_update_of_a_library() -> AbstractContextManager[None]:
    """Let the database refuse to take the number of a manifest."""
    return refused("UPDATE OF manifest ON vectordb_library")


def build_that_cannot_be_committed(
    indexer: Indexer, slow: type[Slow], failing: Failing = lambda: files_of_at_most(0)
) -> None:
    """Let maintenance build the index of library a, and find then that it cannot publish that."""
    begin_slow_merge(indexer)
    slow.may_end.set()
    (running,) = indexer.running.values()
    running.future.exception()
    with failing():
        for _ in range(3):
            indexer.tick()
    assert index_stats()["state"] == "failed"
    assert index_stats()["rows_indexed"] == 0


@pytest.mark.parametrize(
    "failing", [lambda: files_of_at_most(0), pytest.param(no_update_of_a_library, marks=pytest.mark.sqlite)]
)
def test_what_was_built_and_could_not_be_committed_is_committed_later(
    slow_library: Library, slow: type[Slow], clock: Clock, failing: Failing, index_dir: Path
) -> None:
    indexer = Indexer(QUIET, clock=clock)
    build_that_cannot_be_committed(indexer, slow, failing)
    remove(0, 5)
    settle(indexer)
    assert index_stats()["state"] == "failed", "it is tried again after some seconds"
    for folder in index_dir.glob("*/segments/*"):
        os.utime(folder, (0, 0))
    indexer.sweep()
    clock.forward(6)
    tick_until(indexer, lambda: index_stats()["rows_indexed"] == SEAL - 5, "it is committed")
    assert slow.builds == 1
    settle(indexer)
    assert (index_stats()["state"], index_stats()["error"]) == ("ready", None)
    reopened()


def test_one_library_that_cannot_be_committed_holds_up_no_other(slow_library: Library, slow: type[Slow]) -> None:
    indexer = Indexer(QUIET)
    build_that_cannot_be_committed(indexer, slow)
    make_library("b")
    execute("UPDATE vectordb_library SET index_type = 'slow'")
    write(0, SEAL, "b")
    settle(indexer)
    assert (index_stats("b")["rows_indexed"], slow.builds) == (SEAL, 2)


@pytest.mark.parametrize("is_deleted", [False, True])
def test_what_could_not_be_committed_is_dropped_when_nobody_needs_it(
    slow_library: Library, slow: type[Slow], is_deleted: bool
) -> None:
    indexer = Indexer(QUIET)
    build_that_cannot_be_committed(indexer, slow)
    if is_deleted:
        delete_library(library_id="a")
    else:
        update_library(library_id="a", update=LibraryUpdate(index_type="kd_tree"))
    settle(indexer)
    indexer.tick()
    assert (indexer.uncommitted, slow.builds) == ([], 1)
    if not is_deleted:
        assert (index_stats()["rows_indexed"], index_stats()["state"]) == (SEAL, "ready")
