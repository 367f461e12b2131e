"""Files of another manifest, library, host or history than the database says."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from django.conf import settings
from django.db import connection, connections

from apps.engine.metadata.filters import parse_filter
from apps.engine.vectors import DTYPE
from apps.indexing.indexer import Indexer
from apps.indexing.verification import verify_library
from apps.libraries.inputs import ChunksWrite, LibraryUpdate, Reindex
from apps.libraries.models import Change, Chunk, Embedding, Library
from apps.libraries.services.chunks import upsert_chunks
from apps.libraries.services.libraries import delete_library, reindex_library, update_library
from apps.search import loading
from apps.search.cache import ViewCache
from tests.indexing.maintained import (
    BUSY,
    QUIET,
    SEAL,
    VERY_QUIET,
    index_stats,
    live,
    make_library,
    pending,
    remove,
    reopened,
    settle,
    tick_until,
    write,
)
from tests.indexing.slow_type import Slow
from tests.search.chunks import noise, upsert
from tests.search.database import copy_database, execute
from tests.search.views import nearest, shown

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "snapshot"])


def test_older_files_that_are_put_back_are_published_again(library: Library, tmp_path: Path) -> None:
    """Nothing is missing in them; but who had opened the newer ones waits until there are files again."""
    indexer = Indexer(VERY_QUIET)
    write(0)
    settle(indexer)
    folder = settings.INDEX_DIR / library.uid
    shutil.copytree(folder, tmp_path / "before")
    for kind in ("kd_tree", "brute_force"):
        update_library(library_id="a", update=LibraryUpdate(index_type=kind))
        settle(indexer)
    assert index_stats()["state"] == "ready"
    newest = loading.index_folder(library.uid).numbers()[0]
    shutil.rmtree(folder)
    (tmp_path / "before").rename(folder)
    assert index_stats()["state"] == "building"
    indexer.sweep()
    settle(indexer)
    assert (live(), index_stats()["state"]) == ([SEAL], "ready")
    assert loading.index_folder(library.uid).numbers() == [newest + 1, 1]


def test_a_manifest_that_another_host_has_published_is_no_lost_one(library: Library) -> None:
    """Each has index files of its own; if each answered the other's number with a higher one, there would be no end."""
    indexer = Indexer(VERY_QUIET)
    write(0)
    settle(indexer)
    numbers = loading.index_folder(library.uid).numbers()
    execute("UPDATE vectordb_library SET manifest = manifest + 1")
    indexer.sweep()
    settle(indexer)
    assert (live(), index_stats()["state"]) == ([SEAL], "ready")
    assert loading.index_folder(library.uid).numbers() == numbers


def test_the_files_of_another_library_are_not_taken(library: Library) -> None:
    indexer = Indexer(QUIET)
    other = make_library("b")
    write(0)
    write(1000, SEAL, "b")
    settle(indexer)
    mine, theirs = (settings.INDEX_DIR / one.uid for one in (library, other))
    shutil.rmtree(mine)
    shutil.copytree(theirs, mine)
    current = reopened()
    assert current.manifest is None
    settle(Indexer(QUIET))
    assert (live("a"), live("b")) == ([SEAL], [SEAL])


def test_a_manifest_that_was_not_announced_is_announced_at_the_next_start(library: Library) -> None:
    """Maintenance was killed after it wrote the files, and before it wrote the library's row."""
    indexer = Indexer(QUIET)
    worker = ViewCache()
    write(0)
    settle(indexer)
    reindex_library(library_id="a", reindex=Reindex())
    before = shown(worker)
    settle(indexer)
    execute("UPDATE vectordb_library SET manifest = %s", before.state.manifest_number)
    assert shown(worker).manifest == before.manifest
    settle(Indexer(QUIET))
    after = shown(worker).manifest
    assert after is not None
    assert after.rebuild == 1


