"""The cache hands out the state of the very snapshot it is asked with, whoever changed the library and however."""

import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from django.db import connection, connections, transaction

from apps.engine.metadata.filters import parse_filter
from apps.engine.metrics import Metric
from apps.engine.vectors import DTYPE
from apps.indexing.upkeep import prune_changes
from apps.libraries.errors import NotFound
from apps.libraries.inputs import ChunkUpdate, LibraryCreate, LibraryUpdate
from apps.libraries.models import Change, Chunk, Embedding, Library
from apps.libraries.services.chunks import delete_chunks, update_chunk
from apps.libraries.services.libraries import create_library, delete_library, update_library
from apps.search.cache import ViewCache, views
from apps.search.loading import LoadedView
from apps.search.snapshots import Snapshot, open_snapshot
from tests.search.chunks import noise, upsert
from tests.search.counting import Counting
from tests.search.database import copy_database, execute, grow_log
from tests.search.views import nearest, shown, shown_in
from tests.threads import in_threads

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "snapshot"])


@pytest.fixture
def cache() -> ViewCache:
    """A cache that no signal reaches: it is the cache of a process that others write beside."""
    return ViewCache()


@pytest.fixture
def library() -> Library:
    """An empty library of dimension 3, under L2."""
    return create_library(create=LibraryCreate(id="a", name="A", dimension=3, metric="euclidean"))


def test_a_library_without_a_dimension_has_a_view(cache: ViewCache) -> None:
    create_library(create=LibraryCreate(id="a", name="A", metric="dot"))
    assert len(shown(cache).view) == 0
    Chunk.objects.create(library=Library.objects.get(), public_id="y")
    assert (len(shown(cache).view), shown(cache).view.bare) == (1, 1)
    upsert({"x": [1, 2, 3]})
    assert nearest(shown(cache), [1, 1, 1]) == "x"


def test_every_write_is_shown(cache: ViewCache, library: Library) -> None:
    rng = np.random.default_rng(5)
    for step in range(40):
        ids = [f"c{i}" for i in rng.choice(60, int(rng.integers(1, 30)), replace=False)]
        if step % 4 == 3:
            delete_chunks(library_id="a", ids=ids)
        else:
            upsert(noise(ids, seed=step))
        shown(cache)


def test_a_small_change_rebuilds_nothing(cache: ViewCache, library: Library) -> None:
    upsert(noise([f"c{i}" for i in range(300)]))
    before = shown(cache)
    upsert({"c7": [9, 9, 9], "new": [8, 8, 8]})
    delete_chunks(library_id="a", ids=["c8"])
    after = shown(cache)
    assert after.view.segments[0].index is before.view.segments[0].index
    assert nearest(after, [9, 9, 9]) == "c7"
    assert len(before.view) == len(after.view) == 300


def test_a_change_of_metadata_moves_the_revision_and_the_row(cache: ViewCache, library: Library) -> None:
    upsert({"x": [1, 2, 3]})
    before = shown(cache)
    update_chunk(library_id="a", chunk_id="x", update=ChunkUpdate(metadata={"n": 1}))
    after = shown(cache)
    assert after.state.position.seq > before.state.position.seq
    for view, matches in ((before.view, 0), (after.view, 1)):
        assert len(view) == 1
        assert len(view.keys(view.matching(parse_filter({"n": 1})))) == matches


def test_a_chunk_that_came_and_went_in_between_is_not_shown(cache: ViewCache, library: Library) -> None:
    upsert({"x": [1, 2, 3]})
    shown(cache)
    upsert({"y": [1, 2, 3], "x": [4, 4, 4]})
    delete_chunks(library_id="a", ids=["y"])
    assert nearest(shown(cache), [1, 2, 3]) == "x"


def test_a_transaction_that_was_rolled_back_is_not_shown(cache: ViewCache, library: Library) -> None:
    upsert({"x": [1, 2, 3]})
    before = shown(cache)
    with transaction.atomic():
        upsert({"y": [5, 5, 5]})
        transaction.set_rollback(True)
    assert shown(cache) is before


def _equal_numbers_but_other_tokens(seq: int) -> None:
    execute("DELETE FROM vectordb_change WHERE seq > %s", seq)
    execute("UPDATE vectordb_change SET token = token / 2 + 1 WHERE seq = %s", seq)


def _an_older_number(seq: int) -> None:
    execute("DELETE FROM vectordb_change WHERE seq >= %s", seq)


