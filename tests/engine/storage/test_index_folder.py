"""What is read from index files is what was written; whatever stops a writer, files are there whole or not at all."""

import errno
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from apps.engine.array_files import save_array
from apps.engine.errors import Damaged
from apps.engine.indexes.registry import INDEX_TYPES
from apps.engine.metrics import Metric
from apps.engine.storage.index_folder import IndexFolder
from apps.engine.storage.segment import Segment
from tests.engine.storage.stored import (
    IDENTITY,
    MANY,
    StoredLibrary,
    make_segment,
    make_vectors,
    publish_again,
    store_library,
)
from tests.limits import descriptors_left, files_of_at_most
from tests.server import ROOT

NOBODY = 65534


@pytest.mark.parametrize("metric", Metric)
@pytest.mark.parametrize("kind", INDEX_TYPES)
def test_what_is_read_back_answers_as_what_was_written(tmp_path: Path, kind: str, metric: Metric) -> None:
    library = store_library(tmp_path / "index", kind, metric)
    identity = replace(IDENTITY, metric=metric.value)
    manifest = library.folder.read(1, identity)
    assert manifest == library.manifest
    queries = make_vectors(5, 99)
    for made, read in zip(library.segments, library.folder.open(manifest, {}), strict=True):
        assert (read.name, read.index.kind, read.dead, read.live) == (made.name, made.index.kind, made.dead, made.live)
        assert np.array_equal(read.live_keys(), made.live_keys())
        assert np.array_equal(read.matrix.vectors, made.matrix.vectors)
        for exact in (False, True):
            found, expected = (
                one.search(queries, 12, exact=exact, params={}, allowed=None, sure=None) for one in (read, made)
            )
            assert np.array_equal(found.positions, expected.positions)
            assert found.scores.tobytes() == expected.scores.tobytes()
            assert not np.isin(found.positions, np.arange(read.dead)).any()


def test_rows_are_mapped_and_cannot_be_written(plain: StoredLibrary) -> None:
    mapped = {line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines()}
    segment, _ = plain.open()
    path = str(plain.path / "segments" / segment.name / "vectors.npy")
    assert path not in mapped
    assert path in Path("/proc/self/maps").read_text()
    for array in (segment.matrix.vectors, segment.keys):
        with pytest.raises(ValueError, match="read-only"):
            array[:1] = 0


def test_a_segment_that_is_known_is_not_read_again(plain: StoredLibrary) -> None:
    known = plain.open()
    shutil.rmtree(plain.path / "segments")
    again = plain.folder.open(plain.manifest, {segment.name: segment for segment in known})
    assert [one.matrix.vectors is other.matrix.vectors for one, other in zip(again, known, strict=True)] == [True, True]
    with pytest.raises(Damaged):
        plain.open()


def test_a_newer_manifest_says_which_rows_are_dead_now(plain: StoredLibrary) -> None:
    large, small = (one.without(np.arange(20, 2 * MANY, 2)) for one in plain.segments)
    newer = replace(
        plain.manifest, number=2, segments=tuple(replace(one, alive=None) for one in plain.manifest.segments)
    )
    plain.folder.publish(newer, {large.name: large, small.name: small})
    manifest = plain.folder.read(2, IDENTITY)
    read = plain.folder.open(manifest, {})
    assert [one.live_keys().tolist() for one in read] == [large.live_keys().tolist(), small.live_keys().tolist()]
    assert [one.dead for one in plain.open()] == [9, 0]


def test_a_manifest_that_is_deleted_while_segments_are_read_is_opened_all_the_same(plain: StoredLibrary) -> None:
    """To check a large segment takes longer than what was replaced is kept."""

    class Reader(dict[str, Segment]):
        """Knows no segment; somebody deletes the manifest before the first is read."""

        def get(self, *_: Any) -> None:  # type: ignore[override]
            shutil.rmtree(plain.path / "manifests" / "1", ignore_errors=True)

    read = plain.folder.open(plain.folder.read(1, IDENTITY), Reader())
    assert [one.dead for one in read] == [9, 0]


