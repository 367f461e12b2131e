"""Reading all rows takes a while: whoever writes meanwhile, the view is the library as of its end, and the database is
not kept from giving up its old pages."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from django.conf import settings
from django.db import close_old_connections, connection, connections

from apps.engine.vectors import DTYPE
from apps.indexing.indexer import Indexer
from apps.libraries.dialects import SNAPSHOT_ALIAS
from apps.libraries.errors import NotFound
from apps.libraries.inputs import LibraryCreate
from apps.libraries.models import Chunk, Embedding, Library
from apps.libraries.services.chunks import delete_chunks
from apps.libraries.services.libraries import create_library, delete_library
from apps.search.cache import ViewCache
from apps.search.loading import LoadingPolicy, open_view
from apps.search.snapshots import Snapshot, open_snapshot
from tests.search.chunks import noise, upsert
from tests.search.database import copy_database, execute
from tests.search.views import nearest, shown, shown_in
from tests.threads import in_threads

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "snapshot"])

PAGE, ROWS = 10, 75
# The key of the last row.
FAR = 1_000_000


def new_cache() -> ViewCache:
    """The cache of a process that reads a few rows at a time."""
    return ViewCache(policy=LoadingPolicy(page_rows=PAGE))


@pytest.fixture(autouse=True)
def library(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A library of some pages."""
    monkeypatch.setattr(settings, "INDEX_DIR", tmp_path / "index")
    make()


def make() -> None:
    create = LibraryCreate(id="a", name="A", dimension=3, metric="euclidean", index_type="brute_force")
    create_library(create=create)
    upsert(noise([f"c{i}" for i in range(ROWS - 1)]))
    add_with_key(FAR)


def add_with_key(key: int) -> None:
    """What a person with a database shell may do; services add rows at the end."""
    chunk = Chunk.objects.create(id=key, library=Library.objects.get(), public_id=f"key-{key}")
    Embedding.objects.create(chunk=chunk, generation=1, vector=np.full(3, key % 7, DTYPE).tobytes())


