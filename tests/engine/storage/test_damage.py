"""Index files are whole, or they are Damaged: whatever happens to them, nobody reads wrong rows from them."""

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xxhash

from apps.engine.errors import Damaged
from apps.engine.indexes.registry import INDEX_TYPES
from apps.engine.storage.checked_files import FileRecord
from apps.engine.storage.manifest import Manifest
from tests.engine.storage.stored import DIMENSION, FEW, IDENTITY, MANY, StoredLibrary, make_manifest, store_library


@pytest.fixture(scope="module")
def other_library(original: StoredLibrary, tmp_path_factory: pytest.TempPathFactory) -> StoredLibrary:
    """The files of another library of the same type and size."""
    kind = original.segments[0].index.kind
    return store_library(tmp_path_factory.mktemp("other") / "index", kind, first=MANY + FEW)


def cut_last_byte(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def cut_in_half(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def empty(path: Path) -> None:
    os.truncate(path, 0)


def append_byte(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"\0")


def flip(path: Path, at: float) -> None:
    content = bytearray(path.read_bytes())
    content[int(at * (len(content) - 1))] ^= 1
    path.write_bytes(content)


def flip_first_byte(path: Path) -> None:
    flip(path, 0)


def flip_near_the_start(path: Path) -> None:
    flip(path, 0.1)


def flip_in_the_middle(path: Path) -> None:
    flip(path, 0.5)


def flip_last_byte(path: Path) -> None:
    flip(path, 1)


def write_zeros(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def remove(path: Path) -> None:
    path.unlink()


def put_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def link_to_nothing(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.with_name("nothing"))


DAMAGES = [
    cut_last_byte,
    cut_in_half,
    empty,
    append_byte,
    flip_first_byte,
    flip_near_the_start,
    flip_in_the_middle,
    flip_last_byte,
    write_zeros,
    remove,
    put_a_folder,
    link_to_nothing,
]


def restore(path: Path, content: bytes) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    path.write_bytes(content)


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_noticed(original: StoredLibrary, damage: Callable[[Path], None], tmp_path: Path) -> None:
    library = original.copy_to(tmp_path / "index")
    names = {path.name for path in library.files()}
    assert {"manifest.json", f"{library.segments[0].name}.npy", "keys.npy", "vectors.npy", "norms.npy"} <= names
    for path in library.files():
        content = path.read_bytes()
        damage(path)
        with pytest.raises(Damaged):
            library.open()
        restore(path, content)
    assert len(library.open()) == 2


def test_a_file_of_another_library_is_noticed(
    original: StoredLibrary, other_library: StoredLibrary, tmp_path: Path
) -> None:
    library = original.copy_to(tmp_path / "index")
    for path in library.files():
        theirs = str(path.relative_to(library.path))
        for mine, other in zip(library.segments, other_library.segments, strict=True):
            theirs = theirs.replace(mine.name, other.name)
        content, others = path.read_bytes(), (other_library.path / theirs).read_bytes()
        if content == others:
            continue  # such as the mask
        path.write_bytes(others)
        with pytest.raises(Damaged):
            library.open()
        path.write_bytes(content)


def test_a_flipped_bit_in_any_byte_of_a_manifest_is_noticed(plain: StoredLibrary) -> None:
    path = plain.path / "manifests" / "1" / "manifest.json"
    with path.open("r+b", buffering=0) as file:
        for place, byte in enumerate(path.read_bytes()):
            os.pwrite(file.fileno(), bytes([byte ^ 1 << place % 8]), place)
            with pytest.raises(Damaged):
                plain.folder.read(1, IDENTITY)
            os.pwrite(file.fileno(), bytes([byte]), place)
    assert plain.folder.read(1, IDENTITY) == plain.manifest


def publish_small(plain: StoredLibrary, number: int = 2, **changes: Any) -> Manifest:
    """A manifest of the small segment alone, that says something else of it than is true."""
    small = plain.segments[1]
    record = replace(plain.manifest.segments[1], **changes)
    return plain.folder.publish(make_manifest(record, number=number), {small.name: small})


def test_a_type_that_this_version_does_not_know_is_damage(plain: StoredLibrary) -> None:
    with pytest.raises(Damaged, match="tarot"):
        plain.folder.open(publish_small(plain, kind="tarot"), {})


def test_another_number_of_rows_is_damage(plain: StoredLibrary) -> None:
    with pytest.raises(Damaged, match=f"does not have {FEW - 1} rows"):
        plain.folder.open(publish_small(plain, rows=FEW - 1), {})


def test_a_type_that_a_segment_has_no_files_of_is_damage(plain: StoredLibrary) -> None:
    for number, kind in enumerate([*INDEX_TYPES][1:], start=2):
        with pytest.raises(Damaged):
            plain.folder.open(publish_small(plain, number, kind=kind), {})


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
def test_arrays_of_another_shape_or_type_are_damage(plain: StoredLibrary, name: str, array: np.ndarray) -> None:
    path = plain.path / "segments" / plain.segments[1].name / name
    np.save(path, array)
    record = FileRecord(path.stat().st_size, xxhash.xxh3_64_hexdigest(path.read_bytes()))
    files = dict(plain.manifest.segments[1].files) | {name: record}
    with pytest.raises(Damaged):
        plain.folder.open(publish_small(plain, files=files), {})
