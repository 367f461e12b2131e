"""Index files are whole, or they are Damaged: whatever happens to them, nobody ever reads wrong rows from them."""

import contextlib
import errno
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
import xxhash

from apps.engine.array_files import save_array
from apps.engine.errors import Damaged, Superseded
from apps.engine.indexes.registry import INDEX_TYPES
from apps.engine.metrics import Metric
from apps.engine.storage.checked_files import FileRecord
from apps.engine.storage.index_folder import IndexFolder, sweep_libraries
from apps.engine.storage.manifest import FORMAT, Identity, Manifest, SegmentRecord
from apps.engine.storage.segment import Segment
from apps.engine.vectors import Float32
from tests.engine.data import content_of
from tests.limits import descriptors_left
from tests.server import ROOT

DIMENSION = 8
# So many that every type makes what it makes for many rows.
MANY, FEW = 6400, 40
NOBODY = 65534
TEN_MINUTES = 600
IDENTITY = Identity("mine", DIMENSION, "cosine", 1)


def vectors_of(rows: int, seed: int) -> Float32:
    return np.random.default_rng(seed).standard_normal((rows, DIMENSION)).astype(np.float32)


def built(first: int, rows: int, kind: str = "brute_force", metric: Metric = Metric.COSINE) -> Segment:
    """A segment of `rows` rows, whose keys count from `first` on."""
    keys = np.arange(first, first + rows)
    return Segment.build(keys=keys, vectors=vectors_of(rows, first), content=content_of(keys), metric=metric, kind=kind)


def manifest_of(
    *records: SegmentRecord, number: int = 1, identity: Identity = IDENTITY, created_at: float = 5.0
) -> Manifest:
    return Manifest(
        number,
        identity,
        seq=7,
        token=8,
        usable_seq=9,
        usable_token=10,
        rebuild=0,
        created_at=created_at,
        segments=records,
    )


@dataclass
class Stored:
    """A library in files at `path`: a large segment with dead rows and a small one without, in one manifest."""

    path: Path
    manifest: Manifest
    segments: tuple[Segment, ...]

    @property
    def folder(self) -> IndexFolder:
        return IndexFolder(self.path)

    def files(self) -> list[Path]:
        return sorted(path for path in self.path.rglob("*") if path.is_file())

    def opened(self) -> tuple[Segment, ...]:
        """The segments, as who starts anew finds them."""
        return self.folder.open(self.folder.read(1, IDENTITY), {})

    def copied(self, path: Path) -> "Stored":
        shutil.copytree(self.path, path)
        return replace(self, path=path)


def stored(path: Path, kind: str = "brute_force", metric: Metric = Metric.COSINE, first: int = 0) -> Stored:
    folder = IndexFolder(path)
    large, one = folder.save(built(first, MANY, kind, metric).without(np.arange(first, first + 9)))
    small, other = folder.save(built(first + MANY, FEW, metric=metric))
    manifest = manifest_of(one, other, identity=replace(IDENTITY, metric=metric.value))
    return Stored(path, folder.publish(manifest, {large.name: large, small.name: small}), (large, small))


