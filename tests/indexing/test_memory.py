"""Memory that views hold."""

import weakref

import pytest

from apps.indexing.indexer import Indexer
from apps.search.cache import ViewCache
from tests.indexing.maintained import QUIET, make_library, settle, write
from tests.search.views import shown

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "snapshot"])


def fill_three_libraries() -> None:
    """Libraries a, b and c of one size."""
    for name in "abc":
        make_library(name)
        write(0, 500, name)


def held() -> int:
    """How many bytes the view of library a holds."""
    current = shown(ViewCache())
    return current.view.nbytes


@pytest.mark.parametrize("with_files", [False, True])
def test_past_the_budget_the_libraries_that_were_not_used_for_longest_go(with_files: bool) -> None:
    fill_three_libraries()
    if with_files:
        settle(Indexer(QUIET))
    cache = ViewCache(budget=int(2.5 * held()))
    views = {name: weakref.ref(shown(cache, name).view) for name in "ab"}
    shown(cache, "a")
    shown(cache, "c")
    assert [name for name, view in views.items() if view() is not None] == ["a"]
    write(1000, 3, "b")
    for name in "bacbca":
        shown(cache, name)


def test_a_library_larger_than_the_budget_is_held_alone() -> None:
    fill_three_libraries()
    cache = ViewCache(budget=1)
    first = weakref.ref(shown(cache, "a").view)
    assert first() is shown(cache, "a").view
    shown(cache, "b")
    assert first() is None
