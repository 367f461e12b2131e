"""What queries read again and again is read once, until anybody commits: another connection, or another process."""

import subprocess
import sys

import pytest
from django.db import connections

from apps.libraries.models import Library
from apps.search import snapshots
from apps.search.snapshots import Snapshot
from tests.search.counting import Counting

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "snapshot"])

NAMES = "SELECT name FROM vectordb_library WHERE public_id = %s"
_RENAME = """
import sqlite3, sys
with sqlite3.connect(sys.argv[1]) as connection:
    connection.execute("UPDATE vectordb_library SET name = 'C'")
"""


@pytest.fixture
def library() -> Library:
    return Library.objects.create(public_id="a", name="A")


def read() -> tuple[str, list[str]]:
    """The name of the library, and the statements that were run for it."""
    with Counting(connections["snapshot"]) as snapshot:
        [(name,)] = snapshot.cached_rows(NAMES, ("a",))
        return name, snapshot.asked


def test_what_anybody_commits_is_read_at_once(library: Library) -> None:
    assert read()[0] == "A"
    for name in ("B", "C"):
        Library.objects.update(name=name)
        assert read()[0] == name


def test_a_snapshot_is_of_one_state_whatever_is_committed_meanwhile(library: Library) -> None:
    read()
    with Snapshot(connections["snapshot"]) as snapshot:
        assert snapshot.cached_rows(NAMES, ("a",)) == [("A",)]
        Library.objects.update(name="B")
        assert snapshot.cached_rows(NAMES, ("a",)) == [("A",)]
        # One that runs for the first time is of the same state.
        assert snapshot.cached_rows(NAMES.replace("name FROM", "upper(name) FROM"), ("a",)) == [("A",)]
        snapshot.renew()
        assert snapshot.cached_rows(NAMES, ("a",)) == [("B",)]


@pytest.mark.sqlite
def test_nothing_is_read_again_where_nobody_has_committed(library: Library) -> None:
    assert read() == ("A", [NAMES])
    assert read() == ("A", [])
    Library.objects.create(public_id="b", name="Another")
    assert read() == ("A", [NAMES])


@pytest.mark.sqlite
def test_another_process_may_commit(library: Library) -> None:
    read()
    database = connections["default"].settings_dict["NAME"]
    subprocess.run([sys.executable, "-c", _RENAME, str(database)], check=True)
    assert read() == ("C", [NAMES])


@pytest.mark.sqlite
def test_a_bounded_number_of_answers_is_kept(library: Library) -> None:
    for number in range(2 * snapshots.MOST_KEPT):
        with Snapshot(connections["snapshot"]) as snapshot:
            assert snapshot.cached_rows(NAMES, (f"a-{number}",)) == []
    assert len(connections["snapshot"].connection.found) <= snapshots.MOST_KEPT


@pytest.mark.sqlite
def test_another_connection_keeps_nothing_of_the_one_before(library: Library) -> None:
    read()
    connections["snapshot"].close()
    assert read() == ("A", [NAMES])