@pytest.fixture
def unprivileged() -> Iterator[Path]:
    """A folder of somebody who is not root, as whom the test then runs: permissions do not bind root."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        is_root = os.geteuid() == 0
        if is_root:
            os.chown(folder, NOBODY, NOBODY)
            os.seteuid(NOBODY)
        try:
            yield folder
        finally:
            if is_root:
                os.seteuid(0)


def test_a_file_that_may_not_be_read_is_noticed(unprivileged: Path) -> None:
    library = store_library(unprivileged / "index")
    assert len(library.open()) == 2
    for path in [*library.files(), *(path for path in library.path.rglob("*") if path.is_dir())]:
        mode = path.stat().st_mode
        path.chmod(0)
        with pytest.raises(Damaged):
            library.open()
        assert path.is_dir() or path.name != "manifest.json" or library.folder.numbers() == [1]
        path.chmod(mode)
    assert len(library.open()) == 2


def test_a_folder_that_may_not_be_written_refuses_and_keeps_what_is_there(unprivileged: Path) -> None:
    library = store_library(unprivileged / "index")
    before = library.files()
    for name in ("segments", "manifests"):
        (library.path / name).chmod(0o500)
    with pytest.raises(PermissionError):
        library.folder.save(make_segment(9000, 10))
    with pytest.raises(PermissionError):
        publish_again(library, 2)
    assert (library.files(), library.folder.numbers()) == (before, [1])
    for name in ("segments", "manifests"):
        (library.path / name).chmod(0o700)
    publish_again(library, 2)
    assert library.folder.numbers() == [2, 1]


@pytest.mark.parametrize("size", [0, 100, 4096, 100_000])
def test_a_full_disk_leaves_no_half_segment(plain: StoredLibrary, size: int) -> None:
    before = plain.files()
    segment = make_segment(9000, MANY)
    with files_of_at_most(size), pytest.raises(OSError):
        plain.folder.save(segment)
    assert plain.files() == before
    assert len(list((plain.path / "segments").iterdir())) == 2
    saved, record = plain.folder.save(segment)
    assert (saved.name, record.rows) == (record.name, MANY)


@pytest.mark.parametrize("bytes_", [1, 10_000_000])
def test_a_full_disk_is_told_in_the_words_of_the_system(bytes_: int) -> None:
    with pytest.raises(OSError, match="No space left on device"):
        save_array(Path("/dev/full"), np.zeros(bytes_, np.uint8))


def test_a_process_without_descriptors_learns_nothing_of_the_files(original: StoredLibrary) -> None:
    """However far it gets until they are used up: each large file is the first that cannot be opened, some time."""
    original.open()
    refused = set()
    for count in range(200):
        with descriptors_left(count):
            try:
                opened = original.folder.numbers() and original.open()
            except OSError as error:
                refused.add(error.errno)
                continue
        assert len(opened) == 2
        assert count > 2
        break
    assert refused == {errno.EMFILE}


@pytest.mark.parametrize("size", [0, 100, 400])
def test_a_full_disk_leaves_no_half_manifest(plain: StoredLibrary, size: int) -> None:
    before = plain.files()
    with files_of_at_most(size), pytest.raises(OSError):
        publish_again(plain, 2)
    assert (plain.files(), plain.folder.numbers()) == (before, [1])
    assert [path.name for path in (plain.path / "manifests").iterdir()] == ["1"]
    assert len(plain.open()) == 2


def test_a_number_that_is_taken_is_not_published_over(plain: StoredLibrary) -> None:
    with pytest.raises(OSError):
        publish_again(plain, 1)
    assert plain.folder.numbers() == [1]
    assert plain.folder.read(1, IDENTITY) == plain.manifest


PUBLISH = """
import sys
from pathlib import Path
from tests.engine.storage.stored import MANY, make_segment, make_manifest
from apps.engine.storage.index_folder import IndexFolder

folder, first = IndexFolder(Path(sys.argv[1])), int(sys.argv[2])
segment = make_segment(0, MANY)
print("ready", flush=True)
for number in range(first, first + 100_000):
    # Each manifest has a segment, and dead rows, of its own.
    saved, record = folder.save(segment.without(segment.keys[:number]))
    folder.publish(make_manifest(record, number=number), {saved.name: saved})
    print("published", flush=True)
"""


def test_a_manifest_is_there_whole_or_not_at_all_when_its_writer_is_killed(tmp_path: Path) -> None:
    folder = IndexFolder(tmp_path)

    newest = 0
    for kind in ("segments", "manifests") * 3:
        left = {path.name for path in tmp_path.glob("*/*")}

        def is_writing(kind: str = kind, left: set[str] = left, newest: int = newest) -> bool:
            """Whether there is a segment that no manifest names yet, or a manifest that is not renamed yet."""
            names = {path.name for path in (tmp_path / kind).iterdir()} - left
            if kind == "segments":
                return len(names) > len(folder.numbers()) - newest
            return any(name.startswith(".") for name in names)

        arguments = [sys.executable, "-c", PUBLISH, str(tmp_path), str(newest + 1)]
        with subprocess.Popen(arguments, cwd=ROOT, stdout=subprocess.PIPE) as child:
            assert child.stdout is not None
            assert child.stdout.readline() == b"ready\n"
            for _ in range(2):
                assert child.stdout.readline() == b"published\n"
            while not is_writing():
                pass
            child.send_signal(signal.SIGKILL)
        numbers = folder.numbers()
        assert numbers == list(range(len(numbers), 0, -1))
        for number in numbers[: len(numbers) - newest]:
            (segment,) = folder.open(folder.read(number, IDENTITY), {})
            assert segment.dead == number
        assert len(numbers) >= newest + 2
        newest = numbers[0]


def test_files_that_somebody_removes_replaces_or_writes_into_are_noticed(plain: StoredLibrary) -> None:
    for path in plain.files():
        before = plain.folder.stamps(plain.manifest)
        assert before == plain.folder.stamps(plain.manifest)
        assert before is not None
        content = path.read_bytes()
        path.with_suffix(".new").write_bytes(content)
        path.with_suffix(".new").replace(path)
        replaced = plain.folder.stamps(plain.manifest)
        assert replaced not in (before, None), path.name
        os.utime(path, (0, 0))
        path.write_bytes(content)
        assert plain.folder.stamps(plain.manifest) not in (replaced, None), path.name
        path.unlink()
        assert plain.folder.stamps(plain.manifest) is None, path.name
        path.write_bytes(content)
    shutil.rmtree(plain.path)
    assert plain.folder.stamps(plain.manifest) is None
    assert plain.folder.numbers() == []
    assert plain.folder.failure() is None


def test_why_a_build_failed_is_kept_until_it_is_forgotten(tmp_path: Path) -> None:
    folder = IndexFolder(tmp_path / "not" / "there")
    assert folder.failure() is None
    folder.note_failure(None)
    folder.note_failure("no space, for the “moment”")
    assert IndexFolder(tmp_path / "not" / "there").failure() == "no space, for the “moment”"
    (tmp_path / "not" / "there" / "failure.json").write_bytes(b"{")
    assert "the log has it" in (folder.failure() or "")
    folder.note_failure(None)
    assert folder.failure() is None
