"""A read of the feed finds what changed since the last one, whoever changed it."""

from collections.abc import Callable
from math import inf

import pytest
from django.db import connections

from apps.indexing.change_feed import ChangeFeed, Changes
from apps.indexing.indexer import Indexer
from apps.libraries.inputs import LibraryCreate, LibraryUpdate
from apps.libraries.models import Change, Library
from apps.libraries.services.libraries import create_library, delete_library, update_library
from apps.search.snapshots import open_snapshot
from tests.indexing.maintained import POLICY, VERY_QUIET, Clock, live, make_library, remove, settle, write
from tests.search.counting import Counting
from tests.search.database import execute

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "snapshot"])


@pytest.fixture
def feed() -> ChangeFeed:
    """A feed that has read the libraries a, b and c, each with rows; maintenance knows nothing new of them."""
    for name in "abc":
        make_library(name)
        write(0, 5, name)
    feed = ChangeFeed()
    assert read(feed) == ["a", "b", "c"]
    assert read(feed) == []
    return feed


def read(feed: ChangeFeed, *, everything: bool = False) -> list[str]:
    with open_snapshot() as snapshot:
        return [state.public_id for state in feed.read(snapshot, everything=everything).states]


def _write() -> None:
    write(3, 5, "b")


def _change_the_configuration() -> None:
    update_library(library_id="b", update=LibraryUpdate(index_type="kd_tree"))


def _change_the_row_by_hand() -> None:
    execute("UPDATE vectordb_library SET index_params = %s WHERE public_id = 'b'", '{"m": 8}')


def _announce_a_manifest() -> None:
    execute("UPDATE vectordb_library SET manifest = 7 WHERE public_id = 'b'")


@pytest.mark.parametrize("change", [_write, _change_the_configuration, _change_the_row_by_hand, _announce_a_manifest])
def test_the_library_that_changed_is_read_once(feed: ChangeFeed, change: Callable[[], None]) -> None:
    change()
    assert read(feed) == ["b"]
    assert read(feed) == []


def test_changes_of_other_tables_are_no_news(feed: ChangeFeed) -> None:
    execute("UPDATE vectordb_library SET description = 'of b' WHERE public_id = 'b'")
    assert read(feed) == []


def test_new_libraries_are_read_and_deleted_ones_are_forgotten(feed: ChangeFeed) -> None:
    # The log's newest entry is of the last one.
    for name in "ac":
        deleted = Library.objects.get(public_id=name).uid
        delete_library(library_id=name)
        with open_snapshot() as snapshot:
            assert feed.read(snapshot) == Changes([], [deleted])
        assert feed.uids == set(Library.objects.values_list("uid", flat=True))
    make_library("d")
    create_library(create=LibraryCreate(id="undecided", name="U"))
    assert read(feed) == ["d", "undecided"]
    assert feed.uids == set(Library.objects.values_list("uid", flat=True))
    assert read(feed) == []


def test_what_a_read_costs_does_not_grow_with_the_number_of_libraries(feed: ChangeFeed) -> None:
    Library.objects.bulk_create([Library(public_id=f"idle-{i}", name="Idle") for i in range(300)])
    read(feed)
    for change in (_write, _change_the_configuration, _announce_a_manifest, lambda: delete_library(library_id="c")):
        change()
        with Counting(connections["snapshot"]) as snapshot:
            feed.read(snapshot)
        assert snapshot.count <= 5


@pytest.mark.parametrize(
    ("sql", "others"),
    [
        ("UPDATE vectordb_change SET token = token / 2 + 1", ["a", "b", "c"]),
        ("DELETE FROM vectordb_change", ["a", "b", "c"]),
        ("DELETE FROM vectordb_change WHERE seq > %s", ["c"]),
    ],
)
def test_all_that_is_otherwise_is_read_where_the_log_is_another_one(
    feed: ChangeFeed, sql: str, others: list[str]
) -> None:
    last = Change.objects.latest("seq").seq
    execute(sql, *([last - 2] if "%s" in sql else []))
    assert read(feed) == others
    assert read(feed) == []


def test_an_entry_that_becomes_visible_late_is_found_by_a_full_read(feed: ChangeFeed) -> None:
    """On PostgreSQL, a transaction that commits later may have taken earlier numbers, for another library."""
    entry = Change.objects.filter(library_key=Library.objects.get(public_id="a").pk).latest("seq")
    Change.objects.filter(pk=entry.pk).delete()
    assert read(feed, everything=True) == ["a"]
    entry.save(force_insert=True)
    assert read(feed) == []
    assert read(feed, everything=True) == ["a"]


def test_idle_libraries_are_not_looked_at_again() -> None:
    for name in "abc":
        make_library(name, index_type="auto" if name == "c" else "brute_force")
        write(0, 5, name)
    indexer = Indexer(VERY_QUIET)
    settle(indexer)
    assert [library.next_look for library in indexer.libraries.values()] == [inf] * 3
    write(100, 1, "b")
    assert indexer.tick()
    settle(indexer)
    assert [library.next_look for library in indexer.libraries.values()] == [inf] * 3
    assert [sum(live(name)) for name in "abc"] == [5, 6, 0]


def test_a_library_is_looked_at_when_a_step_becomes_due(clock: Clock) -> None:
    make_library(index_type="auto")
    write(0, POLICY.quiet_seal_changes)
    indexer = Indexer(POLICY, clock=clock)
    settle(indexer)
    (library,) = indexer.libraries.values()
    assert library.next_look == clock.now + POLICY.quiet_seconds
    clock.forward(POLICY.quiet_seconds)
    settle(indexer)
    assert (live(), library.next_look) == ([POLICY.quiet_seal_changes], inf)
    remove(0, 1)
    settle(indexer)
    assert library.next_look == clock.now + POLICY.very_quiet_seconds