def test_a_change_of_the_generation_is_indexed_again(library: Library) -> None:
    indexer = Indexer(QUIET)
    upsert({"x": [1, 1, 1], "y": [2, 2, 2]})
    settle(indexer)
    for chunk, value in ((Chunk.objects.get(public_id="x"), 7), (Chunk.objects.get(public_id="y"), 5)):
        Embedding.objects.create(chunk=chunk, generation=2, vector=np.full(3, value, DTYPE).tobytes())
    settle(indexer)
    assert nearest(reopened(), [0, 0, 0]) == "x"
    execute("UPDATE vectordb_library SET generation = 2")
    assert nearest(reopened(), [0, 0, 0]) == "y"
    settle(indexer)
    assert (nearest(reopened(), [0, 0, 0]), live(), pending()) == ("y", [2], 0)


def test_other_unindexed_metadata_is_indexed_again(library: Library) -> None:
    def set_unindexed(*paths: str) -> None:
        update_library(library_id="a", update=LibraryUpdate(unindexed=list(paths)))

    def found(cache: ViewCache) -> tuple[int, int]:
        """How many chunks have each of two fields."""
        view = shown(cache).view
        masks = [view.matching(parse_filter({name: {"$exists": True}})) for name in ("large", "small")]
        return len(view.keys(masks[0])), len(view.keys(masks[1]))

    indexer, worker = Indexer(QUIET), ViewCache()
    metadata = {"large": "x" * 500, "small": 1}
    chunks = [{"id": f"c{i}", "embedding": [i, 1, 1], "metadata": metadata} for i in range(100)]
    upsert_chunks(library_id="a", write=ChunksWrite.model_validate({"chunks": chunks}))
    settle(indexer)
    assert (found(worker), live(), pending()) == ((100, 100), [100], 0)
    for paths, expected in ((["large"], (0, 100)), (["small", "x"], (100, 0)), ([], (100, 100))):
        position = shown(worker).state.position
        set_unindexed(*paths)
        assert shown(worker).state.position != position
        # At once, and so in a process that starts. Files that leave out other metadata are of no use.
        assert found(worker) == found(ViewCache()) == expected
        assert (live(), pending()) == (([], 100) if paths else ([100], 0))
        settle(indexer)
        assert found(worker) == found(ViewCache()) == expected
        assert (live(), pending()) == ([100], 0)
        assert verify_library(library_id="a", sample=5, k=2).unequal == ()
    set_unindexed("a", "b")
    settle(indexer)
    set_unindexed("b", "a")  # the same in another order
    assert live() == [100]
    assert loading.index_folder(library.uid).damage() is None


@pytest.mark.sqlite
@pytest.mark.parametrize("sealed_before", [False, True])
@pytest.mark.parametrize("rows", [0, 10, SEAL, SEAL + 10, 3 * SEAL])
def test_a_database_that_was_put_back_and_written_to_is_indexed_as_it_is(
    library: Library, tmp_path: Path, sealed_before: bool, rows: int
) -> None:
    live_file, backup = connection.settings_dict["NAME"], tmp_path / "backup.sqlite3"
    write(0)
    if sealed_before:
        settle(Indexer(BUSY))
    copy_database(live_file, backup)
    worker = ViewCache()
    write(1000, SEAL + 10)
    settle(Indexer(BUSY))
    lost = shown(worker).state.position.seq
    connections.close_all()
    copy_database(backup, live_file)
    if rows:
        write(2000, rows)
    current = reopened()
    assert (current.state.position.seq == lost) == (rows == SEAL + 10)
    assert len(current.view) == SEAL + rows
    settle(Indexer(BUSY))
    write(5000)
    settle(Indexer(BUSY))
    assert sum(live()) == 2 * SEAL + rows
    shown(worker)