@pytest.fixture(scope="module", params=INDEX_TYPES)
def original(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Stored:
    """The files of a library of each type; a test that changes them changes a copy."""
    return stored(tmp_path_factory.mktemp("original") / "index", request.param)


@pytest.fixture(scope="module")
def other_library(original: Stored, tmp_path_factory: pytest.TempPathFactory) -> Stored:
    """The files of another library of the same type and size."""
    kind = original.segments[0].index.kind
    return stored(tmp_path_factory.mktemp("other") / "index", kind, first=MANY + FEW)


@pytest.fixture
def plain(tmp_path: Path) -> Stored:
    """The files of a library under brute force, which a test may change."""
    return stored(tmp_path / "index")


@pytest.mark.parametrize("metric", Metric)
@pytest.mark.parametrize("kind", INDEX_TYPES)
def test_what_is_read_back_answers_as_what_was_written(tmp_path: Path, kind: str, metric: Metric) -> None:
    library = stored(tmp_path / "index", kind, metric)
    identity = replace(IDENTITY, metric=metric.value)
    manifest = library.folder.read(1, identity)
    assert manifest == library.manifest
    queries = vectors_of(5, 99)
    for made, read in zip(library.segments, library.folder.open(manifest, {}), strict=True):
        assert (read.name, read.index.kind, read.dead, read.live) == (made.name, made.index.kind, made.dead, made.live)
        assert np.array_equal(read.live_keys(), made.live_keys())
        assert np.array_equal(read.vectors, made.vectors)
        for exact in (False, True):
            found, expected = (one.search(queries, 12, exact=exact, params={}) for one in (read, made))
            assert np.array_equal(found.positions, expected.positions)
            assert found.scores.tobytes() == expected.scores.tobytes()
            assert not np.isin(found.positions, np.arange(read.dead)).any()


def test_rows_are_mapped_and_cannot_be_written(plain: Stored) -> None:
    mapped = {line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines()}
    segment, _ = plain.opened()
    path = str(plain.path / "segments" / segment.name / "vectors.npy")
    assert path not in mapped
    assert path in Path("/proc/self/maps").read_text()
    for array in (segment.vectors, segment.keys):
        with pytest.raises(ValueError, match="read-only"):
            array[:1] = 0


def test_a_segment_that_is_known_is_not_read_again(plain: Stored) -> None:
    known = plain.opened()
    shutil.rmtree(plain.path / "segments")
    again = plain.folder.open(plain.manifest, {segment.name: segment for segment in known})
    assert [one.vectors is other.vectors for one, other in zip(again, known, strict=True)] == [True, True]
    with pytest.raises(Damaged):
        plain.opened()


def test_a_newer_manifest_says_which_rows_are_dead_now(plain: Stored) -> None:
    large, small = (one.without(np.arange(20, 2 * MANY, 2)) for one in plain.segments)
    newer = replace(
        plain.manifest, number=2, segments=tuple(replace(one, alive=None) for one in plain.manifest.segments)
    )
    plain.folder.publish(newer, {large.name: large, small.name: small})
    manifest = plain.folder.read(2, IDENTITY)
    read = plain.folder.open(manifest, {})
    assert [one.live_keys().tolist() for one in read] == [large.live_keys().tolist(), small.live_keys().tolist()]
    assert [one.dead for one in plain.opened()] == [9, 0]


def _without_the_end(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def _cut_in_half(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def _emptied(path: Path) -> None:
    os.truncate(path, 0)


def _longer(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"\0")


def _flip(path: Path, at: float) -> None:
    content = bytearray(path.read_bytes())
    content[int(at * (len(content) - 1))] ^= 1
    path.write_bytes(content)


def _flipped_at_the_start(path: Path) -> None:
    _flip(path, 0)


def _flipped_near_the_start(path: Path) -> None:
    _flip(path, 0.1)


def _flipped_in_the_middle(path: Path) -> None:
    _flip(path, 0.5)


def _flipped_at_the_end(path: Path) -> None:
    _flip(path, 1)


def _zeros(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def _removed(path: Path) -> None:
    path.unlink()


def _a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _a_link_to_nothing(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.with_name("nothing"))


DAMAGES = [
    _without_the_end,
    _cut_in_half,
    _emptied,
    _longer,
    _flipped_at_the_start,
    _flipped_near_the_start,
    _flipped_in_the_middle,
    _flipped_at_the_end,
    _zeros,
    _removed,
    _a_folder,
    _a_link_to_nothing,
]


def restore(path: Path, content: bytes) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    path.write_bytes(content)


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_noticed(original: Stored, damage: Callable[[Path], None], tmp_path: Path) -> None:
    library = original.copied(tmp_path / "index")
    names = {path.name for path in library.files()}
    assert {"manifest.json", f"{library.segments[0].name}.npy", "keys.npy", "vectors.npy", "norms.npy"} <= names
    for path in library.files():
        content = path.read_bytes()
        damage(path)
        with pytest.raises(Damaged):
            library.opened()
        restore(path, content)
        assert len(library.opened()) == 2


def test_a_file_of_another_library_is_noticed(original: Stored, other_library: Stored, tmp_path: Path) -> None:
    library = original.copied(tmp_path / "index")
    for path in library.files():
        theirs = str(path.relative_to(library.path))
        for mine, other in zip(library.segments, other_library.segments, strict=True):
            theirs = theirs.replace(mine.name, other.name)
        content, others = path.read_bytes(), (other_library.path / theirs).read_bytes()
        if content == others:
            continue  # such as the mask
        path.write_bytes(others)
        with pytest.raises(Damaged):
            library.opened()
        path.write_bytes(content)


def test_a_flipped_bit_in_any_byte_of_a_manifest_is_noticed(plain: Stored) -> None:
    path = plain.path / "manifests" / "1" / "manifest.json"
    with path.open("r+b", buffering=0) as file:
        for place, byte in enumerate(path.read_bytes()):
            os.pwrite(file.fileno(), bytes([byte ^ 1 << place % 8]), place)
            with pytest.raises(Damaged):
                plain.folder.read(1, IDENTITY)
            os.pwrite(file.fileno(), bytes([byte]), place)
    assert plain.folder.read(1, IDENTITY) == plain.manifest


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
    library = stored(unprivileged / "index")
    assert len(library.opened()) == 2
    for path in [*library.files(), *(path for path in library.path.rglob("*") if path.is_dir())]:
        mode = path.stat().st_mode
        path.chmod(0)
        with pytest.raises(Damaged):
            library.opened()
        assert path.is_dir() or path.name != "manifest.json" or library.folder.numbers() == [1]
        path.chmod(mode)
    assert len(library.opened()) == 2


def test_a_folder_that_may_not_be_written_refuses_and_keeps_what_is_there(unprivileged: Path) -> None:
    library = stored(unprivileged / "index")
    before = library.files()
    for name in ("segments", "manifests"):
        (library.path / name).chmod(0o500)
    with pytest.raises(PermissionError):
        library.folder.save(built(9000, 10))
    with pytest.raises(PermissionError):
        publish_again(library, 2)
    assert (library.files(), library.folder.numbers()) == (before, [1])
    for name in ("segments", "manifests"):
        (library.path / name).chmod(0o700)
    publish_again(library, 2)
    assert library.folder.numbers() == [2, 1]


def publish_again(library: Stored, number: int) -> Manifest:
    records = tuple(replace(record, alive=None) for record in library.manifest.segments)
    newer = replace(library.manifest, number=number, segments=records)
    return library.folder.publish(newer, {segment.name: segment for segment in library.segments})


@contextlib.contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """Let the system refuse to write more into a file, as it does when a disk is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("size", [0, 100, 4096, 100_000])
def test_a_full_disk_leaves_no_half_segment(plain: Stored, size: int) -> None:
    before = plain.files()
    segment = built(9000, MANY)
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


def test_a_process_without_descriptors_learns_nothing_of_the_files(original: Stored) -> None:
    """However far it gets until they are used up: each file of it is the first that cannot be opened, some time."""
    original.opened()
    refused = set()
    for count in range(200):
        with descriptors_left(count):
            try:
                opened = original.folder.numbers() and original.opened()
            except OSError as error:
                refused.add(error.errno)
                continue
        assert len(opened) == 2
        assert count > 5
        break
    assert refused == {errno.EMFILE}


@pytest.mark.parametrize("size", [0, 100, 400])
def test_a_full_disk_leaves_no_half_manifest(plain: Stored, size: int) -> None:
    before = plain.files()
    with files_of_at_most(size), pytest.raises(OSError):
        publish_again(plain, 2)
    assert (plain.files(), plain.folder.numbers()) == (before, [1])
    assert [path.name for path in (plain.path / "manifests").iterdir()] == ["1"]
    assert len(plain.opened()) == 2


def test_a_number_that_is_taken_is_not_published_over(plain: Stored) -> None:
    with pytest.raises(OSError):
        publish_again(plain, 1)
    assert plain.folder.numbers() == [1]
    assert plain.folder.read(1, IDENTITY) == plain.manifest


PUBLISH = """
import sys
from pathlib import Path
from tests.engine.storage.test_manifests import MANY, built, manifest_of
from apps.engine.storage.index_folder import IndexFolder

folder, first = IndexFolder(Path(sys.argv[1])), int(sys.argv[2])
segment = built(0, MANY)
print("ready", flush=True)
for number in range(first, first + 100_000):
    # Each manifest has a segment, and dead rows, of its own.
    saved, record = folder.save(segment.without(segment.keys[:number]))
    folder.publish(manifest_of(record, number=number), {saved.name: saved})
"""


def test_a_manifest_is_there_whole_or_not_at_all_when_its_writer_is_killed(tmp_path: Path) -> None:
    folder = IndexFolder(tmp_path)
    newest = 0
    for kill in range(6):
        arguments = [sys.executable, "-c", PUBLISH, str(tmp_path), str(newest + 1)]
        with subprocess.Popen(arguments, cwd=ROOT, stdout=subprocess.PIPE) as child:
            assert child.stdout is not None
            assert child.stdout.readline() == b"ready\n"
            deadline = time.monotonic() + 20
            while len(folder.numbers()) < newest + 2 and time.monotonic() < deadline:
                time.sleep(0.001 * kill)
            child.send_signal(signal.SIGKILL)
        numbers = folder.numbers()
        assert numbers == list(range(len(numbers), 0, -1))
        for number in numbers[: len(numbers) - newest]:
            (segment,) = folder.open(folder.read(number, IDENTITY), {})
            assert segment.dead == number
        assert len(numbers) >= newest + 2
        newest = numbers[0]


def rewritten(path: Path, change: Callable[[dict[str, Any]], None], version: int = FORMAT) -> None:
    """Change a manifest, and give it the checksum that it must have then."""
    fields = orjson.loads(path.read_bytes().partition(b"\n")[2])
    change(fields)
    body = orjson.dumps(fields)
    head = orjson.dumps({"format": version, "xxh3": xxhash.xxh3_64_hexdigest(body)})
    path.write_bytes(head + b"\n" + body)


def _nothing(fields: dict[str, Any]) -> None:
    pass


def _a_field_less(fields: dict[str, Any]) -> None:
    del fields["token"]


def _a_field_more(fields: dict[str, Any]) -> None:
    fields["segments"][0]["colour"] = "red"


def _no_identity(fields: dict[str, Any]) -> None:
    fields["identity"] = None


def _no_segments(fields: dict[str, Any]) -> None:
    fields["segments"] = 5


@pytest.mark.parametrize("version", [0, 1, None, "2"])
def test_another_format_is_not_read(plain: Stored, version: Any) -> None:
    rewritten(plain.path / "manifests" / "1" / "manifest.json", _nothing)
    assert len(plain.opened()) == 2
    rewritten(plain.path / "manifests" / "1" / "manifest.json", _nothing, version)
    with pytest.raises(Damaged, match=f"manifest 1 is of format {version!r}, not {FORMAT}"):
        plain.opened()


@pytest.mark.parametrize("change", [_a_field_less, _a_field_more, _no_identity, _no_segments])
def test_other_fields_are_not_read(plain: Stored, change: Callable[[dict[str, Any]], None]) -> None:
    rewritten(plain.path / "manifests" / "1" / "manifest.json", change)
    with pytest.raises(Damaged, match="manifest 1 cannot be read"):
        plain.opened()


@pytest.mark.parametrize(
    "identity",
    [
        replace(IDENTITY, library="another"),
        replace(IDENTITY, dimension=9),
        replace(IDENTITY, metric="dot"),
    ],
)
def test_a_manifest_of_other_vectors_is_not_read(plain: Stored, identity: Identity) -> None:
    with pytest.raises(Damaged, match="of another library, or of other vectors"):
        plain.folder.read(1, identity)


def test_a_manifest_of_another_generation_is_no_damage(plain: Stored) -> None:
    with pytest.raises(Superseded, match="manifest 1 is of generation 1 of the vectors"):
        plain.folder.read(1, replace(IDENTITY, generation=2))


def test_a_manifest_under_another_number_is_not_read(plain: Stored) -> None:
    shutil.copytree(plain.path / "manifests" / "1", plain.path / "manifests" / "2")
    assert plain.folder.numbers() == [2, 1]
    with pytest.raises(Damaged, match="manifest 2"):
        plain.folder.read(2, IDENTITY)
    assert plain.folder.read(1, IDENTITY) == plain.manifest


def published(plain: Stored, number: int = 2, **changes: Any) -> Manifest:
    """A manifest of the small segment alone, that says something else of it than is true."""
    small = plain.segments[1]
    record = replace(plain.manifest.segments[1], **changes)
    return plain.folder.publish(manifest_of(record, number=number), {small.name: small})


def test_a_type_that_this_version_does_not_know_is_damage(plain: Stored) -> None:
    with pytest.raises(Damaged, match="tarot"):
        plain.folder.open(published(plain, kind="tarot"), {})


def test_another_number_of_rows_is_damage(plain: Stored) -> None:
    with pytest.raises(Damaged, match=f"does not have {FEW - 1} rows"):
        plain.folder.open(published(plain, rows=FEW - 1), {})


def test_a_type_that_a_segment_has_no_files_of_is_damage(plain: Stored) -> None:
    for number, kind in enumerate(INDEX_TYPES[1:], start=2):
        with pytest.raises(Damaged):
            plain.folder.open(published(plain, number, kind=kind), {})


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("vectors.npy", np.zeros((FEW, DIMENSION + 1), np.float32)),
        ("vectors.npy", np.zeros((FEW + 1, DIMENSION), np.float32)),
        ("vectors.npy", np.zeros((FEW, DIMENSION), np.float64)),
        ("vectors.npy", np.zeros(FEW, np.float32)),
        ("keys.npy", np.zeros(FEW, np.int32)),
        ("keys.npy", np.zeros(FEW + 1, np.int64)),
    ],
)
def test_arrays_of_another_shape_or_type_are_damage(plain: Stored, name: str, array: np.ndarray) -> None:
    path = plain.path / "segments" / plain.segments[1].name / name
    np.save(path, array)
    record = FileRecord(path.stat().st_size, xxhash.xxh3_64_hexdigest(path.read_bytes()))
    files = dict(plain.manifest.segments[1].files) | {name: record}
    with pytest.raises(Damaged):
        plain.folder.open(published(plain, files=files), {})


def test_files_that_somebody_removes_replaces_or_writes_into_are_noticed(plain: Stored) -> None:
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


def age(path: Path, seconds: float) -> None:
    """Let a folder look as if nobody had written into it for so long."""
    os.utime(path, (time.time() - seconds,) * 2)


class Library:
    """Manifests of one segment each, which a test makes older than they are."""

    def __init__(self, path: Path) -> None:
        self.path, self.folder = path, IndexFolder(path)
        self.names: dict[int, str] = {}

    def publish(self, number: int) -> None:
        segment, record = self.folder.save(built(number, 10))
        self.folder.publish(manifest_of(record, number=number), {segment.name: segment})
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


def test_a_manifest_is_kept_until_a_newer_one_has_been_there_for_ten_minutes(library: Library) -> None:
    library.age(10 * TEN_MINUTES, 1, 2)
    library.age(TEN_MINUTES - 60, 3)
    library.folder.sweep(IDENTITY)
    assert library.left() == ([2, 3], [2, 3])
    assert library.opens(2)
    library.age(TEN_MINUTES + 1, 3)
    library.folder.sweep(IDENTITY)
    assert library.left() == ([3], [3])


def test_what_is_young_is_kept(library: Library) -> None:
    library.folder.sweep(IDENTITY)
    assert library.left() == ([1, 2, 3], [1, 2, 3])
    segment, _ = library.folder.save(built(50, 10))
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
        _emptied(library.path / "manifests" / str(number) / "manifest.json")
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