def _no_log_at_all(seq: int) -> None:
    execute("DELETE FROM vectordb_change")


def _a_log_that_begins_later(seq: int) -> None:
    execute("DELETE FROM vectordb_change WHERE seq <= %s", seq)


@pytest.mark.parametrize(
    "replace_history",
    [_equal_numbers_but_other_tokens, _an_older_number, _no_log_at_all, _a_log_that_begins_later],
)
def test_another_history_is_read_anew(
    cache: ViewCache, library: Library, replace_history: Callable[[int], None]
) -> None:
    upsert({"x": [1, 2, 3], "y": [4, 5, 6]})
    before = shown(cache)
    assert nearest(before, [0, 0, 0]) == "x"
    Embedding.objects.filter(chunk__public_id="x").update(vector=np.array([9, 9, 9], DTYPE).tobytes())
    replace_history(before.state.position.seq)
    assert nearest(shown(cache), [0, 0, 0]) == "y"
    upsert({"z": [0, 0, 0]})
    assert nearest(shown(cache), [0, 0, 0]) == "z"


@pytest.mark.sqlite
def test_a_backup_that_was_put_back_and_written_to_is_told_apart(
    cache: ViewCache, library: Library, tmp_path: Path
) -> None:
    upsert({"x": [1, 2, 3]})
    live, backup = connection.settings_dict["NAME"], tmp_path / "backup.sqlite3"
    copy_database(live, backup)
    upsert({"lost": [0, 0, 0]})
    before = shown(cache)
    assert nearest(before, [0, 0, 0]) == "lost"
    connections.close_all()
    copy_database(backup, live)
    upsert({"kept": [0, 0, 1]})
    after = shown(cache)
    assert after.state.position.seq == before.state.position.seq
    assert nearest(after, [0, 0, 0]) == "kept"


def test_a_change_of_the_metric_is_seen(cache: ViewCache, library: Library) -> None:
    upsert({"near": [1, 1, 1], "far": [9, 9, 9]})
    assert nearest(shown(cache), [1, 1, 1]) == "near"
    execute("UPDATE vectordb_library SET metric = 'dot'")
    after = shown(cache)
    assert after.state.metric is Metric.DOT
    assert nearest(after, [1, 1, 1]) == "far"


def test_a_change_of_the_dimension_is_seen(cache: ViewCache, library: Library) -> None:
    upsert({"three": [1, 1, 1]})
    shown(cache)
    execute("UPDATE vectordb_library SET dimension = 2")
    current = shown(cache)
    assert (len(current.view), current.view.bare) == (1, 1), "a vector of another dimension was kept"
    upsert({"two": [1, 1]})
    assert nearest(shown(cache), [1, 1]) == "two"


def test_a_change_of_the_generation_is_seen(cache: ViewCache, library: Library) -> None:
    upsert({"x": [1, 1, 1], "y": [2, 2, 2]})
    assert nearest(shown(cache), [0, 0, 0]) == "x"
    for chunk, value in ((Chunk.objects.get(public_id="x"), 7), (Chunk.objects.get(public_id="y"), 5)):
        vector = np.full(3, value, DTYPE).tobytes()
        Embedding.objects.create(chunk=chunk, generation=2, vector=vector)
    assert nearest(shown(cache), [0, 0, 0]) == "x"
    execute("UPDATE vectordb_library SET generation = 2")
    assert nearest(shown(cache), [0, 0, 0]) == "y"


def test_a_library_of_the_same_id_as_one_that_was_deleted_is_another(cache: ViewCache, library: Library) -> None:
    upsert({"x": [1, 2, 3]})
    shown(cache)
    delete_library(library_id="a")
    with pytest.raises(NotFound, match="There is no library 'a'"):
        shown(cache)
    create_library(create=LibraryCreate(id="a", name="A", metric="dot"))
    assert len(shown(cache).view) == 0
    upsert({"y": [1, 2]})
    assert nearest(shown(cache), [1, 2]) == "y"


