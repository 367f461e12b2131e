"""Sweeping deletes index files that were replaced a second ago, or that nothing has referred to for ten minutes, and no
others."""

import os
import time
from dataclasses import replace
from pathlib import Path

import pytest

from apps.engine.storage.index_folder import SECONDS_SUPERSEDED, IndexFolder, sweep_libraries
from tests.engine.storage.stored import (
    IDENTITY,
    make_manifest,
    make_segment,
)

TEN_MINUTES = 600


def age(path: Path, seconds: float) -> None:
    """Let a folder look as if nobody had written into it for so long; below 0, as if somebody were still to."""
    os.utime(path, (time.time() - seconds,) * 2)


class Library:
    """Manifests of one segment each, which a test makes older than they are."""

    def __init__(self, path: Path) -> None:
        self.path, self.folder = path, IndexFolder(path)
        self.names: dict[int, str] = {}

    def publish(self, number: int) -> None:
        segment, record = self.folder.save(make_segment(number, 10))
        self.folder.publish(make_manifest(record, number=number), {segment.name: segment})
        self.names[number] = segment.name

    def age(self, seconds: float, *numbers: int) -> None:
        for number in numbers:
            age(self.path / "manifests" / str(number), seconds)
            age(self.path / "segments" / self.names[number], seconds)

    def left(self) -> tuple[list[int], list[int]]:
        """The numbers of the manifests that are there, and those whose segments are."""
        there = {path.name for path in (self.path / "segments").iterdir()}
        return self.folder.numbers()[::-1], [number for number, name in self.names.items() if name in there]

    def opens(self, number: int) -> bool:
        return len(self.folder.open(self.folder.read(number, IDENTITY), {})) == 1


@pytest.fixture
def library(tmp_path: Path) -> Library:
    """Manifests 1 to 3, all as young as they are."""
    library = Library(tmp_path / "mine")
    for number in (1, 2, 3):
        library.publish(number)
    return library


def test_the_newest_manifest_is_kept_however_old(library: Library) -> None:
    library.age(10 * TEN_MINUTES, 1, 2, 3)
    library.folder.sweep(IDENTITY)
    assert library.left() == ([3], [3])
    assert library.opens(3)
    assert library.folder.sweep(IDENTITY) == 0


def test_a_manifest_is_kept_until_a_newer_one_has_been_there_for_a_second(library: Library) -> None:
    library.age(SECONDS_SUPERSEDED, 2)
    library.age(SECONDS_SUPERSEDED - TEN_MINUTES, 3)
    library.folder.sweep(IDENTITY)
    assert library.left() == ([2, 3], [2, 3]), "its segments, though they are young, are not needed"
    assert library.opens(2)
    library.age(SECONDS_SUPERSEDED, 3)
    library.folder.sweep(IDENTITY)
    assert library.left() == ([3], [3])


def test_what_is_young_is_kept(library: Library) -> None:
    library.age(-TEN_MINUTES, 1, 2, 3)
    library.folder.sweep(IDENTITY)
    assert library.left() == ([1, 2, 3], [1, 2, 3])
    segment, _ = library.folder.save(make_segment(50, 10))
    half = library.path / "manifests" / ".4-0123"
    half.mkdir()
    assert library.folder.sweep(IDENTITY) == 0
    for path in (half, library.path / "segments" / segment.name):
        age(path, TEN_MINUTES - 60)
    assert library.folder.sweep(IDENTITY) == 0
    for path in (half, library.path / "segments" / segment.name):
        age(path, TEN_MINUTES + 1)
    assert library.folder.sweep(IDENTITY) == 2
    assert library.left() == ([1, 2, 3], [1, 2, 3])


def test_a_segment_is_kept_for_every_manifest_that_is(library: Library) -> None:
    first = library.folder.read(1, IDENTITY)
    (segment,) = library.folder.open(first, {})
    library.folder.publish(replace(first, number=4), {segment.name: segment})
    for number in (1, 2, 3):
        library.age(10 * TEN_MINUTES, number)
    age(library.path / "manifests" / "4", TEN_MINUTES + 1)
    library.folder.sweep(IDENTITY)
    assert library.left() == ([4], [1])
    assert library.opens(4)


def test_the_segments_of_damaged_manifests_are_removed_in_their_time(library: Library) -> None:
    for number in (1, 2, 3):
        (library.path / "manifests" / str(number) / "manifest.json").write_bytes(b"")
    library.folder.sweep(IDENTITY)
    assert library.left() == ([1, 2, 3], [1, 2, 3])
    library.publish(4)
    library.age(10 * TEN_MINUTES, 1, 2, 3)
    age(library.path / "manifests" / "4", TEN_MINUTES + 1)
    library.folder.sweep(IDENTITY)
    assert library.left() == ([4], [4])


def test_the_folders_of_libraries_that_are_no_more_are_removed_in_their_time(library: Library, tmp_path: Path) -> None:
    gone = Library(tmp_path / "gone")
    gone.publish(1)
    assert sweep_libraries(tmp_path, {"mine"}) == 0
    for folder in (library.path, gone.path):
        age(folder, TEN_MINUTES + 1)
    assert sweep_libraries(tmp_path, {"mine"}) == 1
    assert (library.path.exists(), gone.path.exists()) == (True, False)
    assert sweep_libraries(tmp_path / "nothing", set()) == 0
