"""What one library costs does not depend on how many there are. Counted, not timed: statements, rows, files."""

import gc
import os
from collections.abc import Callable
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from django.db import connections

from apps.engine.storage.view import View
from apps.engine.vectors import DTYPE
from apps.indexing.indexer import Indexer
from apps.indexing.upkeep import run_upkeep
from apps.libraries.models import Chunk, Embedding, Library
from apps.search.cache import ViewCache
from apps.search.snapshots import open_snapshot
from tests.indexing.maintained import POLICY, VERY_QUIET, make_library, settle, write
from tests.search.chunks import upsert
from tests.search.counting import Counting, opened_below
from tests.search.database import execute
from tests.search.views import shown

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "snapshot"])

ROWS, DIMENSION = 3, 64


def fill(count: int, first: int = 0) -> dict[str, int]:
    """Make libraries, and return the keys of their first chunks by their ids; the vectors of user-i lie around i."""
    numbers = range(first, first + count)
    libraries = Library.objects.bulk_create(
        [Library(public_id=f"user-{i}", name="U", dimension=DIMENSION, metric="euclidean") for i in numbers]
    )
    chunks = Chunk.objects.bulk_create(
        [Chunk(library=library, public_id=str(row)) for library in libraries for row in range(ROWS)]
    )
    Embedding.objects.bulk_create(
        [
            Embedding(chunk=chunk, generation=1, vector=np.full(DIMENSION, number + row / 10, DTYPE).tobytes())
            for chunk, (number, row) in zip(chunks, product(numbers, range(ROWS)), strict=True)
        ]
    )
    return {library.public_id: chunk.pk for library, chunk in zip(libraries, chunks[::ROWS], strict=True)}


def ask(cache: ViewCache, library_id: str) -> int:
    """The key of the chunk that is nearest to the library's number."""
    vector = np.full((1, DIMENSION), float(library_id.partition("-")[2]), np.float32)
    with open_snapshot() as snapshot:
        [hits] = cache.current(snapshot, library_id).view.search(vector, 1)
    return int(hits.keys[0])


def open_views() -> int:
    """How many views there are in this process."""
    gc.collect()
    return sum(isinstance(one, View) for one in gc.get_objects())


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_a_small_library_is_opened_by_one_statement_and_without_files(index_dir: Path) -> None:
    [name] = fill(1)
    cache = ViewCache()
    with Counting(connections["snapshot"]) as snapshot:
        opened = opened_below(index_dir, lambda: cache.current(snapshot, name))
    assert sum("FROM vectordb_chunk" in sql for sql in snapshot.asked) == 1
    # Its state twice, as the snapshot is renewed under the library's lock, or on SQLite once, as nothing was committed
    # in between; and whether it still exists.
    assert len(snapshot.asked) == (3 if snapshot.dialect.has_wal else 4)
    # Whether there is a manifest.
    assert len(opened) == 1
    assert not index_dir.exists()


def test_what_it_costs_to_open_a_library_does_not_grow_with_their_number() -> None:
    names = list(fill(400))
    cache = ViewCache(budget=1 << 30)
    costs = []
    for name in names:
        with Counting(connections["snapshot"]) as snapshot:
            cache.current(snapshot, name)
        costs.append(snapshot.count)
    # Two of its state, its own, and all that are open once for half as many.
    assert sum(costs) <= len(names) * (2 + ROWS + 4)
    assert np.median(costs[-100:]) == np.median(costs[:100])


def test_a_view_takes_little_more_than_its_vectors() -> None:
    [name] = fill(1)
    size = shown(ViewCache(), name).view.nbytes
    assert size < ROWS * (DIMENSION * 4 + 1000)


@pytest.mark.any_database
@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="counts what /proc/self/fd shows")
def test_a_budget_for_three_libraries_and_queries_over_a_thousand(index_dir: Path) -> None:
    keys = fill(5)
    # Of a configured type, so they get files.
    Library.objects.update(index_type="brute_force")
    settle(Indexer(VERY_QUIET))
    assert len(list(index_dir.iterdir())) == 5
    keys |= fill(995, first=5)
    size = max(shown(ViewCache(), name).view.nbytes for name in ("user-0", "user-999"))
    cache = ViewCache(budget=3 * size)
    views, files = open_views(), descriptors()
    for names in (list(keys), list(keys)[:40]):
        assert [ask(cache, name) for name in names] == [keys[name] for name in names]
        assert open_views() - views <= 3
        assert descriptors() - files <= 10


def test_small_index_files_take_no_descriptors(index_dir: Path) -> None:
    make_library()
    write(0, 50)
    settle(Indexer(VERY_QUIET))
    cache = ViewCache()
    before = descriptors()
    current = shown(cache)
    assert current.manifest is not None
    assert descriptors() == before


def test_the_views_used_last_are_kept() -> None:
    names = list(fill(6))
    size = shown(ViewCache(), names[0]).view.nbytes
    cache = ViewCache(budget=3 * size + size // 2)
    for name in names[:3]:
        ask(cache, name)
    first = shown(cache, names[0]).view
    ask(cache, names[3])
    ask(cache, names[4])
    assert shown(cache, names[0]).view is first


def test_what_a_view_grows_by_is_given_back() -> None:
    """Words are indexed when they are asked for, behind the back of who counts."""
    names = list(fill(8))
    Chunk.objects.update(text="word " * 2000)
    size = shown(ViewCache(), names[0]).view.nbytes
    cache = ViewCache(budget=4 * size)
    for name in names[:4]:
        view = shown(cache, name).view
        for part in view.parts:
            part.row_data.text_blocks(len(part.keys))
        grown = view.nbytes
    assert grown > size
    before = open_views()
    for name in names[4:]:
        shown(cache, name)
    assert open_views() - before < 4


def test_views_of_libraries_that_another_process_deletes_are_freed() -> None:
    names = list(fill(60))
    cache = ViewCache()
    before = open_views()
    for name in names[:30]:
        ask(cache, name)
    execute("DELETE FROM vectordb_library WHERE public_id LIKE 'user-_'")
    for name in names[30:]:
        if Library.objects.filter(public_id=name).exists():
            ask(cache, name)
    assert open_views() - before == Library.objects.count()


def test_maintenance_opens_nothing_of_libraries_without_files(index_dir: Path) -> None:
    names = list(fill(100))
    indexer = Indexer(POLICY)
    make_library("with-files")
    write(0, 50, "with-files")
    settle(Indexer(VERY_QUIET))
    settle(indexer)
    uids = list(Library.objects.filter(public_id__in=names).values_list("uid", flat=True))

    def looked_at(act: Callable[[], object]) -> set[str]:
        return {path for path in opened_below(index_dir, act) if any(uid in path for uid in uids)}

    assert looked_at(lambda: run_upkeep(indexer)) == set()
    upsert({"x": np.ones(DIMENSION)}, names[7])
    # Whether it has manifests.
    assert len(looked_at(indexer.tick)) == 1
    assert looked_at(lambda: run_upkeep(indexer)) == set()
    assert {path.name for path in index_dir.iterdir()} == {Library.objects.get(public_id="with-files").uid}