@pytest.mark.sqlite
@pytest.mark.parametrize("deletes", ["before it begins", "before it ends"])
@pytest.mark.parametrize("puts_back", ["before it ends", "afterwards"])
def test_what_a_merge_has_left_out_is_there_again_in_a_database_that_was_put_back(
    slow_library: Library, slow: type[Slow], tmp_path: Path, deletes: str, puts_back: str
) -> None:
    indexer = Indexer(BUSY)
    live_file, backup = connection.settings_dict["NAME"], tmp_path / "backup.sqlite3"
    write(0)
    assert indexer.tick()
    assert (live(), slow.builds) == ([SEAL], 0)
    copy_database(live_file, backup)
    if deletes == "before it begins":
        remove(0, 10)
    tick_until(indexer, lambda: slow.builds, "a build has begun")
    if deletes == "before it ends":
        remove(0, 10)
    if puts_back == "afterwards":
        slow.may_end.set()
        settle(indexer)
    connections.close_all()
    copy_database(backup, live_file)
    assert len(reopened().view or ()) == SEAL
    slow.may_end.set()
    settle(indexer)
    for maintained in (indexer, Indexer(BUSY)):
        settle(maintained)
        assert len(reopened().view or ()) == SEAL
    assert verify_library(library_id="a", sample=5, k=3).faults == 0


@pytest.mark.sqlite
def test_a_merge_takes_no_row_from_a_segment_that_was_made_after_the_copy_that_is_put_back(
    library: Library, tmp_path: Path
) -> None:
    indexer = Indexer(QUIET)
    live_file, backup = connection.settings_dict["NAME"], tmp_path / "backup.sqlite3"
    write(0)
    settle(indexer)
    copy_database(live_file, backup)
    upsert(noise(["c0", "c1", "c2"], seed=99))
    tick_until(indexer, lambda: indexer.running, "the two segments are merged")
    for merge in indexer.running.values():
        merge.future.exception()
        assert len(merge.inputs) == 2
    connections.close_all()
    copy_database(backup, live_file)
    for maintained in (indexer, Indexer(QUIET)):
        settle(maintained)
        reopened()
        assert verify_library(library_id="a", sample=5, k=3).faults == 0


def _equal_numbers_but_other_tokens(seq: int) -> None:
    execute("UPDATE vectordb_change SET token = token / 2 + 1 WHERE seq = %s", seq)


def _an_older_number(seq: int) -> None:
    execute("DELETE FROM vectordb_change WHERE seq >= %s", seq)


def _no_log_at_all(seq: int) -> None:
    execute("DELETE FROM vectordb_change")


@pytest.mark.parametrize("replace_history", [_equal_numbers_but_other_tokens, _an_older_number, _no_log_at_all])
def test_another_history_is_indexed_again(library: Library, replace_history: Callable[[int], None]) -> None:
    upsert({"x": [1, 2, 3], "y": [4, 5, 6]})
    settle(Indexer(QUIET))
    Embedding.objects.filter(chunk__public_id="x").update(vector=np.array([9, 9, 9], DTYPE).tobytes())
    log = Change.objects.filter(library_key=library.pk)
    replace_history(log.latest("seq").seq)
    replace_history(log.latest("seq").seq) if log.exists() else None
    assert nearest(reopened(), [0, 0, 0]) == "y"
    settle(Indexer(QUIET))
    assert nearest(reopened(), [0, 0, 0]) == "y"
    upsert({"z": [0, 0, 0]})
    settle(Indexer(QUIET))
    assert (nearest(reopened(), [0, 0, 0]), sum(live()), pending()) == ("z", 3, 0)


def test_a_library_that_was_made_again_with_its_id_never_meets_the_old_files(library: Library, index_dir: Path) -> None:
    indexer = Indexer(QUIET)
    write(0)
    settle(indexer)
    delete_library(library_id="a")
    make_library()
    assert live() == []
    upsert({"new": [1, 2, 3]})
    assert nearest(reopened(), [0, 0, 0]) == "new"
    settle(indexer)
    assert (nearest(reopened(), [0, 0, 0]), live()) == ("new", [1])
    old, new = index_dir / library.uid, index_dir / Library.objects.get().uid
    for folder in (old, new):
        os.utime(folder, (0, 0))
    indexer.sweep()
    assert (old.exists(), new.exists()) == (False, True)
