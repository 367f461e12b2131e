"""Rows that are in no file are sealed, when there are enough of them."""

from dataclasses import replace
from pathlib import Path

import pytest
from django.conf import settings

from apps.engine.metadata.filters import parse_filter
from apps.indexing.indexer import Indexer
from apps.indexing.verification import verify_library
from apps.libraries.inputs import ChunksWrite
from apps.libraries.models import Chunk, Library
from apps.libraries.services.chunks import upsert_chunks
from apps.search.cache import ViewCache
from tests.indexing.maintained import (
    BUSY,
    POLICY,
    QUIET,
    SEAL,
    SEAL_WHEN_QUIET,
    Clock,
    bytes_read,
    live,
    make_library,
    pending,
    reads_are_counted,
    reopened,
    settle,
    write,
)
from tests.search.views import shown

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "snapshot"])


def test_rows_are_sealed_when_there_are_many(library: Library) -> None:
    indexer = Indexer(BUSY)
    write(0, SEAL - 1)
    settle(indexer)
    assert (live(), pending()) == ([], SEAL - 1)
    write(SEAL, 1)
    settle(indexer)
    assert (live(), pending()) == ([SEAL], 0)
    write(SEAL + 1, SEAL - 1)
    settle(indexer)
    assert (live(), pending()) == ([SEAL], SEAL - 1)


def write_large(first: int, characters: int) -> None:
    """Write four rows that have this many characters together."""
    size = (characters - 4 * len('{"a":""}')) // 4 - len("text")
    chunks = [
        {"id": f"c{i}", "text": "text", "embedding": [i, 1, 1], "metadata": {"a": str(i).ljust(size, "x")}}
        for i in range(first, first + 4)
    ]
    upsert_chunks(library_id="a", write=ChunksWrite.model_validate({"chunks": chunks}))


@pytest.mark.parametrize("index_type", ["brute_force", "auto"])
def test_few_rows_are_sealed_when_they_are_large(index_type: str) -> None:
    make_library(index_type=index_type)
    indexer = Indexer(replace(BUSY, seal_characters=4_000))
    write_large(0, 3_996)
    settle(indexer)
    assert (live(), pending()) == ([], 4)
    write_large(4, 100)
    settle(indexer)
    assert (live(), pending()) == ([8], 0)
    write_large(8, 4_000)
    settle(indexer)
    assert (live(), pending()) == ([8, 4], 0)


@pytest.mark.any_database
def test_large_rows_are_written_again_in_larger_and_larger_merges_only(library: Library) -> None:
    indexer = Indexer(replace(BUSY, seal_characters=4_000))
    for turn in range(21):
        write_large(4 * turn, 4_000)
        settle(indexer)
    assert sorted(live()) == [4, 16, 64]


@pytest.mark.parametrize(("index_type", "least"), [("brute_force", 1), ("auto", SEAL_WHEN_QUIET)])
def test_fewer_rows_are_sealed_when_the_library_is_quiet(index_type: str, least: int) -> None:
    indexer = Indexer(QUIET)
    make_library(index_type=index_type)
    if least > 1:
        write(0, least - 1)
        settle(indexer)
        assert live() == []
    write(least - 1, 1)
    settle(indexer)
    assert (live(), pending()) == ([least], 0)


def test_the_last_few_rows_are_sealed_when_a_library_has_been_quiet_for_long(clock: Clock) -> None:
    indexer = Indexer(POLICY, clock=clock)
    make_library(index_type="auto")
    for first, rows, expected in ((0, SEAL_WHEN_QUIET - 1, []), (100, 1, [SEAL_WHEN_QUIET])):
        write(first, rows)
        for _ in range(3):
            indexer.tick()
            clock.forward(70.0)
        assert live() == expected, "too few rows for files, if there are none"
    write(200, 1)
    indexer.tick()
    clock.forward(59.0)
    indexer.tick()
    assert pending() == 1
    clock.forward(2.0)
    indexer.tick()
    assert (sorted(live()), pending()) == ([1, SEAL_WHEN_QUIET], 0)