class Interrupted(Snapshot):
    """A snapshot beside which somebody does something after each page that is read."""

    def __init__(self, meanwhile: Callable[[int], None]) -> None:
        self.pages = 0
        self._meanwhile = meanwhile
        super().__init__(connections[SNAPSHOT_ALIAS])

    def rows(self, sql: str, params: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        found = super().rows(sql, params)
        if "ORDER BY chunk.id LIMIT" in sql:
            self.pages += 1
            self._meanwhile(self.pages)
        return found


@contextmanager
def interrupted(meanwhile: Callable[[int], None]) -> Iterator[Interrupted]:
    snapshot = Interrupted(meanwhile)
    try:
        yield snapshot
    finally:
        snapshot.close()


def _write_over_rows_that_were_read(page: int) -> None:
    upsert(noise(["c0", "c5"], seed=page))


def _write_over_rows_that_will_be_read(page: int) -> None:
    upsert(noise([f"c{ROWS - 1}", f"c{ROWS - 5}"], seed=page))


def _add(page: int) -> None:
    if page < 2 * ROWS:
        upsert(noise([f"new{page}-{i}" for i in range(PAGE // 2)], seed=page))


def _add_among_those_that_will_be_read(page: int) -> None:
    if page <= 3:
        for i in range(30):
            add_with_key(FAR - 1000 * page + i)


def _delete(page: int) -> None:
    delete_chunks(library_id="a", ids=[f"c{page}", f"c{ROWS - page}"])


def _change_metadata(page: int) -> None:
    Chunk.objects.filter(public_id__in=["c1", "c40"]).update(metadata={"page": page})


def _delete_and_write_again(page: int) -> None:
    delete_chunks(library_id="a", ids=["c3", "c60"])
    upsert(noise(["c3", "c60"], seed=page))


@pytest.mark.parametrize(
    "meanwhile",
    [
        _write_over_rows_that_were_read,
        _write_over_rows_that_will_be_read,
        _add,
        _add_among_those_that_will_be_read,
        _delete,
        _change_metadata,
        _delete_and_write_again,
    ],
)
def test_what_is_written_while_rows_are_read_is_shown(meanwhile: Callable[[int], None]) -> None:
    cache = new_cache()
    before = shown(new_cache()).state.position.seq
    with interrupted(meanwhile) as snapshot:
        current = shown_in(snapshot, cache)
        assert snapshot.pages > ROWS // PAGE // 2, "it is read in many pages"
    assert current.state.position.seq > before, "it is shown as it is when all rows are read"
    shown(cache)


@pytest.mark.sqlite
def test_of_a_database_that_is_put_back_while_rows_are_read_one_history_is_shown(tmp_path: Path) -> None:
    live_file, backup = connection.settings_dict["NAME"], tmp_path / "backup.sqlite3"
    copy_database(live_file, backup)

    def change(page: int) -> None:
        if page == 2:
            upsert(noise([f"c{i}" for i in range(ROWS - 1)], seed=2))
        if page == 4:
            connection.close()
            copy_database(backup, live_file)

    cache = new_cache()
    with interrupted(change) as snapshot:
        shown_in(snapshot, cache)
    shown(cache)


if connection.vendor == "postgresql":

    def test_a_connection_that_the_database_has_closed_is_replaced_by_the_next_request() -> None:
        shown(new_cache())
        with connections[SNAPSHOT_ALIAS].cursor() as cursor:
            cursor.execute("SELECT pg_backend_pid()")
            [pid] = cursor.fetchone()
        execute("SELECT pg_terminate_backend(%s, 10000)", pid)
        close_old_connections()  # as at the beginning of a request
        shown(new_cache())


def test_a_library_that_is_deleted_while_its_rows_are_read_is_not_found() -> None:
    with pytest.raises(NotFound), interrupted(lambda page: page == 3 and delete_library(library_id="a")) as snapshot:
        new_cache().current(snapshot, "a")


def test_a_library_that_is_made_again_while_its_rows_are_read_is_shown_as_it_is() -> None:
    def make_again(page: int) -> None:
        if page == 3:
            delete_library(library_id="a")
            create_library(create=LibraryCreate(id="a", name="A", dimension=2, metric="euclidean"))
            upsert({"new": [1, 2]})

    with interrupted(make_again) as snapshot:
        assert nearest(shown_in(snapshot, new_cache()), [0, 0]) == "new"


def test_files_that_are_made_while_rows_are_read_are_opened_by_who_asks_next() -> None:
    def make_files(page: int) -> None:
        if page == 3:
            in_threads(lambda: Indexer().run_until_done("a"))

    cache = new_cache()
    with interrupted(make_files) as snapshot:
        assert cache.current(snapshot, "a").manifest is None
    assert shown(cache).manifest is not None


def test_a_reader_whose_snapshot_is_older_than_all_files_is_to_take_a_newer_one() -> None:
    """It may have been stopped for longer than files that were replaced are kept."""
    with open_snapshot() as snapshot:
        state = snapshot.existing_library("a")
        upsert(noise(["c0"], seed=1))
        in_threads(lambda: Indexer().run_until_done("a"))
        assert open_view(snapshot, state) is None
        opened = open_view(snapshot, snapshot.existing_library("a"))
    assert opened is not None
    assert opened.manifest is not None


def test_a_database_that_was_put_back_to_a_copy_older_than_all_files_is_read_by_its_rows() -> None:
    with open_snapshot() as snapshot:
        state = snapshot.existing_library("a")
    upsert(noise(["c0"], seed=1))
    in_threads(lambda: Indexer().run_until_done("a"))
    delete_chunks(library_id="a", ids=["c0"])
    execute("DELETE FROM vectordb_change WHERE seq > %s", state.position.seq)
    with open_snapshot() as snapshot:
        assert shown_in(snapshot, new_cache()).manifest is None


def test_rows_without_a_history_are_read_all_the_same() -> None:
    execute("DELETE FROM vectordb_change")
    with interrupted(lambda _: None) as snapshot:
        current = shown_in(snapshot, new_cache())
    assert len(current.view) == ROWS


def test_history_that_is_lost_while_rows_are_read_does_no_harm() -> None:
    def lose_history(page: int) -> None:
        if page == 2:
            upsert(noise(["c0", "c70"], seed=9))
            execute("DELETE FROM vectordb_change")
            upsert(noise(["c1", "c71"], seed=9))

    with interrupted(lose_history) as snapshot:
        shown_in(snapshot, new_cache())


@pytest.mark.sqlite
def test_the_write_ahead_log_can_be_moved_into_the_database_while_rows_are_read() -> None:
    left: list[int] = []

    def write_and_move(page: int) -> None:
        with connection.cursor() as cursor:
            cursor.execute("PRAGMA wal_checkpoint(PASSIVE)")
            _, frames, moved = cursor.fetchone()
        left.append(frames - moved)
        upsert({f"c{i}": np.full(3, page) for i in range(40)})

    with interrupted(write_and_move) as snapshot:
        shown_in(snapshot, new_cache())
    assert len(left) > ROWS // PAGE
    assert not any(left), left