def test_a_library_made_again_with_its_integer_key_is_another(cache: ViewCache, library: Library) -> None:
    upsert({"x": [1, 2, 3], "y": [4, 5, 6]})
    keys = sorted(Chunk.objects.values_list("pk", flat=True))
    shown(cache)
    library_key = library.pk
    library.delete()
    again = Library.objects.create(pk=library_key, public_id="a", name="A", dimension=3, metric="euclidean")
    for key, name, vector in zip(keys, "vw", ([7, 7, 7], [0, 0, 0]), strict=True):
        chunk = Chunk.objects.create(pk=key, library=again, public_id=name)
        Embedding.objects.create(chunk=chunk, generation=1, vector=np.array(vector, DTYPE).tobytes())
    assert nearest(shown(cache), [1, 2, 3]) == "w"


def test_libraries_do_not_mix(cache: ViewCache, library: Library) -> None:
    create_library(create=LibraryCreate(id="b", name="B", dimension=3))
    upsert({"x": [1, 2, 3]})
    upsert({"x": [3, 2, 1], "y": [1, 2, 3]}, library_id="b")
    first, second = shown(cache), shown(cache, "b")
    assert (len(first.view), len(second.view)) == (1, 2)
    assert shown(cache) is first


@pytest.mark.parametrize("vector", [[np.nan, 1, 1], [np.inf, 0, 0], [1e38, 1e38, 1e38], [0, 0, 0]])
def test_a_vector_that_no_search_can_use_harms_no_other(cache: ViewCache, vector: list[float]) -> None:
    create_library(create=LibraryCreate(id="a", name="A", dimension=3, metric="cosine"))
    upsert({"bad": [1, 2, 3], "good": [3, 2, 1], "worse": [3, -2, 1]})
    shown(cache)
    Embedding.objects.filter(chunk__public_id="bad").update(vector=np.array(vector, DTYPE).tobytes())
    for someone in (cache, ViewCache()):
        with open_snapshot() as snapshot:
            current = someone.current(snapshot, "a")
            [hits] = current.view.search(np.array([[3, 2, 1]], np.float32), 2)
        assert [Chunk.objects.get(pk=key).public_id for key in hits.keys.tolist()] == ["good", "worse"]
        assert np.isfinite(hits.scores).all()


def test_what_was_deleted_here_is_forgotten_at_once(library: Library) -> None:
    upsert({"x": [1, 2, 3]})
    view = weakref.ref(shown(views).view)
    assert view() is not None
    delete_library(library_id="a")
    assert view() is None


def test_what_another_process_deleted_is_forgotten_when_a_library_is_loaded(cache: ViewCache, library: Library) -> None:
    create_library(create=LibraryCreate(id="b", name="B", dimension=3))
    upsert({"x": [1, 2, 3]})
    upsert({"x": [1, 2, 3]}, library_id="b")
    view = weakref.ref(shown(cache).view)
    execute("DELETE FROM vectordb_library WHERE public_id = 'a'")
    shown(cache, "b")
    assert view() is None


def test_a_snapshot_older_than_the_view_is_renewed(cache: ViewCache, library: Library) -> None:
    upsert({"x": [1, 2, 3]})
    shown(cache)
    looked, moved = threading.Event(), threading.Event()

    def look_late() -> LoadedView:
        with open_snapshot() as snapshot:
            old = snapshot.library("a")
            looked.set()
            assert moved.wait(20)
            assert snapshot.library("a") == old
            current = shown_in(snapshot, cache)
            assert current.state != old
            return current

    def move_on() -> LoadedView:
        assert looked.wait(20)
        try:
            upsert({"y": [0, 0, 0]})
            return shown(cache)
        finally:
            moved.set()

    late, early = in_threads(look_late, move_on)
    assert late is early


def test_of_many_threads_one_loads_and_one_catches_up(cache: ViewCache, library: Library) -> None:
    upsert(noise([f"c{i}" for i in range(2000)]))
    loaded = in_threads(*[lambda: _view(cache)] * 8)
    assert len({id(view) for view in loaded}) == 1
    upsert({"c1": [9, 9, 9]})
    caught_up = in_threads(*[lambda: _view(cache)] * 8)
    assert len({id(view) for view in caught_up}) == 1
    assert caught_up[0] is not loaded[0]


def test_who_does_not_wait_for_newer_files_sees_the_settings_of_the_snapshot(
    cache: ViewCache, library: Library
) -> None:
    upsert({"x": [1, 2, 3]})
    before = shown(cache)
    update_library(library_id="a", update=LibraryUpdate(index_type="lsh"))
    entered, answered = threading.Event(), threading.Event()

    def first() -> LoadedView:
        """Holds the lock for as long as opening files may take."""
        with SlowToRenew(entered, answered) as snapshot:
            return cache.current(snapshot, "a")

    def second() -> LoadedView:
        try:
            assert entered.wait(20)
            return shown(cache)
        finally:
            answered.set()

    for current in in_threads(first, second):
        assert current.state.index_type == "lsh"
        assert current.view is before.view