@pytest.mark.any_database
@pytest.mark.skipif(not reads_are_counted, reason="counts what was read by /proc")
@pytest.mark.parametrize(("quiet_seconds", "very_quiet_seconds"), [(0.0, 0.0), (0.0, 3600.0), (3600.0, 3600.0)])
def test_files_of_idle_libraries_are_not_read_again_where_memory_has_no_place_for_all(
    monkeypatch: pytest.MonkeyPatch, quiet_seconds: float, very_quiet_seconds: float
) -> None:
    monkeypatch.setattr(settings, "MEMORY_BUDGET", 1)
    policy = replace(POLICY, quiet_seconds=quiet_seconds, very_quiet_seconds=very_quiet_seconds)
    indexer, libraries = Indexer(policy), [make_library(name) for name in "bc"]
    for library in libraries:
        for first in (0, 2000):
            write(first, 2000, library.public_id)
    for _ in range(3):
        for library in libraries:
            assert indexer.run_until_done(library.public_id) is None
        indexer.tick()
    size = sum(path.stat().st_size for path in Path(settings.INDEX_DIR).rglob("*.npy"))
    indexer.sweep()
    assert bytes_read(indexer.tick) < size // 20
    if quiet_seconds:
        # Too few changes to be sealed while a library is written to; then enough of them. The database is read again.
        write(5000, SEAL // 2, "b")
        assert bytes_read(indexer.tick) < size // 4
        write(6000, SEAL // 2, "b")
        settle(indexer)
        assert (live("b"), pending("b")) == ([4000, SEAL], 0)
        indexer.tick()
        assert bytes_read(indexer.tick) < size // 20
    # One that has changed is looked at.
    next(Path(settings.INDEX_DIR).rglob("vectors.npy")).unlink()
    indexer.sweep()
    assert bytes_read(indexer.tick) > size // 20
    settle(indexer)
    assert all(verify_library(library_id=one.public_id, sample=10, k=3).faults == 0 for one in libraries)


def test_a_library_that_is_written_to_is_not_quiet(library: Library, clock: Clock) -> None:
    indexer = Indexer(POLICY, clock=clock)
    for first in range(5):
        write(first, 1)
        indexer.tick()
        clock.forward(4.9)
        indexer.tick()
        assert live() == []
    clock.forward(0.2)
    indexer.tick()
    assert live() == [5]


def test_what_is_sealed_is_served_from_files_by_those_who_run_already(library: Library) -> None:
    indexer = Indexer(QUIET)
    worker = ViewCache()
    write(0)
    before = shown(worker)
    assert before.manifest is None
    settle(indexer)
    after = shown(worker)
    assert after.manifest is not None
    assert [segment.name for segment in after.view.segments] == [record.name for record in after.manifest.segments]
    assert (len(after.view), after.view.tail.live) == (SEAL, 0)
    write(SEAL, 3)
    again = shown(worker)
    assert again.view.segments == after.view.segments
    assert again.view.tail.live == 3


def test_changes_of_metadata_are_in_the_files(library: Library) -> None:
    indexer = Indexer(QUIET)
    write(0)
    settle(indexer)
    Chunk.objects.update(metadata={"n": 1})
    settle(indexer)
    current = reopened()
    assert current.manifest is not None
    assert current.manifest.seq == current.state.position.seq
    assert current.view.tail.live == 0
    assert len(current.view.keys(current.view.matching(parse_filter({"n": 1})))) == len(current.view)


def test_when_there_is_nothing_to_do_nothing_is_done(library: Library) -> None:
    indexer = Indexer(QUIET)
    write(0)
    settle(indexer)
    before = reopened().manifest
    for _ in range(3):
        assert not indexer.tick()
    assert not Indexer(QUIET).tick()
    assert reopened().manifest == before
