"""Chunks without a vector in index files: in segments of their own, sealed, merged and verified like the rest."""

import shutil
from pathlib import Path

import pytest

from apps.indexing.indexer import Indexer
from apps.libraries.inputs import LibraryCreate, Reindex
from apps.libraries.models import Library
from apps.libraries.services.libraries import create_library, reindex_library
from tests.indexing.maintained import (
    BUSY,
    COMPACT,
    SEAL,
    VERY_QUIET,
    damage,
    index_stats,
    pending,
    remove,
    reopened,
    settle,
    write,
)
from tests.search.chunks import upsert

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "snapshot"])


def write_bare(first: int, count: int = SEAL) -> None:
    """Write the rows c<first>, c<first + 1> and so on, without vectors."""
    upsert({f"c{i}": None for i in range(first, first + count)})


def kinds() -> list[tuple[str, int, int]]:
    """Type, live and dead rows of the segments that have files."""
    return sorted((segment.kind, segment.live, segment.dead) for segment in reopened().view.segments if segment.name)


def test_rows_without_vectors_are_sealed_apart_and_merged_among_themselves(library: Library) -> None:
    indexer = Indexer(BUSY)
    for first in range(0, 8 * SEAL, 2 * SEAL):
        write(first)
        write_bare(first + SEAL)
        settle(indexer)
    assert kinds() == [("brute_force", 4 * SEAL, 0), ("none", 4 * SEAL, 0)]
    # Rows whose vectors come and go die in one segment, and appear in the other.
    write_bare(0, 2)
    write(SEAL, 1)
    settle(Indexer(VERY_QUIET))
    assert (len(reopened().view), reopened().view.bare, pending()) == (8 * SEAL, 4 * SEAL + 1, 0)
    remove(SEAL, COMPACT + SEAL)
    settle(Indexer(VERY_QUIET))
    stats = index_stats()
    assert (stats["state"], stats["rows_pending"], stats["rows_tail"]) == ("ready", 0, 0)


@pytest.mark.parametrize("index_type", ["auto", "kd_tree"])
def test_a_library_without_a_dimension_has_index_files(index_type: str, index_dir: Path) -> None:
    library = create_library(create=LibraryCreate(id="a", name="A", index_type=index_type))
    indexer = Indexer(VERY_QUIET)
    write_bare(0)
    settle(indexer)
    assert kinds() == [("none", SEAL, 0)]
    stats = index_stats()
    assert (stats["state"], stats["rows_indexed"], stats["rows_pending"]) == ("ready", SEAL, 0)
    reindex_library(library_id="a", reindex=Reindex())
    assert index_stats()["state"] == "building"
    settle(indexer)
    assert (index_stats()["state"], kinds()) == ("ready", [("none", SEAL, 0)])
    for path in (index_dir / library.uid).rglob("keys.npy"):
        damage(path)
    assert len(reopened().view) == SEAL
    settle(indexer)
    assert kinds() == [("none", SEAL, 0)]
    shutil.rmtree(index_dir)
    assert len(reopened().view) == SEAL


def test_files_of_the_time_before_there_were_vectors_are_replaced(
    index_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    create_library(create=LibraryCreate(id="a", name="A", metric="euclidean"))
    indexer = Indexer(VERY_QUIET)
    write_bare(0)
    settle(indexer)
    write(0, 1)
    current = reopened()
    assert (current.state.dimension, len(current.view), current.view.bare) == (3, SEAL, SEAL - 1)
    settle(indexer)
    assert kinds() == [("brute_force", 1, 0), ("none", SEAL - 1, 0)]
    assert not caplog.records, "nothing is damaged"


@pytest.mark.any_database
def test_an_index_type_for_all_rows_leaves_those_without_vectors_alone(library: Library) -> None:
    settle(indexer := Indexer(VERY_QUIET))
    write(0)
    write_bare(SEAL)
    reindex_library(library_id="a", reindex=Reindex(index_type="kd_tree"))
    settle(indexer)
    assert kinds() == [("kd_tree", SEAL, 0), ("none", SEAL, 0)]
    assert index_stats()["rows_pending"] == 0