class SlowToRenew(Snapshot):
    """A snapshot that is renewed only when another thread has its answer."""

    def __init__(self, entered: threading.Event, answered: threading.Event) -> None:
        super().__init__(connections["snapshot"])
        self._entered, self._answered = entered, answered

    def renew(self) -> None:
        self._entered.set()
        assert self._answered.wait(20)
        super().renew()


def _view(cache: ViewCache) -> Any:
    with open_snapshot() as snapshot:
        return cache.current(snapshot, "a").view


def test_readers_see_their_snapshot_while_others_write(cache: ViewCache, library: Library) -> None:
    upsert(noise([f"c{i}" for i in range(200)]))
    readers, satisfied, done = 3, threading.Semaphore(0), threading.Event()
    deadline = time.monotonic() + 60

    def write() -> None:
        rng = np.random.default_rng(9)
        waiting = readers
        try:
            while waiting and time.monotonic() < deadline:
                ids = [f"c{i}" for i in rng.choice(300, 20, replace=False)]
                with transaction.atomic():
                    upsert(noise(ids[:15], seed=int(rng.integers(1000))))
                    delete_chunks(library_id="a", ids=ids[15:])
                waiting -= satisfied.acquire(blocking=False)
            assert not waiting, "a reader saw no progress"
        finally:
            done.set()

    def read() -> None:
        revisions = [0]
        while not done.is_set():
            revision = shown(cache).state.position.seq
            assert revision >= revisions[-1]
            if revision > revisions[-1]:
                revisions.append(revision)
                if len(revisions) == 10:
                    satisfied.release()

    in_threads(write, *[read] * readers)


def test_a_view_that_is_current_costs_one_statement(cache: ViewCache, library: Library) -> None:
    upsert({"x": [1, 2, 3]})
    shown(cache)
    create_library(create=LibraryCreate(id="b", name="B", dimension=3))
    with Counting(connections["snapshot"]) as snapshot:
        cache.current(snapshot, "a")
    assert len(snapshot.asked) == 1


def test_pruning_keeps_what_a_view_may_need_and_the_newest_entry(cache: ViewCache, library: Library) -> None:
    upsert(noise([f"c{i}" for i in range(1500)]))
    create_library(create=LibraryCreate(id="b", name="B", dimension=3))
    upsert({"x": [1, 2, 3]}, library_id="b")
    behind, quiet = shown(cache), shown(cache, "b")
    upsert({"c7": [9, 9, 9]})
    assert prune_changes() == 0
    grow_log(7)
    recent = ViewCache()
    shown(recent)
    grow_log(12)
    newest = Change.objects.filter(library_key=library.pk).order_by("-seq")[:20_000]
    kept = [(change.seq, change.token) for change in newest]
    entries = Change.objects.filter(library_key=library.pk).count()

    assert prune_changes() == entries - 20_000
    left = Change.objects.filter(library_key=library.pk).order_by("-seq")
    assert [(change.seq, change.token) for change in left] == kept
    assert prune_changes() == 0
    # One view stands in the part that was pruned, one in the part that was kept, one in a library that is not touched.
    assert nearest(shown(cache), [9, 9, 9]) == "c7"
    assert shown(cache).state.position == shown(recent).state.position != behind.state.position
    assert shown(cache, "b") is quiet


def test_pruning_keeps_as_many_entries_as_there_are_chunks(library: Library) -> None:
    count = 21_000
    vector = np.ones(3, DTYPE).tobytes()
    Chunk.objects.bulk_create([Chunk(library=library, public_id=str(i)) for i in range(count)], batch_size=5000)
    Embedding.objects.bulk_create(
        [Embedding(chunk_id=key, generation=1, vector=vector) for key in Chunk.objects.values_list("pk", flat=True)],
        batch_size=5000,
    )
    Chunk.objects.filter(pk__lte=Chunk.objects.earliest("pk").pk + 99).update(position=1)
    log = Change.objects.filter(library_key=library.pk)
    assert log.count() == 2 * count + 100
    assert prune_changes() == count + 100
    assert log.count() == count
